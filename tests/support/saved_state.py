"""The state of an engine, as the only rank saves it."""

from pathlib import Path

from training.run.checkpoint_files import Part
from training.run.zero_state import ZeroState
from voxmill.core.sharded_tensors import INDEX, ShardedTensors, index_text, rank_file


def saved_to(folder: Path, state: ZeroState) -> ShardedTensors:
    part = Part(folder, 0)
    part.add_tensors(state.copied())
    (folder / INDEX).write_text(index_text(part.kinds[""], {rank_file(0): part.extents[""]}))
    return ShardedTensors(folder)
