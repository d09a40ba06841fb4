"""A finished dataset as the released fine-tuning script's JSONL: audio from the shards, labels from the index."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.corpus.finetune_jsonl import FinetuneClip, FinetuneConfig, export_finetune
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.data.dataset import Dataset, StoredClip
from voxmill.data.records import Description, Mode, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelledClip(StoredClip):
    text: str
    modes: tuple[Mode, ...]
    descriptions: tuple[Description, ...]
    references: tuple[Reference, ...]


def export(out: Path, folder: Path, config: FinetuneConfig) -> dict[str, int]:
    """Writes `folder/train.jsonl` and `folder/audio/`; returns counts of rows by mode and of what was left out.

    Raises:
        UserError: OUT is no finished dataset or its shards are damaged, or the folder holds a manifest already.
    """
    dataset = Dataset.open(out)
    return export_finetune(folder, (_clips(dataset, part) for part in dataset.parts(_LabelledClip)), config)


def _clips(dataset: Dataset, part: Sequence[_LabelledClip]) -> Iterator[FinetuneClip]:
    for clip in part:
        try:
            audio, rate = dataset.audio(clip)
        except AudioProblem as problem:
            raise UserError(
                f"{dataset.path / clip.shard}: clip {clip.clip_id}: {problem.detail}; run `voxmill annotate` again"
            ) from None
        yield FinetuneClip(clip.clip_id, audio, rate, clip.text, clip.modes, clip.descriptions, clip.references)
