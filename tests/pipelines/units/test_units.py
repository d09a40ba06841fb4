"""Work units are named by what is in them and change only near what changes."""

import dataclasses
import hashlib

from pipelines.units.unit import group, split
from voxmill.data.records import SourceInfo, Window, WorkUnit


def window(number: int, seconds: float = 10.0, path: str = "/in") -> Window:
    name = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return Window(
        recording_id=name,
        name=name,
        path=f"{path}/{name}",
        start_sample=0,
        end_sample=round(seconds * 16000),
        sample_rate=16000,
        source=SourceInfo(session=name),
    )


def windows(count: int) -> list[Window]:
    return [window(number) for number in range(count)]


def windows_of(unit: WorkUnit) -> list[Window]:
    return [result.window for result in unit.results]


def test_every_window_is_in_one_unit_and_none_is_too_long() -> None:
    units = group(windows(200), 60, "x")
    assert [w for unit in units for w in windows_of(unit)] == windows(200)
    assert all(unit.seconds <= 60 for unit in units)
    assert len({unit.unit_id for unit in units}) == len(units)


def test_windows_of_many_recordings_fill_a_unit() -> None:
    parts = [
        dataclasses.replace(window(number), start_sample=part * 300 * 16000, end_sample=(part + 1) * 300 * 16000)
        for number in range(200)
        for part in range(3)
    ]
    units = group(parts, 1800, "x")
    assert [w for unit in units for w in windows_of(unit)] == parts
    assert all(unit.seconds <= 1800 for unit in units)
    assert sum(unit.seconds for unit in units) / len(units) > 0.75 * 1800


def test_a_window_longer_than_a_unit_stands_alone() -> None:
    units = group([window(1), window(2, 600), window(3)], 60, "x")
    assert windows_of(next(unit for unit in units if unit.seconds >= 600)) == [window(2, 600)]


def test_one_more_recording_changes_few_units() -> None:
    many = windows(400)
    before = {unit.unit_id for unit in group(many, 60, "x")}
    after = {unit.unit_id for unit in group([*many[:200], window(1000), *many[200:]], 60, "x")}
    assert 0 < len(after - before) < 12


def test_names_depend_on_labels_and_content_not_on_place() -> None:
    one = group([window(1)], 60, "x")[0].unit_id
    assert one != group([window(1)], 60, "y")[0].unit_id
    assert one == group([window(1, path="/moved")], 60, "x")[0].unit_id


def test_a_split_unit_has_the_names_of_its_windows_alone() -> None:
    unit = group(windows(3), 600, "x")[0]
    assert [u.unit_id for u in split(unit, "x")] == [group([w], 600, "x")[0].unit_id for w in windows_of(unit)]
