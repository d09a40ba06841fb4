"""A corpus is planned the same in the driver and by tasks; what changes touches what it concerns."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.config import AnnotateConfig
from pipelines.inputs import planning
from pipelines.inputs.entries import Entry
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.media import ReadChannel
from pipelines.inputs.planning import plan_corpus
from pipelines.inputs.scan import BLOCK_ROWS, Scan, ScanOptions, ScanStore, block_name, blocks, stamped
from pipelines.units.plan_files import planned_buckets, read_recordings, read_units
from voxmill.core.config import load_config
from voxmill.core.errors import UserError
from voxmill.core.progress import Progress
from voxmill.data.records import Recording, WorkUnit
from voxmill.data.schemas import to_table

QUIET = Progress(enabled=False)


pytestmark = pytest.mark.usefixtures("ray_here")


def config(*overrides: str) -> AnnotateConfig:
    return load_config(AnnotateConfig, None, list(overrides))


def plans(out: Path) -> dict[int, tuple[list[Recording], list[WorkUnit]]]:
    label = AnnotateConfig().label
    return {bucket: (read_recordings(out, bucket), read_units(out, bucket, label)) for bucket in planned_buckets(out)}


def write_manifest(path: Path, names: list[str]) -> None:
    path.write_text("".join(f'{{"path": "{name}"}}\n' for name in names))


def fabricate(manifest: Path, out: Path) -> None:
    """Scans of paths of which the last three digits say what is in them, so that some repeat."""
    scans = ScanStore(out, ScanOptions())
    for block in blocks(read_inputs(str(manifest))):
        entries = stamped(block)
        scans.write(block_name(entries, scans.options), to_table([_scan(entry) for entry in entries], Scan))


def _scan(entry: Entry) -> Scan:
    number = int(entry.path[-7:-4])
    if number % 50 == 0:
        return Scan(location=entry.path, problem="not_audio")
    return Scan(
        location=entry.path,
        recording_id=f"{number * 2654435761 % 2**32:08x}{int(entry.path[-12:-7]) // 2:024x}",
        sample_rate=16000,
        channels=1,
        codec="flac",
        num_samples=16000 * number,
        read=(ReadChannel(channel=None, ends=(16000 * number,)),),
    )


def test_tasks_plan_what_the_driver_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"s3://bucket/{number // 1000:05d}{number % 1000:03d}.wav" for number in range(6000)]
    names += [names[17], names[4000]]
    write_manifest(tmp_path / "list.jsonl", names)
    made = {}
    for where, small in (("driver", 10**6), ("tasks", 4)):
        monkeypatch.setattr(planning, "SMALL_BLOCKS", small)
        monkeypatch.setattr(planning, "ROWS_A_PARTITION", 2000)
        monkeypatch.setattr(planning, "BLOCKS_A_TASK", 3)
        fabricate(tmp_path / "list.jsonl", tmp_path / where)
        plan_corpus(read_inputs(str(tmp_path / "list.jsonl")), tmp_path / where, config("write.buckets=8"), QUIET)
        made[where] = plans(tmp_path / where)
    assert made["tasks"] == made["driver"] and len(made["tasks"]) == 8
    rows = [row for recordings, _ in made["tasks"].values() for row in recordings]
    assert sorted(row.path for row in rows) == sorted(
        [*names[:6000], f"{names[17]} (line 6001)", names[4000] + " (line 6002)"]
    )
    states = [row.state for row in rows]
    assert states.count("duplicate") == 3 * 980 and states.count("unreadable") == 120 + 2
    assert [row.reason for row in rows if row.path.endswith(")")] == ["duplicate_row"] * 2
    assert not (tmp_path / "tasks" / "work" / "shuffle").exists()


def test_an_inserted_row_changes_one_or_two_blocks() -> None:
    entries = [Entry(path=f"s3://b/{number}.wav", name=str(number)) for number in range(20_000)]
    before = {block_name(block, ScanOptions()) for block in blocks(entries)}
    more = [*entries[:9000], Entry(path="s3://b/new.wav", name="new"), *entries[9000:]]
    cut = list(blocks(more))
    assert max(map(len, cut)) <= BLOCK_ROWS and [entry for block in cut for entry in block] == more
    assert 1 <= len({block_name(block, ScanOptions()) for block in cut} - before) <= 2


def test_what_was_scanned_is_not_read_again(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", np.ones(16000) * (0.1 if name == "a" else 0.2), 16000)
    plan_corpus(read_inputs(str(folder)), out, config(), QUIET)
    (before,) = plans(out).values()
    assert [row.state for row in before[0]] == ["planned", "planned"] and before[1][0].seconds == 2
    stamps = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    plan_corpus(read_inputs(str(folder)), out, config(), QUIET)
    assert stamps == {path.name: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    soundfile.write(folder / "b.wav", np.ones(32000) * 0.3, 16000)
    (folder / "c.wav").write_text("no audio")
    plan_corpus(read_inputs(str(folder)), out, config(), QUIET)
    (after,) = plans(out).values()
    assert [(row.path, row.state, row.duration) for row in after[0]] == [
        ("a.wav", "planned", 1.0),
        ("b.wav", "planned", 2.0),
        ("c.wav", "unreadable", None),
    ]


def test_a_corpus_without_a_recording_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("notes.txt", "page.html"):
        (tmp_path / "in" / name).write_text("no sound")
    with pytest.raises(UserError, match="IN holds no recording: of 2 files, none opens as audio"):
        plan_corpus(read_inputs(str(tmp_path / "in")), tmp_path / "out", config(), QUIET)


def test_a_refused_row_is_printed_at_once(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(16000) * 0.1, 16000)
    rows = ['{"path": "a.wav", "language": "Elvish"}', '{"path": "a.wav", "language": "EN"}']
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    screen = io.StringIO()
    plan_corpus(read_inputs(str(tmp_path / "list.jsonl")), tmp_path / "out", config(), Progress(file=screen))
    assert screen.getvalue().splitlines()[0].startswith("a.wav (line 1): line 1: language 'Elvish' is no language")
    ((recordings, units),) = plans(tmp_path / "out").values()
    assert [row.state for row in recordings] == ["planned", "unreadable"] and len(units) == 1
