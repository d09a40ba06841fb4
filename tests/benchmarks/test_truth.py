"""What the benchmark of true labels counts, on small made recordings; the whole of it runs in the slow test."""

import json
from pathlib import Path

import pytest
import soundfile

from benchmarks.truth_parts.cut_short import cut_short, missing_end
from benchmarks.truth_parts.languages import count_languages, make_mixed
from benchmarks.truth_parts.recordings import DatasetClip, TrueTurn, read_truth, sample_truth
from tests.benchmarks.test_runs import run
from voxmill.core.errors import UserError

ENGLISH = TrueTurn(start=0.0, end=3.0, text="The conference is now unmuted.", language="en")
SPANISH = TrueTurn(start=3.5, end=6.5, text="La conferencia está ahora bloqueada.", language="es")


def clip(start: float, end: float, text: str, language: str, reason: str = "") -> DatasetClip:
    return DatasetClip(start=start, end=end, text=text, language=language, reason=reason)


def test_a_transcript_lacks_its_end_where_nothing_stands_for_it() -> None:
    assert missing_end(ENGLISH.text, "The conference is now unm") == 4
    assert missing_end(ENGLISH.text, "The conference is now unmated!") == 0
    assert missing_end(ENGLISH.text, "") == 25
    assert missing_end("Appuyez sur dièse.", "Appuyez sur 10.") == 0
    short = clip(0.0, 3.1, "The conference is now unm", "en")
    part = clip(0.0, 1.5, "The conference", "en")
    assert cut_short([short, part, clip(0.0, 3.1, "The", "en", "low_snr_db")], [ENGLISH, SPANISH]) == [short]


def test_clips_of_another_language_and_dropped_turns_are_counted() -> None:
    right = [clip(0.0, 3.1, ENGLISH.text, "en"), clip(3.4, 6.6, SPANISH.text, "es")]
    counts = count_languages([ENGLISH, SPANISH], right)
    assert (counts.kept, counts.wrong, counts.turns, counts.dropped) == (2, 0, 2, 0)
    translated = clip(3.4, 6.6, "The conference is now locked.", "en")
    mixed = clip(0.0, 6.6, ENGLISH.text + " The conference is now locked.", "en")
    named_so = clip(3.4, 6.6, "The conference is now locked for everyone.", "es")
    for wrong in (translated, mixed, named_so):
        assert count_languages([ENGLISH, SPANISH], [wrong]).wrong == 1
    rejected = [right[0], clip(3.4, 6.6, SPANISH.text, "es", "low_language_probability")]
    counts = count_languages([ENGLISH, SPANISH], rejected)
    assert (counts.kept, counts.wrong, counts.dropped) == (1, 0, 1) and counts.share_dropped == 0.5


def test_mixed_recordings_hold_the_sentences_that_their_truth_names(tmp_path: Path) -> None:
    truth = make_mixed(tmp_path, recordings=2, seconds=20.0)
    assert read_truth(tmp_path / "truth.jsonl", tmp_path) == truth
    assert make_mixed(tmp_path / "again", recordings=2, seconds=20.0) == truth
    for path, turns in truth.items():
        assert len({turn.language for turn in turns}) >= 2 and turns[-1].end <= soundfile.info(tmp_path / path).duration
        assert all(a.end < b.start for a, b in zip(turns, turns[1:], strict=False))


def test_the_truth_of_a_folder_of_ones_own_may_name_whole_recordings(tmp_path: Path) -> None:
    make_mixed(tmp_path, recordings=1, seconds=5.0)
    (name,) = (path.name for path in tmp_path.glob("*.flac"))
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"path": name, "language": "zh-yue", "text": "a b"}) + "\n")
    ((turn,),) = read_truth(file, tmp_path).values()
    assert (turn.start, turn.language, turn.text) == (0.0, "zh", "a b") and turn.end > 5.0
    file.write_text(json.dumps({"path": name}) + "\n")
    with pytest.raises(UserError, match="line 1"):
        read_truth(file, tmp_path)


def test_every_sample_of_one_voice_has_a_known_language() -> None:
    languages = {path[11:13]: turns[0].language for path, turns in sample_truth().items()}
    assert languages == {code: code for code in ("en", "es", "fr", "it", "ru")}


@pytest.mark.slow
def test_a_folder_of_ones_own_gives_the_numbers_of_its_recordings(tmp_path: Path) -> None:
    make_mixed(tmp_path / "in", recordings=1, seconds=15.0)
    truth = tmp_path / "in" / "truth.jsonl"
    numbers = run("truth", "--recordings", str(tmp_path / "in"), "--truth", str(truth), "--folder", str(tmp_path))
    assert numbers["kept_in_wrong_language"] == 0 and numbers["cut_short"] == 0
    assert 0 <= numbers["right_clips_dropped"] <= 1
