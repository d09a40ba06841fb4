"""From recordings in to clips kept: what is left after each step, and the compute that led there."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.report.formatting import percent
from pipelines.report.run_record import StageCost
from pipelines.report.tables import Outcome, floats, groups, strings, total
from voxmill.data.records import StageName


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    """What was left after one step: `seconds` of audio, `share` of it in percent, `compute` seconds by `stages`."""

    key: str
    label: str
    count: int
    unit: Literal["recordings", "clips"]
    seconds: float
    share: float
    compute: float | None
    stages: str


def funnel(outcome: Outcome) -> list[FunnelRow]:
    """From recordings in to clips kept; every stage's seconds appear on exactly one row, so they add up."""
    recordings, rejected = outcome.recordings, outcome.rejected
    states, lengths = np.asarray(strings(recordings, "state"), dtype=object), floats(recordings, "duration")
    readable = states != "unreadable"
    distinct = readable & (states != "duplicate")
    with_speech = distinct & (np.nan_to_num(floats(recordings, "num_clips")) > 0)
    dropped, dropped_by = floats(rejected, "duration"), groups(strings(rejected, "stage"))
    kept_seconds = total(floats(outcome.clips, "duration"))
    left, seconds_left = outcome.clips.num_rows + len(dropped), kept_seconds + total(dropped)

    steps: list[tuple[str, str, int, Literal["recordings", "clips"], float]] = [
        ("in", "Recordings in", len(states), "recordings", total(lengths)),
        ("readable", "Readable", int(readable.sum()), "recordings", total(lengths[readable])),
        ("distinct", "Not a duplicate", int(distinct.sum()), "recordings", total(lengths[distinct])),
        ("speech", "With speech", int(with_speech.sum()), "recordings", total(lengths[with_speech])),
        ("clips", "Clips found", left, "clips", seconds_left),
    ]
    order = list(StageName)
    # What the last of these drops leaves what was kept.
    for name in sorted(dropped_by, key=lambda name: order.index(StageName(name)))[:-1]:
        left, seconds_left = left - len(dropped_by[name]), seconds_left - total(dropped[dropped_by[name]])
        steps.append((f"stage:{name}", f"After {name}", left, "clips", max(0.0, seconds_left)))
    steps.append(("kept", "Clips kept", outcome.clips.num_rows, "clips", kept_seconds))

    costs = _costs_by_step(outcome.run.get("stages") or [], {key for key, *_ in steps})
    return [
        FunnelRow(
            key=key,
            label=label,
            count=count,
            unit=unit,
            seconds=seconds,
            share=percent(seconds, total(lengths)),
            compute=sum(float(cost["seconds"]) for cost in costs[key]) if costs[key] else None,
            stages=", ".join(cost["name"] for cost in costs[key]),
        )
        for key, label, count, unit, seconds in steps
    ]


def _costs_by_step(stages: list[StageCost], keys: set[str]) -> dict[str, list[StageCost]]:
    """Every stage's cost under the step that it leads to, in the stages' order."""
    costs: dict[str, list[StageCost]] = {key: [] for key in keys}
    order = list(StageName)
    # Backwards, so that a stage that drops no clip itself counts towards the next one that does.
    after = "kept"
    for cost in sorted(stages, key=lambda cost: order.index(StageName(cost["name"])), reverse=True):
        step: str = StageName(cost["name"]).funnel_step
        if step == "kept":
            after = step = f"stage:{cost['name']}" if f"stage:{cost['name']}" in keys else after
        costs[step].insert(0, cost)
    return costs
