"""Lines of `scores/*.jsonl`: what earlier versions wrote is read, and written again byte by byte."""

import json
from pathlib import Path

import pytest

from evaluation.metrics.instruction_judge import InstructionVerdict
from evaluation.metrics.utterance_score import UtteranceScore

LINES = Path(__file__).parents[2] / "data" / "utterance_scores" / "scores.jsonl"
"""Written before scores were records: transcripts, bad wavs, judged ones, emotions and several seeds."""


def test_lines_of_earlier_versions_are_written_again_byte_by_byte() -> None:
    lines = LINES.read_text(encoding="utf-8").splitlines()
    scores = [UtteranceScore.from_json(line) for line in lines]
    assert [score.to_json() for score in scores] == lines
    assert {score.status for score in scores} >= {"ok", "silent", "unreadable", "missing", "too_long"}
    judged = next(score for score in scores if score.id == "en1" and score.instruction)
    assert (
        judged.instruction == InstructionVerdict(True, "calm") and judged.errors and judged.errors.strict.length == 10
    )
    emotional = next(score for score in scores if score.emotion)
    assert emotional.emotion and (emotional.emotion.wanted, emotional.emotion.heard) == ("happy", "angry")
    assert not emotional.wants_errors and emotional.wav == Path("wavs/en/happy_high_uttid_1.wav")


@pytest.mark.parametrize("line", ["", "[]", "{}", "null"])
def test_what_is_no_score_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        UtteranceScore.from_json(line)


def test_an_unknown_status_is_refused() -> None:
    plain = json.loads(LINES.read_text(encoding="utf-8").splitlines()[0])
    with pytest.raises(ValueError, match="status"):
        UtteranceScore.from_json(json.dumps(plain | {"status": "fine"}))
