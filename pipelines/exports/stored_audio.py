"""The audio of a clip as its shard has it."""

from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.data.dataset import Dataset
from voxmill.data.records import ClipId, ShardPlace


def damaged(dataset: Dataset, shard: str, clip_id: ClipId, problem: AudioProblem) -> UserError:
    """What to say of a clip whose bytes are not there or not its own."""
    return UserError(f"{dataset.path / shard}: clip {clip_id}: {problem.detail}; run `voxmill annotate` again")


def stored_flac(dataset: Dataset, place: ShardPlace, clip_id: ClipId) -> bytes:
    """The bytes of a clip's FLAC.

    Raises:
        UserError: they are not there, or not those that the index names.
    """
    try:
        return dataset.flac(place)
    except AudioProblem as problem:
        raise damaged(dataset, place.shard, clip_id, problem) from None
