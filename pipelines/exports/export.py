"""`voxmill export`: a finished dataset in one of the formats of others, bucket by bucket."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from pipelines.exports import folder as export_folder
from pipelines.exports.cues import SubtitleConfig
from pipelines.exports.finetune_jsonl import FinetuneClip, FinetuneConfig, export_finetune
from pipelines.exports.hugging_face import export_hugging_face
from pipelines.exports.lhotse_manifests import export_lhotse
from pipelines.exports.stored_audio import damaged
from pipelines.exports.track_texts import rttm, srt, textgrid, vtt
from pipelines.exports.tracks import tracks
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.data.dataset import Dataset, StoredClip
from voxmill.data.records import Description, Mode, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelledClip(StoredClip):
    text: str
    modes: tuple[Mode, ...]
    descriptions: tuple[Description, ...]
    references: tuple[Reference, ...]


class ExportFormat(StrEnum):
    """What `voxmill export --as` names."""

    JSONL = "jsonl"
    SRT = "srt"
    VTT = "vtt"
    TEXTGRID = "textgrid"
    RTTM = "rttm"
    LHOTSE = "lhotse"
    HF = "hf"


SUBTITLES = (ExportFormat.SRT, ExportFormat.VTT)
TrackWriter = Callable[..., str]
_TRACK_TEXTS: dict[ExportFormat, tuple[str, TrackWriter]] = {
    ExportFormat.SRT: (".srt", srt),
    ExportFormat.VTT: (".vtt", vtt),
    ExportFormat.TEXTGRID: (".TextGrid", textgrid),
    ExportFormat.RTTM: (".rttm", rttm),
}


def export_as(
    out: Path, folder: Path, exported_as: ExportFormat, subtitles: SubtitleConfig | None = None
) -> dict[str, int]:
    """Writes a dataset in one of the formats but JSONL; returns counts of what was written and what was left out.

    What was ended goes on where it was, what is done is not written again.

    Args:
        subtitles: of SRT and WebVTT.

    Raises:
        UserError: OUT is no finished dataset, is damaged or has no clip, or the folder holds anything else.
    """
    dataset = Dataset.open(out)
    if not any(table.num_rows for table in dataset.tables(("clip_id",))):
        raise UserError(f"{out}: has no clip to export; see its report.html for why none was kept")
    subtitles = subtitles or SubtitleConfig()
    record = export_folder.begin(folder, dataset, exported_as, subtitles)
    if record.counts is not None:
        return record.counts
    counts: Counter[str] = Counter()
    if exported_as is ExportFormat.LHOTSE:
        export_lhotse(dataset, folder, counts)
    elif exported_as is ExportFormat.HF:
        export_hugging_face(dataset, folder, counts)
    else:
        suffix, write = _TRACK_TEXTS[exported_as]
        if exported_as in SUBTITLES:
            write = partial(write, cue_seconds=subtitles.cue_seconds)
        for track in tracks(dataset, suffix):
            write_atomically(folder / track.name, write(track, counts))
            counts["files"] += 1
    found = {name: count for name, count in sorted(counts.items()) if count}
    export_folder.end(folder, record, found)
    return found


def export_jsonl(out: Path, folder: Path, config: FinetuneConfig) -> dict[str, int]:
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
            raise damaged(dataset, clip.shard, clip.clip_id, problem) from None
        yield FinetuneClip(clip.clip_id, audio, rate, clip.text, clip.modes, clip.descriptions, clip.references)
