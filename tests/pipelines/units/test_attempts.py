"""Attempts at a unit: the calls that were made twice, the stage that it ends in, whose fault a death was."""

from pathlib import Path

from pipelines.units.attempts import AttemptLog, attempts_path, deaths, open_attempts, read_attempts, with_lost_calls
from voxmill.data.records import Cost, StageName, WorkUnit

SEGMENTATION, TRANSCRIPTION, SPEAKERS = StageName.SEGMENTATION, StageName.TRANSCRIPTION, StageName.VOICE_ATTRIBUTES


def try_unit(path: Path, calls: dict[StageName, int], stops_in: StageName | None = None, node: str = "n") -> AttemptLog:
    log = AttemptLog(path, "run", node)
    for stage, number in calls.items():
        log.begin(stage)
        log.count(number)
    if stops_in is not None:
        log.begin(stops_in)
    else:
        log.end()
    return log


def test_calls_made_again_are_counted_once_a_repeat(tmp_path: Path) -> None:
    path = attempts_path(tmp_path, "0000", "u")
    try_unit(path, {SEGMENTATION: 3, SPEAKERS: 4}, stops_in=TRANSCRIPTION)
    try_unit(path, {SEGMENTATION: 3, TRANSCRIPTION: 5, SPEAKERS: 4})
    costs = {SEGMENTATION: Cost(calls=3), TRANSCRIPTION: Cost(calls=5)}
    unit = with_lost_calls(WorkUnit(unit_id="u", results=(), costs=costs), read_attempts(path))
    assert {stage: cost.lost_calls for stage, cost in unit.costs.items()} == {
        SEGMENTATION: 3,
        TRANSCRIPTION: 0,
        SPEAKERS: 4,
    }


def test_a_death_counts_where_its_node_is_still_there_and_in_its_own_run(tmp_path: Path) -> None:
    path = attempts_path(tmp_path, "0000", "u")
    for node in ("gone", "n", "n"):
        try_unit(path, {SEGMENTATION: 1}, stops_in=TRANSCRIPTION, node=node)
    try_unit(path, {SEGMENTATION: 1})
    attempts = read_attempts(path)
    assert deaths(attempts, "run", {"n", "m"}) == 2 and deaths(attempts, "another", {"n"}) == 0
    assert [one.stage for one in attempts if not one.ended] == [TRANSCRIPTION] * 3


def test_what_a_crash_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    path = attempts_path(tmp_path, "0000", "u")
    log = try_unit(path, {SEGMENTATION: 3})
    path.write_bytes(path.read_bytes()[:-9])
    assert read_attempts(path) == () and list(open_attempts(tmp_path)) == [("u", ())]
    log.remove()
    assert list(open_attempts(tmp_path)) == []
