"""Scores of utterances as tests of tables and sessions need them."""

from pathlib import Path

from evaluation.metrics.error_rates import Errors, UtteranceErrors
from evaluation.metrics.instruction_judge import InstructionVerdict
from evaluation.metrics.repetition import Repetition
from evaluation.metrics.utterance_score import EmotionScore, Status, UtteranceScore


def score_of(
    id_: str,
    *,
    group: str = "en",
    text: str = "x",
    seed: int = 0,
    status: Status = "ok",
    wav: Path = Path("none.wav"),
    description: str | None = None,
    reference: Path | None = None,
    hypothesis: str | None = None,
    similarity: float | None = None,
    emotion: EmotionScore | None = None,
    instruction: InstructionVerdict | None = None,
    wants_errors: bool = True,
) -> UtteranceScore:
    """An English utterance whose transcript was not scored."""
    return UtteranceScore(
        id=id_,
        group=group,
        language="en",
        text=text,
        seed=seed,
        wav=wav,
        description=description,
        reference=reference,
        status=status,
        seconds=1.0,
        rate=16000,
        hypothesis=hypothesis,
        similarity=similarity,
        emotion=emotion,
        wants_errors=wants_errors,
        instruction=instruction,
    )


def transcribed(
    id_: str, wrong: int, *, seed: int = 0, status: Status = "ok", similarity: float | None = 0.5, repeated: int = 0
) -> UtteranceScore:
    """Ten words, of which so many are wrong, and so many n-grams said again."""
    is_ok = status == "ok"
    errors = Errors(wrong, 0, 0, 10)
    return UtteranceScore(
        id=id_,
        group="en",
        language="en",
        text="when the sun comes out again we will go home",
        seed=seed,
        wav=Path(f"{id_}.wav"),
        status=status,
        seconds=1.0,
        rate=16000,
        errors=UtteranceErrors(errors, errors) if is_ok else None,
        repetition=Repetition(repeated=repeated, length_ratio=1.0) if is_ok else None,
        hypothesis="one two" if is_ok else None,
        similarity=similarity if is_ok else None,
    )
