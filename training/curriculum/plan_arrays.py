"""What the corpus and the recipe give to planning: columns, streams and settings, free of torch and of tables."""

from collections.abc import Mapping

from training.curriculum.corpus import Corpus
from training.curriculum.mixture import streams_of
from training.curriculum.recipe import Recipe
from training.curriculum.row_plan import PlanSettings
from training.curriculum.sample_draws import GIVE_UP_AFTER, DrawnStream
from training.curriculum.sample_plan import PlanArrays
from voxmill.core.errors import UserError


def settings_of_plan(recipe: Recipe) -> PlanSettings:
    """What the recipe says of planning."""
    return PlanSettings(
        seed=recipe.seed,
        steps=recipe.steps,
        rows=recipe.rows,
        positions=recipe.packing.positions,
        window=recipe.packing.window,
        max_positions=recipe.max_positions,
        cross_lingual=recipe.references.cross_lingual,
        shares=recipe.mixture.descriptions,
    )


def drawn_streams(corpus: Corpus, recipe: Recipe) -> list[DrawnStream]:
    """The recipe's streams as planning takes them.

    Raises:
        UserError: as `streams_of`.
    """
    return [
        DrawnStream(
            stream.name,
            stream.mode,
            stream.language,
            stream.clips,
            stream.share_of_mode,
            recipe.mixture.modes[stream.mode],
        )
        for stream in streams_of(corpus, recipe)
    ]


def unusable(examples: Mapping[str, int], corpus: Corpus) -> UserError:
    """The error of a stream of which no sample can be used. `examples`: a clip for each reason."""
    reasons = ", ".join(f"{reason} (clip {corpus.clip_id(clip)})" for reason, clip in examples.items())
    return UserError(
        f"{GIVE_UP_AFTER} samples in a row cannot be used: {reasons}; raise max_positions or change clips.*"
    )


def plan_arrays(corpus: Corpus) -> PlanArrays:
    """The corpus' columns as they are mapped."""
    return PlanArrays(
        seconds=corpus.seconds.stored,
        patches=corpus.patches.stored,
        tokens=corpus.tokens.stored,
        description_starts=corpus.description_starts.stored,
        description_axis=corpus.description_axis.stored,
        description_tokens=corpus.description_tokens.stored,
        reference_starts=corpus.reference_starts.stored,
        references=corpus.references.stored,
        language=corpus.language.stored,
        bases=corpus.base_language,
    )
