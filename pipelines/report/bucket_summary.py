"""What a bucket's tables say, in about 50 kB: sums, counts on fixed grids, examples.

The report, the card and the figures of `run.json` are made from the merged summary of all buckets alone. `merge` is
exact, associative and does not depend on the order: lengths are whole microseconds, shares whole millionths, and
examples are chosen by a total order, of which the draw of a clip (a hash of its name) is a part.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipelines.report.correct.doubtful import DoubtfulClip, chosen_doubtful
from pipelines.report.grids import Counts, Grid, merge_rows
from voxmill.data.records import KEPT_STATES, Seconds

MAX_LISTED = 10_000
"""Lost recordings that the report lists: a browser lays out some ten thousand rows before it stutters."""
REASON_EXAMPLES = 3
MAX_LICENCES = 1_000
"""Licences counted by name, the first ones of the alphabet: manifests may hold any text."""
MAX_NAMED = 20
"""Recordings that the report names for each kind of warning and each reason of lost windows."""
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
    "singing_share": Grid(0.0, 0.01, 101),
}
"""Cells of the measures: seconds, MOS, dB, 1/s, deviations, Hz, errors a word. Medians are read to half a step."""
DNSMOS_PICKS = Grid(1.0, 0.5, 8)
EXPRESSIVENESS_PICKS = Grid(-4.0, 0.5, 16)
PICKS_A_CELL = 6
NOT_MEASURED = -1
"""The cell of a pick whose value was not measured."""
CLASSIFIERS = ("age", "dialect", "emotion", "gender", "style")


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
    examples, picks: of every cell of DNSMOS and of expressiveness the first ones by draw, and the two ends. doubtful:
    clips whose texts are trusted least, kept and rejected.
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
    doubtful: tuple[DoubtfulClip, ...] = ()
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
        lost=first_lost((*a.lost, *b.lost), MAX_LISTED),
        warned=a.warned + b.warned,
        warnings=merge_rows(a.warnings, b.warnings, lambda row: row.kind, add_warnings),
        ended_windows=merge_rows(
            a.ended_windows, b.ended_windows, lambda row: (row.stage, row.reason), add_ended_windows
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
        examples=chosen_examples((*a.examples, *b.examples)),
        picks=chosen_picks((*a.picks, *b.picks)),
        doubtful=chosen_doubtful((*a.doubtful, *b.doubtful)),
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


def add_warnings(a: WarningSummary, b: WarningSummary) -> WarningSummary:
    return WarningSummary(
        kind=a.kind,
        recordings=a.recordings + b.recordings,
        kept=a.kept + b.kept,
        named=_first_named((*a.named, *b.named)),
    )


def add_ended_windows(a: EndedWindowSummary, b: EndedWindowSummary) -> EndedWindowSummary:
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


def first_lost(rows: Iterable[LostRecording], most: int) -> tuple[LostRecording, ...]:
    return tuple(sorted(rows, key=lambda row: (row.path, row.state, row.reason, row.detail))[:most])


def chosen_examples(examples: Iterable[ClipExample]) -> tuple[ClipExample, ...]:
    """The first ones of every cell of DNSMOS, the lowest and the highest; by value."""
    distinct = set(examples)
    chosen: set[ClipExample] = set()
    cells: dict[int, list[ClipExample]] = {}
    for example in distinct:
        cells.setdefault(_cell(DNSMOS_PICKS, example.dnsmos_ovr), []).append(example)
    for members in cells.values():
        chosen.update(sorted(members, key=_draw_order)[:PICKS_A_CELL])
    measured = [example for example in distinct if example.dnsmos_ovr is not None]
    if measured:
        chosen.add(min(measured, key=lambda clip: (clip.dnsmos_ovr, *_draw_order(clip))))
        chosen.add(min(measured, key=lambda clip: (-(clip.dnsmos_ovr or 0.0), *_draw_order(clip))))
    return tuple(sorted(chosen, key=lambda clip: (_value_order(clip.dnsmos_ovr), _draw_order(clip))))


def chosen_picks(picks: Iterable[ClipPick]) -> tuple[ClipPick, ...]:
    """The first ones of every cell of expressiveness, the lowest and the highest; by value."""
    distinct = set(picks)
    chosen: set[ClipPick] = set()
    cells: dict[int, list[ClipPick]] = {}
    for pick in distinct:
        cells.setdefault(_cell(EXPRESSIVENESS_PICKS, pick.value), []).append(pick)
    for members in cells.values():
        chosen.update(sorted(members, key=_pick_order)[:PICKS_A_CELL])
    measured = [pick for pick in distinct if pick.value is not None]
    if measured:
        chosen.add(min(measured, key=lambda pick: (pick.value, *_pick_order(pick))))
        chosen.add(min(measured, key=lambda pick: (-(pick.value or 0.0), *_pick_order(pick))))
    return tuple(sorted(chosen, key=lambda pick: (_value_order(pick.value), _pick_order(pick))))


def _cell(grid: Grid, value: float | None) -> int:
    return NOT_MEASURED if value is None else int(grid.cell(np.array([value]))[0])


def _value_order(value: float | None) -> float:
    return -math.inf if value is None else value
