"""The clips whose texts are trusted least, of a bucket and of all. Free of Ray."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.report.table_columns import TableColumns, draw, finite_or_none
from voxmill.data.records import Seconds, StageName

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DOUBTFUL = 20
"""Kept clips that the report offers to correct, and as many rejected ones: each is a player of about 50 kB."""
MAX_TEXT = 2_000
"""Characters; a longer text, of minutes, is shown in part and not offered to be changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtfulClip:
    """A clip with the text that it has and how doubtful that is, 0 and more: as `doubts` says.

    draw: a hash of its name. reason: why it was rejected, "" where it is kept. is_whole: whether `text` is all of it.
    shard: "" where no audio of it is stored.
    """

    clip_id: str
    draw: int
    path: str
    start: Seconds | None
    duration: Seconds | None
    text: str
    is_whole: bool
    text_source: str
    language: str
    speaker: str
    doubt: float
    reason: str = ""
    shard: str
    offset: int
    size: int


def find_doubtful(kept: TableColumns, rejected: TableColumns) -> tuple[DoubtfulClip, ...]:
    """The `MAX_DOUBTFUL` most doubtful kept clips, and as many of those that were rejected for their texts."""
    of_text = rejected.texts("stage") == StageName.TRANSCRIPTION
    everything = np.ones(kept.num_rows, bool)
    return chosen_doubtful((*_most(kept, everything), *_most(rejected, of_text)))


def chosen_doubtful(clips: Iterable[DoubtfulClip]) -> tuple[DoubtfulClip, ...]:
    """The most doubtful ones of both kinds, the most doubtful first."""
    order = sorted(set(clips), key=lambda clip: (-clip.doubt, clip.draw, clip.clip_id, clip.path, clip.offset))
    kept, rejected = ([clip for clip in order if (clip.reason != "") == is_out] for is_out in (False, True))
    some = {*kept[:MAX_DOUBTFUL], *rejected[:MAX_DOUBTFUL]}
    return tuple(clip for clip in order if clip in some)


def doubts(clips: TableColumns) -> "NDArray[np.float64]":
    """How doubtful each text is; NaN where a person has corrected it, or nothing is known.

    The predicted word error rate of a recognised text, or else 1 less the recogniser's mean probability of a token; of
    a given text the share of its characters that were not recognised; 1 where there is no text.
    """
    source = clips.texts("text_source")
    recognised = clips.floats("predicted_wer")
    by_itself = 1 - np.exp(np.minimum(clips.floats("transcript.mean_log_probability"), 0.0))
    values = np.where(np.isfinite(recognised), recognised, by_itself)
    values = np.where(source == "given", 1 - clips.floats("given_agreement"), values)
    values[np.array([not text.strip() for text in clips.texts("text")], bool)] = 1.0
    values[source == "corrected"] = np.nan
    return values


def _most(clips: TableColumns, wanted: "NDArray[np.bool_]") -> list[DoubtfulClip]:
    values = doubts(clips)
    rows = np.flatnonzero(wanted & np.isfinite(values))
    rows = rows[np.lexsort((clips.draws()[rows], -values[rows]))[:MAX_DOUBTFUL]]
    some = TableColumns(clips.table.take(pa.array(rows, pa.int64())))
    names = ("clip_id", "path", "text", "text_source", "language", "speaker", "reason", "shard")
    texts = {name: some.texts(name) for name in names}
    starts, durations = some.floats("start_sample") / some.floats("sample_rate"), some.floats("duration")
    stored, offsets, sizes = some.is_stored(), some.floats("offset"), some.floats("size")
    return [
        DoubtfulClip(
            clip_id=texts["clip_id"][i],
            draw=draw(texts["clip_id"][i]),
            path=texts["path"][i],
            start=finite_or_none(starts[i]),
            duration=finite_or_none(durations[i]),
            text=texts["text"][i][:MAX_TEXT],
            is_whole=len(texts["text"][i]) <= MAX_TEXT,
            text_source=texts["text_source"][i],
            language=texts["language"][i],
            speaker=texts["speaker"][i],
            doubt=float(values[row]),
            reason=texts["reason"][i],
            shard=texts["shard"][i] if stored[i] else "",
            offset=int(offsets[i]) if stored[i] else 0,
            size=int(np.nan_to_num(sizes[i])) if stored[i] else 0,
        )
        for i, row in enumerate(rows.tolist())
    ]
