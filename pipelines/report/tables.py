"""What a run left in its output folder: its summary, run.json, the rows of a few clips, and shared figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from annotation.voice.given_labels import SONG
from pipelines.report.bucket_summary import DNSMOS, GRIDS, SNR, BucketSummary, ClipPick, merge
from pipelines.report.formatting import number, percent, visible
from pipelines.report.run_record import Run, read_run
from pipelines.report.table_summary import CLIP_COLUMNS, ENDING_COLUMNS, RECORDING_COLUMNS, summarize
from voxmill.core.errors import UserError
from voxmill.core.storage import raise_unavailable
from voxmill.data.languages import DIALECTS
from voxmill.data.layout import bucket_of, index_parts, part_path, stream_index, stream_part
from voxmill.data.schemas import CLIPS, columns_of, from_table
from voxmill.data.snapshot import read_snapshot

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")

_ROWS_AT_A_TIME = 512
"""Of clips with all that a card shows, some 8 kB each."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in its output folder."""

    out: Path
    run: Run
    summary: BucketSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageRow:
    """Kept clips of one language. `survived`: percent of its candidates; `share`: percent of the largest language."""

    language: str
    clips: int
    seconds: float
    ovr: str
    snr: str
    probability: str
    survived: float
    share: float


def load_outcome(out: Path, summary: BucketSummary | None = None) -> Outcome:
    """The run's record with the summary of the whole dataset, read from the indexes where it is not given.

    Raises:
        UserError: an index is not there or cannot be read, or the record is of an older voxmill.
    """
    return Outcome(out, read_run(out), summarize_dataset(out) if summary is None else summary)


def summarize_dataset(out: Path) -> BucketSummary:
    """The summary of all buckets, from their indexes; holds some thousand rows at a time.

    Raises:
        UserError: an index is not there or cannot be read.
    """
    clips, rejected, recordings = CLIP_COLUMNS, (*CLIP_COLUMNS, *ENDING_COLUMNS), RECORDING_COLUMNS
    nothing, summary = pa.table({}), BucketSummary()
    for piece in _pieces(out, "clips.parquet", clips):
        summary = merge(summary, summarize(piece, nothing, nothing))
    for piece in _pieces(out, "rejected.parquet", rejected):
        summary = merge(summary, summarize(nothing, piece, nothing))
    for piece in _pieces(out, "recordings.parquet", recordings):
        summary = merge(summary, summarize(nothing, nothing, piece))
    return summary


def _pieces(out: Path, index: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    try:
        yield from stream_index(out / index, columns)
    except FileNotFoundError:
        raise UserError(f"{out / index}: not there; run `voxmill annotate` first") from None
    except (pa.ArrowException, OSError) as error:
        raise_unavailable(error)
        reason = str(error).splitlines()[0]
        raise UserError(f"{out / index}: cannot be read ({reason}); run `voxmill annotate` again") from None


def rows_of_clips(out: Path, picks: Sequence[ClipPick], kind: type[R]) -> dict[str, R]:
    """Rows of clips.parquet by clip, as records of `kind`; only the parts of the picks' sessions are read."""
    columns = columns_of(kind)
    missing = {pick.clip_id for pick in picks}
    found: dict[str, R] = {}
    for part in _parts_of(out, picks):
        for piece in stream_part(part, columns, _ROWS_AT_A_TIME):
            if not missing:
                return found
            rows = piece.filter(pc.is_in(piece["clip_id"], value_set=pa.array(sorted(missing), pa.string())))
            for name in columns:
                if name not in rows.column_names:
                    rows = rows.append_column(name, pa.nulls(rows.num_rows, CLIPS.field(name).type))
            for clip_id, row in zip(rows["clip_id"].to_pylist(), from_table(kind, rows), strict=True):
                found[clip_id] = row
            missing -= found.keys()
    return found


def _parts_of(out: Path, picks: Sequence[ClipPick]) -> list[Path]:
    parts, snapshot = index_parts(out / "clips.parquet"), read_snapshot(out)
    if snapshot is None:
        return parts
    buckets = sorted({bucket_of(pick.session, snapshot.buckets) for pick in picks})
    wanted = {part_path(out, "clips.parquet", bucket, snapshot.buckets) for bucket in buckets}
    return [part for part in parts if part in wanted]


def languages(outcome: Outcome) -> list[LanguageRow]:
    """Kept clips by language, most audio first; also what share of that language's clips survived."""
    some = [row for row in outcome.summary.languages if row.kept.count]
    most = max((row.kept.seconds for row in some), default=0.0)
    rows = [
        LanguageRow(
            language=visible(row.language or "unknown"),
            clips=row.kept.count,
            seconds=row.kept.seconds,
            ovr=number(GRIDS[DNSMOS].quantile(row.dnsmos, 0.5)),
            snr=number(GRIDS[SNR].quantile(row.snr, 0.5)),
            probability=number(row.certainty / row.certain / 1e6 if row.certain else None),
            survived=percent(row.kept.count, row.kept.count + row.rejected),
            share=percent(row.kept.seconds, most),
        )
        for row in some
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def spoken_kinds(outcome: Outcome) -> list[tuple[str, list[tuple[str, int]]]]:
    """What there is to say of dialects and of singing: a title, and kept clips by what they are; [] for nothing."""
    answers = outcome.summary.answers
    rows: list[tuple[str, list[tuple[str, int]]]] = []
    dialects = [(row.answer, row.clips) for row in answers if row.classifier == "dialect"]
    if dialects:
        rows.append(("Dialects of Chinese", [(visible(_dialect(answer)), clips) for answer, clips in dialects]))
    shares = outcome.summary.measure("singing_share").kept
    sung = shares.total - (shares.counts[0] if shares.counts and shares.first == 0 else 0)
    if sung:
        songs = sum(row.clips for row in answers if (row.classifier, row.answer) == ("style", SONG))
        rows.append(("Singing", [("clips with some", sung), ("songs", songs)]))
    return rows


def _dialect(answer: str) -> str:
    if answer == "zh":
        return "Chinese without a tag"
    return f"{DIALECTS[answer]} ({answer})" if answer in DIALECTS else f"unknown ({answer})"


def leaves(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every single setting of a nested config with its dotted name."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
