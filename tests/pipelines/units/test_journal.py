"""The journal counts what was done twice and names the stage that a unit ends in."""

from pathlib import Path

from pipelines.units.journal import Journal, culprits, read_journal, repeated_calls
from voxmill.data.records import StageName


def test_calls_made_again_are_counted_once_a_repeat(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, StageName.SEGMENTATION), Journal(tmp_path, StageName.SEGMENTATION)
    first.begin("a")
    first.end("a", 3)
    second.begin("a")
    second.end("a", 3)
    second.begin("b")
    second.end("b", 2)
    assert repeated_calls(tmp_path) == (8, 3)


def test_a_stage_that_never_finished_a_unit_is_its_culprit(tmp_path: Path) -> None:
    journal = Journal(tmp_path, StageName.DECODE)
    journal.begin("a")
    journal.end("a", 0)
    Journal(tmp_path, StageName.TRANSCRIPTION).begin("a")
    assert culprits(tmp_path, "a") == [StageName.TRANSCRIPTION]
    assert culprits(tmp_path, "b") == []


def test_a_line_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, StageName.DECODE)
    journal.begin("a")
    with open(journal.path, "ab") as file:
        file.write(b"end a 7")
    record = read_journal(tmp_path)[StageName.DECODE, "a"]
    assert (record.begun, record.finished, record.all_calls) == (1, 0, 0)
    assert repeated_calls(tmp_path) == (0, 0)
