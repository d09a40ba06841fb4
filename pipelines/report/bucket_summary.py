"""What a bucket's tables say, in about 50 kB: sums, counts on fixed grids, examples. Free of Ray.

The report, the card and the figures of `run.json` are made from the merged summary of all buckets alone. `merge` is
exact, associative and does not depend on the order: lengths are whole microseconds, shares whole millionths, and
examples are chosen by a total order, of which the draw of a clip (a hash of its name) is a part.
"""

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.report.grids import Counts, Grid, merge_rows, rough_cells
from pipelines.report.table_columns import TableColumns, draw, finite_or_none, groups
from voxmill.data.records import KEPT_STATES, Seconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_LISTED = 10_000
"""Lost recordings that the report lists: a browser lays out some ten thousand rows before it stutters."""
MAX_TEXT = 600
REASON_EXAMPLES = 3
MAX_LICENCES = 1_000
"""Licences counted by name, the first ones of the alphabet: manifests may hold any text."""
MAX_SPEAKERS = 512
"""Up to so many names of speakers are counted; of more the number is estimated, to 5 %."""

DNSMOS, SNR = "quality.dnsmos_ovr", "quality.snr_db"
GRIDS: dict[str, Grid] = {
    "duration": Grid(0.0, 0.1, 3_600),
    DNSMOS: Grid(1.0, 0.01, 400),
    SNR: Grid(-40.0, 0.25, 640),
    "transcript.characters_per_second": Grid(0.0, 0.1, 1_000),
    "expressiveness": Grid(-8.0, 0.02, 800),
    "quality.bandwidth_hz": Grid(-12.5, 25.0, 961),
    "predicted_wer": Grid(0.0, 0.01, 200),
}
"""Cells of the measures: seconds, MOS, dB, 1/s, deviations, Hz, errors a word. Medians are read to half a step."""
_DNSMOS_PICKS = Grid(1.0, 0.5, 8)
_EXPRESSIVENESS_PICKS = Grid(-4.0, 0.5, 16)
_PICKS_A_CELL = 6
NOT_MEASURED = -1
"""The cell of a pick whose value was not measured."""
CLASSIFIERS = ("age", "emotion", "gender")

CLIP_COLUMNS = (
    *("clip_id", "session", "path", "start_sample", "duration", "sample_rate", "text", "language"),
    *("language_probability", "speaker", "origin"),
    *("quality", "transcript", "licence", "predicted_wer", "expressiveness", *CLASSIFIERS, "descriptions"),
    *("shard", "offset", "size"),
)
"""Columns of clips.parquet and rejected.parquet that `summarize` looks at, where they are there."""
ENDING_COLUMNS = ("stage", "reason", "value", "threshold")
RECORDING_COLUMNS = (
    *("path", "state", *ENDING_COLUMNS, "detail", "duration", "num_clips", "warnings", "seconds_lost", "ended_windows"),
)
MAX_NAMED = 20
"""Recordings that the report names for each kind of warning and each reason of lost windows."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many, and how long together in whole microseconds, which add up exactly."""

    count: int = 0
    microseconds: int = 0

    @property
    def seconds(self) -> Seconds:
        return self.microseconds / 1e6

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.count + other.count, self.microseconds + other.microseconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTally:
    """Kept clips of one origin or licence; "" where there is none."""

    name: str
    clips: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipExample:
    """A clip to listen to. `draw`: a hash of its name, 0..2^32 - 1; `shard` "" where no audio of it is stored."""

    clip_id: str
    draw: int
    path: str = ""
    start: Seconds | None = None
    text: str
    language: str
    origin: str
    duration: Seconds | None
    dnsmos_ovr: float | None
    snr_db: float | None
    characters_per_second: float | None
    predicted_wer: float | None = None
    value: float | None
    threshold: float | None
    shard: str
    offset: int
    size: int

    @property
    def distance(self) -> float:
        """How far the value lies from its threshold; NaN without one."""
        return math.nan if self.value is None or self.threshold is None else abs(self.value - self.threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedSummary:
    """Rejected clips of one stage and reason.

    values: (cell of `rough_cells`, clips). nearest, farthest: of those whose value and threshold are finite. drawn: the
    `REASON_EXAMPLES` first ones by draw. Clips whose audio is stored come before others.
    """

    stage: str
    reason: str
    clips: Tally
    values: tuple[tuple[int, int], ...]
    min_value: float | None
    max_value: float | None
    min_threshold: float | None
    max_threshold: float | None
    nearest: ClipExample | None
    farthest: ClipExample | None
    drawn: tuple[ClipExample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPick:
    """A kept clip of one cell of expressiveness: where its row is found, by its session's bucket."""

    clip_id: str
    draw: int
    session: str
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageSummary:
    """Clips of one language; `certainty`: of `certain` clips together, in whole millionths; `drawn`: a kept one."""

    language: str
    kept: Tally
    rejected: int
    dnsmos: Counts
    snr: Counts
    certain: int
    certainty: int
    drawn: ClipPick | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSummary:
    """Kept and rejected clips over the cells of a column of `GRIDS`."""

    column: str
    kept: Counts
    rejected: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTally:
    """Recordings that ended alike."""

    state: str
    stage: str
    reason: str
    recordings: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRecording:
    """A recording of which no clip was kept."""

    path: str
    state: str
    stage: str
    reason: str
    detail: str
    value: float | None
    threshold: float | None
    duration: Seconds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRecording:
    """A recording of the report's lists, and what is said of it there."""

    path: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningSummary:
    """Recordings with a kind of warning: how many, of them those of which clips were kept, the first ones by path."""

    kind: str
    recordings: int
    kept: int
    named: tuple[NamedRecording, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedWindowSummary:
    """Windows that ended alike in recordings of which clips were kept, and the first ones by path."""

    stage: str
    reason: str
    windows: Tally
    named: tuple[NamedRecording, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCount:
    """Kept clips to which a classifier gave one answer, or none for one reason."""

    classifier: str
    answer: str
    clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSummary:
    """Of one bucket, or of many that were merged.

    with_speech: distinct recordings of which clips were found. lost: by path, the first ones. warned: recordings with
    clips kept and a warning. shard: the first one's name. speakers: the `MAX_SPEAKERS` least hashes of speakers' names.
    examples, picks: of every cell of DNSMOS and of expressiveness the first ones by draw, and the two ends.
    """

    kept: Tally = Tally()
    rejected: Tally = Tally()
    recordings: Tally = Tally()
    with_speech: Tally = Tally()
    ends: tuple[EndTally, ...] = ()
    lost: tuple[LostRecording, ...] = ()
    warned: int = 0
    warnings: tuple[WarningSummary, ...] = ()
    ended_windows: tuple[EndedWindowSummary, ...] = ()
    languages: tuple[LanguageSummary, ...] = ()
    origins: tuple[NamedTally, ...] = ()
    licences: tuple[NamedTally, ...] = ()
    sample_rates: tuple[int, ...] = ()
    dropped: tuple[DroppedSummary, ...] = ()
    measures: tuple[MeasureSummary, ...] = ()
    speakers: tuple[int, ...] = ()
    answers: tuple[AnswerCount, ...] = ()
    described: int = 0
    descriptions: int = 0
    examples: tuple[ClipExample, ...] = ()
    picks: tuple[ClipPick, ...] = ()
    shard: str = ""

    @property
    def num_speakers(self) -> int:
        """Speakers of kept clips: exact below `MAX_SPEAKERS`, estimated to 5 % from there on."""
        if len(self.speakers) < MAX_SPEAKERS:
            return len(self.speakers)
        return round((MAX_SPEAKERS - 1) / (self.speakers[-1] / 2**48))

    @property
    def num_lost(self) -> int:
        """Recordings of which no clip was kept."""
        return sum(row.recordings.count for row in self.ends if row.state not in KEPT_STATES)

    def num_in_state(self, *states: str) -> int:
        """Recordings that ended in one of these states."""
        return sum(row.recordings.count for row in self.ends if row.state in states)

    def measure(self, column: str) -> MeasureSummary:
        """Of a column of `GRIDS`; empty where nothing was measured."""
        empty = MeasureSummary(column=column, kept=Counts(), rejected=Counts())
        return next((row for row in self.measures if row.column == column), empty)


# ---- merging


def merge(a: BucketSummary, b: BucketSummary) -> BucketSummary:
    """Of both buckets together."""
    return BucketSummary(
        kept=a.kept + b.kept,
        rejected=a.rejected + b.rejected,
        recordings=a.recordings + b.recordings,
        with_speech=a.with_speech + b.with_speech,
        ends=merge_rows(
            a.ends,
            b.ends,
            lambda row: (row.state, row.stage, row.reason),
            lambda x, y: dataclasses.replace(x, recordings=x.recordings + y.recordings),
        ),
        lost=_first_lost((*a.lost, *b.lost), MAX_LISTED),
        warned=a.warned + b.warned,
        warnings=merge_rows(a.warnings, b.warnings, lambda row: row.kind, _add_warnings),
        ended_windows=merge_rows(
            a.ended_windows, b.ended_windows, lambda row: (row.stage, row.reason), _add_ended_windows
        ),
        languages=merge_rows(a.languages, b.languages, lambda row: row.language, _add_languages),
        origins=merge_rows(a.origins, b.origins, lambda row: row.name, _add_named),
        licences=merge_rows(a.licences, b.licences, lambda row: row.name, _add_named)[:MAX_LICENCES],
        sample_rates=tuple(sorted({*a.sample_rates, *b.sample_rates})),
        dropped=merge_rows(a.dropped, b.dropped, lambda row: (row.stage, row.reason), _add_dropped),
        measures=merge_rows(
            a.measures,
            b.measures,
            lambda row: row.column,
            lambda x, y: dataclasses.replace(x, kept=x.kept + y.kept, rejected=x.rejected + y.rejected),
        ),
        speakers=tuple(sorted({*a.speakers, *b.speakers})[:MAX_SPEAKERS]),
        answers=merge_rows(
            a.answers,
            b.answers,
            lambda row: (row.classifier, row.answer),
            lambda x, y: dataclasses.replace(x, clips=x.clips + y.clips),
        ),
        described=a.described + b.described,
        descriptions=a.descriptions + b.descriptions,
        examples=_chosen_examples((*a.examples, *b.examples)),
        picks=_chosen_picks((*a.picks, *b.picks)),
        shard=min(filter(None, (a.shard, b.shard)), default=""),
    )


def _add_named(a: NamedTally, b: NamedTally) -> NamedTally:
    return dataclasses.replace(a, clips=a.clips + b.clips)


def _add_languages(a: LanguageSummary, b: LanguageSummary) -> LanguageSummary:
    return LanguageSummary(
        language=a.language,
        kept=a.kept + b.kept,
        rejected=a.rejected + b.rejected,
        dnsmos=a.dnsmos + b.dnsmos,
        snr=a.snr + b.snr,
        certain=a.certain + b.certain,
        certainty=a.certainty + b.certainty,
        drawn=min(filter(None, (a.drawn, b.drawn)), key=_pick_order, default=None),
    )


def _add_warnings(a: WarningSummary, b: WarningSummary) -> WarningSummary:
    return WarningSummary(
        kind=a.kind,
        recordings=a.recordings + b.recordings,
        kept=a.kept + b.kept,
        named=_first_named((*a.named, *b.named)),
    )


def _add_ended_windows(a: EndedWindowSummary, b: EndedWindowSummary) -> EndedWindowSummary:
    return EndedWindowSummary(
        stage=a.stage, reason=a.reason, windows=a.windows + b.windows, named=_first_named((*a.named, *b.named))
    )


def _first_named(rows: Iterable[NamedRecording]) -> tuple[NamedRecording, ...]:
    return tuple(sorted(set(rows), key=lambda row: (row.path, row.detail))[:MAX_NAMED])


def _add_dropped(a: DroppedSummary, b: DroppedSummary) -> DroppedSummary:
    values = Counter(dict(a.values))
    values.update(dict(b.values))
    return DroppedSummary(
        stage=a.stage,
        reason=a.reason,
        clips=a.clips + b.clips,
        values=tuple(sorted(values.items())),
        min_value=_least(a.min_value, b.min_value),
        max_value=_greatest(a.max_value, b.max_value),
        min_threshold=_least(a.min_threshold, b.min_threshold),
        max_threshold=_greatest(a.max_threshold, b.max_threshold),
        nearest=min(filter(None, (a.nearest, b.nearest)), key=_nearest_order, default=None),
        farthest=min(filter(None, (a.farthest, b.farthest)), key=_farthest_order, default=None),
        drawn=tuple(sorted({*a.drawn, *b.drawn}, key=_draw_order)[:REASON_EXAMPLES]),
    )


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _greatest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


_Order = tuple[bool, float, int, str, str, int]


def _draw_order(clip: ClipExample) -> _Order:
    return not clip.shard, 0.0, clip.draw, clip.clip_id, clip.shard, clip.offset


def _nearest_order(clip: ClipExample) -> _Order:
    return not clip.shard, clip.distance, clip.draw, clip.clip_id, clip.shard, clip.offset


def _farthest_order(clip: ClipExample) -> _Order:
    return not clip.shard, -clip.distance, clip.draw, clip.clip_id, clip.shard, clip.offset


def _pick_order(pick: ClipPick) -> tuple[int, str, str]:
    return pick.draw, pick.clip_id, pick.session


def _first_lost(rows: Iterable[LostRecording], most: int) -> tuple[LostRecording, ...]:
    return tuple(sorted(rows, key=lambda row: (row.path, row.state, row.reason, row.detail))[:most])


def _chosen_examples(examples: Iterable[ClipExample]) -> tuple[ClipExample, ...]:
    """The first ones of every cell of DNSMOS, the lowest and the highest; by value."""
    distinct = set(examples)
    chosen: set[ClipExample] = set()
    cells: dict[int, list[ClipExample]] = {}
    for example in distinct:
        cells.setdefault(_cell(_DNSMOS_PICKS, example.dnsmos_ovr), []).append(example)
    for members in cells.values():
        chosen.update(sorted(members, key=_draw_order)[:_PICKS_A_CELL])
    measured = [example for example in distinct if example.dnsmos_ovr is not None]
    if measured:
        chosen.add(min(measured, key=lambda clip: (clip.dnsmos_ovr, *_draw_order(clip))))
        chosen.add(min(measured, key=lambda clip: (-(clip.dnsmos_ovr or 0.0), *_draw_order(clip))))
    return tuple(sorted(chosen, key=lambda clip: (_value_order(clip.dnsmos_ovr), _draw_order(clip))))


def _chosen_picks(picks: Iterable[ClipPick]) -> tuple[ClipPick, ...]:
    """The first ones of every cell of expressiveness, the lowest and the highest; by value."""
    distinct = set(picks)
    chosen: set[ClipPick] = set()
    cells: dict[int, list[ClipPick]] = {}
    for pick in distinct:
        cells.setdefault(_cell(_EXPRESSIVENESS_PICKS, pick.value), []).append(pick)
    for members in cells.values():
        chosen.update(sorted(members, key=_pick_order)[:_PICKS_A_CELL])
    measured = [pick for pick in distinct if pick.value is not None]
    if measured:
        chosen.add(min(measured, key=lambda pick: (pick.value, *_pick_order(pick))))
        chosen.add(min(measured, key=lambda pick: (-(pick.value or 0.0), *_pick_order(pick))))
    return tuple(sorted(chosen, key=lambda pick: (_value_order(pick.value), _pick_order(pick))))


def _cell(grid: Grid, value: float | None) -> int:
    return NOT_MEASURED if value is None else int(grid.cell(np.array([value]))[0])


def _value_order(value: float | None) -> float:
    return -math.inf if value is None else value


# ---- one bucket


def summarize(clips: pa.Table, rejected: pa.Table, recordings: pa.Table, *, buckets: int = 1) -> BucketSummary:
    """What a bucket's tables say.

    Args:
        clips, rejected, recordings: in the schemas of `voxmill.data.schemas`; a column that is not there counts as
            null. Only `CLIP_COLUMNS`, `ENDING_COLUMNS` and `RECORDING_COLUMNS` are looked at.
        buckets: of the dataset; so many share the `MAX_LISTED` places of the list of lost recordings, at least 50 each.
    """
    kept, dropped, inputs = TableColumns(clips), TableColumns(rejected), TableColumns(recordings)
    states, with_clips = inputs.texts("state"), np.nan_to_num(inputs.floats("num_clips")) > 0
    with_speech = with_clips & ~np.isin(states, ["unreadable", "duplicate"])
    lengths = inputs.microseconds()
    descriptions = kept.list_lengths("descriptions")
    return BucketSummary(
        kept=_tally(kept.microseconds()),
        rejected=_tally(dropped.microseconds()),
        recordings=_tally(lengths),
        with_speech=_tally(lengths[with_speech]),
        ends=tuple(
            EndTally(state=state, stage=stage, reason=reason, recordings=_tally(lengths[rows]))
            for (state, stage, reason), rows in groups(states, inputs.texts("stage"), inputs.texts("reason"))
        ),
        lost=_lost(inputs, states, max(MAX_LISTED // buckets, 50)),
        warned=int(np.count_nonzero(inputs.list_lengths("warnings")[np.isin(states, KEPT_STATES)])),
        warnings=_warnings(inputs, states),
        ended_windows=_ended_windows(inputs, states),
        languages=_languages(kept, dropped),
        origins=_named(kept, "origin"),
        licences=_named(kept, "licence")[:MAX_LICENCES],
        sample_rates=tuple(int(rate) for rate in np.unique(kept.floats("sample_rate")) if np.isfinite(rate)),
        dropped=_dropped(dropped),
        measures=tuple(
            MeasureSummary(column=name, kept=grid.count(kept.floats(name)), rejected=grid.count(dropped.floats(name)))
            for name, grid in sorted(GRIDS.items())
        ),
        speakers=_speakers(kept),
        answers=tuple(_answers(kept)),
        described=int(np.count_nonzero(descriptions)),
        descriptions=int(descriptions.sum()),
        examples=_examples(kept),
        picks=_picks(kept),
        shard=min(filter(None, np.unique(kept.texts("shard")).tolist()), default=""),
    )


def _clip_examples(columns: TableColumns, rows: Sequence[int]) -> list[ClipExample]:
    """The clips of these rows."""
    some = TableColumns(columns.table.take(pa.array(rows, pa.int64())))
    texts = {name: some.texts(name) for name in ("clip_id", "path", "text", "language", "origin", "shard")}
    measured = {
        "duration": "duration",
        "dnsmos_ovr": DNSMOS,
        "snr_db": SNR,
        "characters_per_second": "transcript.characters_per_second",
        "predicted_wer": "predicted_wer",
        "value": "value",
        "threshold": "threshold",
    }
    floats = {name: some.floats(column) for name, column in measured.items()}
    floats["start"] = some.floats("start_sample") / some.floats("sample_rate")
    stored, offsets, sizes = some.is_stored(), some.floats("offset"), some.floats("size")
    return [
        ClipExample(
            clip_id=texts["clip_id"][i],
            draw=draw(texts["clip_id"][i]),
            path=texts["path"][i],
            text=_cut(texts["text"][i]),
            language=texts["language"][i],
            origin=texts["origin"][i],
            **{name: finite_or_none(values[i]) for name, values in floats.items()},
            shard=texts["shard"][i] if stored[i] else "",
            offset=int(offsets[i]) if stored[i] else 0,
            size=int(np.nan_to_num(sizes[i])) if stored[i] else 0,
        )
        for i in range(len(rows))
    ]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"


def _tally(microseconds: "NDArray[np.int64]") -> Tally:
    return Tally(len(microseconds), int(microseconds.sum()))


def _named(kept: TableColumns, column: str) -> tuple[NamedTally, ...]:
    lengths = kept.microseconds()
    return tuple(NamedTally(name=name, clips=_tally(lengths[rows])) for (name,), rows in groups(kept.texts(column)))


def _lost(inputs: TableColumns, states: "NDArray[np.object_]", most: int) -> tuple[LostRecording, ...]:
    rows = np.flatnonzero(~np.isin(states, KEPT_STATES))
    paths = inputs.texts("path")
    rows = np.asarray(sorted(rows, key=lambda row: str(paths[row])), np.int64)[:most]
    some = TableColumns(inputs.table.take(pa.array(rows, pa.int64())))
    paths, lost_states, stages, reasons, details = map(some.texts, ("path", "state", "stage", "reason", "detail"))
    values, thresholds, durations = map(some.floats, ("value", "threshold", "duration"))
    listed = [
        LostRecording(
            path=str(paths[i]),
            state=str(lost_states[i]),
            stage=str(stages[i]),
            reason=str(reasons[i]),
            detail=str(details[i]),
            value=finite_or_none(values[i]),
            threshold=finite_or_none(thresholds[i]),
            duration=finite_or_none(durations[i]),
        )
        for i in range(len(rows))
    ]
    return _first_lost(listed, most)


def _warnings(inputs: TableColumns, states: "NDArray[np.object_]") -> tuple[WarningSummary, ...]:
    found: dict[str, WarningSummary] = {}
    for path, state, warnings in _listed(inputs, states, "warnings"):
        for one in warnings:
            kind = str(one["kind"])
            row = WarningSummary(
                kind=kind,
                recordings=1,
                kept=int(state in KEPT_STATES),
                named=(NamedRecording(path=path, detail=str(one["detail"])),),
            )
            found[kind] = _add_warnings(found[kind], row) if kind in found else row
    return tuple(found[kind] for kind in sorted(found))


def _ended_windows(inputs: TableColumns, states: "NDArray[np.object_]") -> tuple[EndedWindowSummary, ...]:
    found: dict[tuple[str, str], EndedWindowSummary] = {}
    for path, state, windows in _listed(inputs, states, "ended_windows"):
        for one in windows if state in KEPT_STATES else ():
            stage, reason = str(one["stage"]), str(one["reason"])
            channel = "" if one["channel"] is None else f", channel {one['channel']}"
            row = EndedWindowSummary(
                stage=stage,
                reason=reason,
                windows=Tally(1, round((one["end"] - one["start"]) * 1e6)),
                named=(NamedRecording(path=path, detail=f"{one['start']:.1f} to {one['end']:.1f} s{channel}"),),
            )
            found[stage, reason] = _add_ended_windows(found[stage, reason], row) if (stage, reason) in found else row
    return tuple(found[key] for key in sorted(found))


def _listed(
    inputs: TableColumns, states: "NDArray[np.object_]", column: str
) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(path, state, entries) of the recordings whose list of that name has any."""
    rows = np.flatnonzero(inputs.list_lengths(column))
    if not len(rows):
        return
    paths, lists = inputs.texts("path"), inputs.table[column].take(pa.array(rows)).to_pylist()
    for row, entries in zip(rows, lists, strict=True):
        yield str(paths[row]), str(states[row]), entries


def _languages(kept: TableColumns, dropped: TableColumns) -> tuple[LanguageSummary, ...]:
    lengths, ovr, snr = kept.microseconds(), kept.floats(DNSMOS), kept.floats(SNR)
    sure = kept.floats("language_probability")
    of_kept = {name: rows for (name,), rows in groups(kept.texts("language"))}
    of_dropped = {name: rows for (name,), rows in groups(dropped.texts("language"))}
    languages = []
    for name in sorted({*of_kept, *of_dropped}):
        rows = of_kept.get(name, np.empty(0, np.int64))
        known = sure[rows][np.isfinite(sure[rows])]
        languages.append(
            LanguageSummary(
                language=name,
                kept=_tally(lengths[rows]),
                rejected=len(of_dropped.get(name, ())),
                dnsmos=GRIDS[DNSMOS].count(ovr[rows]),
                snr=GRIDS[SNR].count(snr[rows]),
                certain=len(known),
                certainty=int(np.rint(known * 1e6).astype(np.int64).sum()),
                drawn=_pick(kept, int(rows[np.argmin(kept.draws()[rows])])) if len(rows) else None,
            )
        )
    return tuple(languages)


def _speakers(kept: TableColumns) -> tuple[int, ...]:
    names = np.unique(kept.texts("speaker")).tolist()
    hashes = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6) for name in names if name)
    return tuple(sorted({int.from_bytes(one.digest(), "big") for one in hashes})[:MAX_SPEAKERS])


def _answers(kept: TableColumns) -> Iterator[AnswerCount]:
    for name in CLASSIFIERS:
        labels, reasons = kept.texts(f"{name}.label"), kept.texts(f"{name}.reason")
        if not (labels != "").any() and not (reasons != "").any():
            continue
        answers = np.where(labels != "", labels, np.where(reasons != "", reasons, "not run"))
        for (answer,), rows in groups(answers):
            yield AnswerCount(classifier=name, answer=answer, clips=len(rows))


def _dropped(dropped: TableColumns) -> tuple[DroppedSummary, ...]:
    lengths, values, thresholds = dropped.microseconds(), dropped.floats("value"), dropped.floats("threshold")
    distances, unstored, draws = np.abs(values - thresholds), ~dropped.is_stored(), dropped.draws()
    rows_of = list(groups(dropped.texts("stage"), dropped.texts("reason")))
    places: list[tuple[list[int], list[int]]] = []
    for _, rows in rows_of:
        ranked = rows[np.isfinite(distances[rows])]
        ends = []
        if len(ranked):
            by_distance = np.lexsort((draws[ranked], distances[ranked], unstored[ranked]))
            by_farthest = np.lexsort((draws[ranked], -distances[ranked], unstored[ranked]))
            ends = [int(ranked[by_distance[0]]), int(ranked[by_farthest[0]])]
        drawn = rows[np.lexsort((draws[rows], unstored[rows]))[:REASON_EXAMPLES]].tolist()
        places.append((ends, drawn))
    examples = iter(_clip_examples(dropped, [row for ends, drawn in places for row in (*ends, *drawn)]))
    summaries = []
    for ((stage, reason), rows), (ends, drawn) in zip(rows_of, places, strict=True):
        nearest, farthest = (next(examples), next(examples)) if ends else (None, None)
        finite = values[rows][np.isfinite(values[rows])]
        bars = thresholds[rows][np.isfinite(thresholds[rows])]
        cells, counts = np.unique(rough_cells(finite), return_counts=True)
        summaries.append(
            DroppedSummary(
                stage=stage,
                reason=reason,
                clips=_tally(lengths[rows]),
                values=tuple(zip(cells.tolist(), counts.tolist(), strict=True)),
                min_value=float(finite.min()) if len(finite) else None,
                max_value=float(finite.max()) if len(finite) else None,
                min_threshold=float(bars.min()) if len(bars) else None,
                max_threshold=float(bars.max()) if len(bars) else None,
                nearest=nearest,
                farthest=farthest,
                drawn=tuple(next(examples) for _ in drawn),
            )
        )
    return tuple(summaries)


def _candidates(
    values: "NDArray[np.float64]", grid: Grid, a_cell: int, draws: "NDArray[np.int64]", late: "NDArray[np.bool_]"
) -> list[int]:
    """Rows of the first ones by draw of every cell, and of the two ends; rows in `late` come after others."""
    cells = np.full(len(values), NOT_MEASURED, np.int64)
    finite = np.isfinite(values)
    cells[finite] = grid.cell(values[finite])
    order = np.lexsort((draws, late, cells))
    starts = np.flatnonzero(np.diff(cells[order], prepend=-2))
    ends = [*starts, len(order)][1:]
    rows = {int(row) for start, end in zip(starts, ends, strict=True) for row in order[start:end][:a_cell]}
    ranked = np.flatnonzero(finite)
    if len(ranked):
        rows.add(int(ranked[np.lexsort((draws[ranked], late[ranked], values[ranked]))[0]]))
        rows.add(int(ranked[np.lexsort((draws[ranked], late[ranked], -values[ranked]))[0]]))
    return sorted(rows)


def _examples(kept: TableColumns) -> tuple[ClipExample, ...]:
    rows = _candidates(kept.floats(DNSMOS), _DNSMOS_PICKS, _PICKS_A_CELL, kept.draws(), ~kept.is_stored())
    return _chosen_examples(_clip_examples(kept, rows))


def _picks(kept: TableColumns) -> tuple[ClipPick, ...]:
    scores = kept.floats("expressiveness")
    nowhere = np.zeros(kept.num_rows, bool)
    rows = _candidates(scores, _EXPRESSIVENESS_PICKS, _PICKS_A_CELL, kept.draws(), nowhere)
    return _chosen_picks(_pick(kept, row) for row in rows)


def _pick(kept: TableColumns, row: int) -> ClipPick:
    some = TableColumns(kept.table.slice(row, 1))
    clip_id = str(some.texts("clip_id")[0])
    return ClipPick(
        clip_id=clip_id,
        draw=draw(clip_id),
        session=str(some.texts("session")[0]),
        value=finite_or_none(some.floats("expressiveness")[0]),
    )
