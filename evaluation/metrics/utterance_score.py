"""The scores of one utterance by one system, and their line in `scores/*.jsonl`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from evaluation.metrics.error_rates import UtteranceErrors
from evaluation.metrics.instruction_judge import InstructionVerdict
from evaluation.metrics.repetition import Repetition

Status = Literal["ok", "failed", "missing", "unreadable", "empty", "silent", "not_numbers", "too_long"]
"""`failed`: the system reported why. `missing`: there is no wav and no reason. `empty`: shorter than 0.05 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dnsmos:
    """DNSMOS P.835 (signal, background, overall) and P.808, each 1 to 5."""

    sig: float
    bak: float
    ovr: float
    p808: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmotionScore:
    """The emotion that the reference has and the one that the classifier recognised; None: the clip is too short."""

    wanted: str | None
    level: str | None
    heard: str | None
    probability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceScore:
    """One utterance of one system with one seed. A score is None where there is nothing to measure.

    `seconds` and `rate` (hertz) are the wav's own; `similarity` is a cosine, -1 to 1. `wants_errors`: whether a wav
    that cannot be scored counts as wrong from end to end, which it does where transcripts are scored.
    """

    id: str
    group: str
    language: str
    text: str
    seed: int
    wav: Path
    description: str | None = None
    reference: Path | None = None
    status: Status
    detail: str | None = None
    seconds: float = 0.0
    rate: int = 0
    hypothesis: str | None = None
    errors: UtteranceErrors | None = None
    repetition: Repetition | None = None
    similarity: float | None = None
    dnsmos: Dnsmos | None = None
    emotion: EmotionScore | None = None
    wants_errors: bool = True
    instruction: InstructionVerdict | None = None

    def to_json(self) -> str:
        """One line without its end."""
        plain = _ADAPTER.dump_python(self, mode="json")
        instruction = plain.pop("instruction")
        if self.repetition is None:
            # Lines of earlier versions have none, and stay what they were.
            del plain["repetition"]
        if self.wants_errors:
            del plain["wants_errors"]
        if instruction is not None:
            plain |= {"followed": instruction["followed"], "verdict": instruction["reason"]}
        return json.dumps(plain, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> UtteranceScore:
        """The inverse of `to_json`.

        Raises:
            ValueError: not a line of `scores/*.jsonl`.
        """
        plain = json.loads(line)
        if isinstance(plain, dict) and "followed" in plain:
            plain["instruction"] = {"followed": plain.pop("followed"), "reason": plain.pop("verdict", "")}
        return _ADAPTER.validate_python(plain)


_ADAPTER = TypeAdapter(UtteranceScore)
