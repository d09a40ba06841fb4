"""Planning and reading in one process: what the feed (`feed/feed.py`) divides among a process and threads."""

from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.plan_arrays import drawn_streams, plan_arrays, settings_of_plan, unusable
from training.curriculum.recipe import Recipe
from training.curriculum.row_plan import RowPlan, Share, shares_of
from training.curriculum.sample_draws import NothingUsable
from training.curriculum.sample_plan import PlannedSample
from training.curriculum.sample_reader import SampleReader


class SampleStream(RowPlan):
    """Rows of the steps of a recipe, and `reader` for what is in them."""

    def __init__(self, corpus: Corpus, recipe: Recipe, tokenizer: TextTokenizer) -> None:
        self.corpus, self.recipe = corpus, recipe
        super().__init__(drawn_streams(corpus, recipe), plan_arrays(corpus), settings_of_plan(recipe))
        self.reader = SampleReader(corpus, tokenizer, max_positions=recipe.max_positions)

    def next_step(self) -> list[list[PlannedSample]]:
        """The rows of the next step, over all ranks.

        Raises:
            UserError: no sample of a stream can be used.
        """
        try:
            return super().next_step()
        except NothingUsable as error:
            raise unusable(error.examples, self.corpus) from None

    def shares(self) -> dict[str, Share]:
        """Shares of the seconds drawn so far, by stream, mode and language."""
        return shares_of(self.mixture.streams, self.mixture.state())
