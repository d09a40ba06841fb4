"""What `--check` says of shares by length: lengths without clips, and few clips that are drawn often."""

from collections.abc import Mapping, Sequence

from training.curriculum.mixture import Stream
from training.curriculum.recipe import Recipe

OFTEN = 4.0
"""Times the mean number of epochs, from which on clips of a length are said to be repeated often."""


def length_notes(recipe: Recipe, streams: Sequence[Stream], epochs: Mapping[str, float]) -> list[str]:
    """Lines for people; none where there is nothing to be said.

    Args:
        epochs: of each stream, by its name.
    """
    bounds = sorted(recipe.mixture.lengths)
    lower = dict(zip(bounds, [recipe.clips.min_seconds, *bounds], strict=False))
    notes = []
    for bound in bounds:
        mine = [stream for stream in streams if stream.up_to == bound]
        where = f"{lower[bound]:g} to {bound:g} s"
        if not mine:
            notes.append(f"mixture.lengths: there are no clips of {where}; the other lengths get their share")
            continue
        drawn = _mean_epochs(mine, epochs)
        usual = _mean_epochs(streams, epochs)
        if drawn >= 1 and drawn > OFTEN * usual:
            notes.append(
                f"mixture.lengths: clips of {where} are drawn {drawn:.3g} times each, all clips "
                f"{usual:.3g} times; lower mixture.lengths.{bound:g} if that is too often"
            )
    return notes


def _mean_epochs(streams: Sequence[Stream], epochs: Mapping[str, float]) -> float:
    """Passes over the streams' seconds together."""
    return sum(epochs[s.name] * s.seconds for s in streams) / sum(s.seconds for s in streams)
