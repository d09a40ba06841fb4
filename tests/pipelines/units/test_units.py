"""Work units are named by what is in them and change only near what changes."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from pipelines.units.unit import Part, group, read_unit, split
from voxmill.core.errors import JobError


def part(number: int, seconds: float = 10.0) -> Part:
    name = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return Part(
        name, name, f"/in/{name}", 0, 0, round(seconds * 16000), 16000, "mean", True, name, None, None, None, None
    )


def parts(count: int) -> list[Part]:
    return [part(number) for number in range(count)]


def test_every_part_is_in_one_unit_and_none_is_too_long() -> None:
    units = group(parts(200), 60, "x")
    assert [p for unit in units for p in unit.parts] == parts(200)
    assert all(unit.seconds <= 60 for unit in units)
    assert len({unit.unit_id for unit in units}) == len(units)


def test_a_part_longer_than_a_unit_stands_alone() -> None:
    units = group([part(1), part(2, 600), part(3)], 60, "x")
    assert next(unit for unit in units if unit.seconds >= 600).parts == [part(2, 600)]


def test_one_more_recording_changes_few_units() -> None:
    many = parts(400)
    before = {unit.unit_id for unit in group(many, 60, "x")}
    after = {unit.unit_id for unit in group([*many[:200], part(1000), *many[200:]], 60, "x")}
    assert 0 < len(after - before) < 12


def test_names_depend_on_labels_and_content_not_on_place() -> None:
    one = group([part(1)], 60, "x")[0].unit_id
    assert one != group([part(1)], 60, "y")[0].unit_id
    assert one != group([dataclasses.replace(part(1), text="given")], 60, "x")[0].unit_id
    assert one == group([dataclasses.replace(part(1), path="/moved/there.flac")], 60, "x")[0].unit_id


def test_a_split_unit_has_the_names_of_its_parts_alone() -> None:
    unit = group(parts(3), 600, "x")[0]
    assert [u.unit_id for u in split(unit, "x")] == [group([p], 600, "x")[0].unit_id for p in unit.parts]


def test_a_damaged_unit_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "u.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(JobError, match=r"u\.tar"):
        read_unit(tmp_path / "u.tar")
