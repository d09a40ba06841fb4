"""From recordings in to clips kept: what is left after each step, and the compute that led there."""

from dataclasses import dataclass
from typing import Literal

from pipelines.report.bucket_summary import BucketSummary, Tally
from pipelines.report.formatting import percent
from pipelines.report.run_record import StageCost
from pipelines.report.tables import Outcome
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
    summary, dropped = outcome.summary, dict[str, Tally]()
    for row in summary.dropped:
        dropped[row.stage] = dropped.get(row.stage, Tally()) + row.clips
    readable, distinct = _ended(summary, {"unreadable"}), _ended(summary, {"unreadable", "duplicate"})
    left, seconds_left = summary.kept.count + summary.rejected.count, summary.kept.seconds + summary.rejected.seconds
    lengths = summary.recordings.seconds

    steps: list[tuple[str, str, int, Literal["recordings", "clips"], float]] = [
        ("in", "Recordings in", summary.recordings.count, "recordings", lengths),
        ("readable", "Readable", readable.count, "recordings", readable.seconds),
        ("distinct", "Not a duplicate", distinct.count, "recordings", distinct.seconds),
        ("speech", "With speech", summary.with_speech.count, "recordings", summary.with_speech.seconds),
        ("clips", "Clips found", left, "clips", seconds_left),
    ]
    order = list(StageName)
    # What the last of these drops leaves what was kept.
    for name in sorted(dropped, key=lambda name: order.index(StageName(name)))[:-1]:
        left, seconds_left = left - dropped[name].count, seconds_left - dropped[name].seconds
        steps.append((f"stage:{name}", f"After {name}", left, "clips", max(0.0, seconds_left)))
    steps.append(("kept", "Clips kept", summary.kept.count, "clips", summary.kept.seconds))

    costs = _costs_by_step(outcome.run.get("stages") or [], {key for key, *_ in steps})
    return [
        FunnelRow(
            key=key,
            label=label,
            count=count,
            unit=unit,
            seconds=seconds,
            share=percent(seconds, lengths),
            compute=sum(float(cost["seconds"]) for cost in costs[key]) if costs[key] else None,
            stages=", ".join(cost["name"] for cost in costs[key]),
        )
        for key, label, count, unit, seconds in steps
    ]


def _ended(summary: BucketSummary, without: set[str]) -> Tally:
    """Recordings, but for those that ended in a state of `without`."""
    return sum((row.recordings for row in summary.ends if row.state not in without), start=Tally())


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
