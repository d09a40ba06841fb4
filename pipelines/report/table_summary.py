"""The summary of one bucket's tables, in columns. Free of Ray."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from annotation.voice.given_labels import SONG
from pipelines.report.bucket_summary import (
    CLASSIFIERS,
    DNSMOS,
    DNSMOS_PICKS,
    EXPRESSIVENESS_PICKS,
    GRIDS,
    MAX_LICENCES,
    MAX_LISTED,
    MAX_SPEAKERS,
    NOT_MEASURED,
    PICKS_A_CELL,
    REASON_EXAMPLES,
    SNR,
    AnswerCount,
    BucketSummary,
    ClipExample,
    ClipPick,
    DroppedSummary,
    EndedWindowSummary,
    EndTally,
    LanguageSummary,
    LostRecording,
    MeasureSummary,
    NamedRecording,
    NamedTally,
    Tally,
    WarningSummary,
    add_ended_windows,
    add_warnings,
    chosen_examples,
    chosen_picks,
    first_lost,
)
from pipelines.report.correct.doubtful import find_doubtful
from pipelines.report.grids import Grid, rough_cells
from pipelines.report.table_columns import TableColumns, draw, finite_or_none, groups
from voxmill.core.hashing import short_hash
from voxmill.data.records import KEPT_STATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TEXT = 600
CLIP_COLUMNS = (
    *("clip_id", "session", "path", "start_sample", "duration", "sample_rate", "text", "language"),
    *("language_probability", "speaker", "origin"),
    *("quality", "transcript", "licence", "text_source", "given_agreement", "predicted_wer", "singing_share"),
    *("expressiveness", *CLASSIFIERS, "descriptions"),
    *("shard", "offset", "size"),
)
"""Columns of clips.parquet and rejected.parquet that `summarize` looks at, where they are there."""
ENDING_COLUMNS = ("stage", "reason", "value", "threshold")
RECORDING_COLUMNS = (
    *("path", "state", *ENDING_COLUMNS, "detail", "duration", "num_clips", "warnings", "seconds_lost", "ended_windows"),
)


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
        doubtful=find_doubtful(kept, dropped),
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
    return first_lost(listed, most)


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
            found[kind] = add_warnings(found[kind], row) if kind in found else row
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
            found[stage, reason] = add_ended_windows(found[stage, reason], row) if (stage, reason) in found else row
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
    return tuple(sorted({short_hash(name, 6) for name in names if name})[:MAX_SPEAKERS])


def _answers(kept: TableColumns) -> Iterator[AnswerCount]:
    for name in CLASSIFIERS:
        labels, reasons = kept.texts(f"{name}.label"), kept.texts(f"{name}.reason")
        if not (labels != "").any() and not (reasons != "").any():
            continue
        if name == "style":
            # A corpus has any words for others, as many as clips.
            labels = np.where((labels == "") | (labels == SONG), labels, "another style")
        answers = np.where(labels != "", labels, np.where(reasons != "", reasons, "not run"))
        for (answer,), rows in groups(answers):
            # Of most clips nothing is to be said of these.
            if answer != "not run" or name not in ("dialect", "style"):
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
    rows = _candidates(kept.floats(DNSMOS), DNSMOS_PICKS, PICKS_A_CELL, kept.draws(), ~kept.is_stored())
    return chosen_examples(_clip_examples(kept, rows))


def _picks(kept: TableColumns) -> tuple[ClipPick, ...]:
    scores = kept.floats("expressiveness")
    nowhere = np.zeros(kept.num_rows, bool)
    rows = _candidates(scores, EXPRESSIVENESS_PICKS, PICKS_A_CELL, kept.draws(), nowhere)
    return chosen_picks(_pick(kept, row) for row in rows)


def _pick(kept: TableColumns, row: int) -> ClipPick:
    some = TableColumns(kept.table.slice(row, 1))
    clip_id = str(some.texts("clip_id")[0])
    return ClipPick(
        clip_id=clip_id,
        draw=draw(clip_id),
        session=str(some.texts("session")[0]),
        value=finite_or_none(some.floats("expressiveness")[0]),
    )
