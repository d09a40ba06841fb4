"""What was measured of one wav, metric by metric, as workers return it and the cache keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from pydantic import JsonValue, TypeAdapter

from evaluation.metrics.error_rates import UtteranceErrors
from evaluation.metrics.utterance_score import Dnsmos, Status

MetricName = Literal["audio", "transcript", "errors", "similarity", "dnsmos", "emotion"]
METRIC_NAMES: tuple[MetricName, ...] = get_args(MetricName)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioState:
    """A wav's own length and rate in hertz; `problem` and `detail`: why it cannot be scored, None where it can."""

    seconds: float = 0.0
    rate: int = 0
    problem: Status | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Cosine:
    """Cosine of two voices, -1 to 1; None: one of the clips is too short or silent to have a voice."""

    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognisedEmotion:
    """The likeliest emotion and its probability, 0 to 1; None for both: the clip is too short."""

    heard: str | None
    probability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Metrics of one wav; None: not measured so far."""

    audio: AudioState | None = None
    transcript: str | None = None
    errors: UtteranceErrors | None = None
    similarity: Cosine | None = None
    dnsmos: Dnsmos | None = None
    emotion: RecognisedEmotion | None = None

    def merged(self, other: Measurement) -> Measurement:
        """This one with all that the other has measured."""
        return replace(self, **{name: getattr(other, name) for name in other.names()})

    def names(self) -> list[MetricName]:
        """Metrics that are measured."""
        return [name for name in METRIC_NAMES if getattr(self, name) is not None]

    def to_plain(self, name: MetricName) -> JsonValue:
        """A measured metric as the cache keeps it."""
        plain: JsonValue = _ADAPTER.dump_python(self, mode="json")[name]
        return plain["value"] if name == "similarity" and isinstance(plain, dict) else plain

    def with_plain(self, name: MetricName, plain: JsonValue) -> Measurement:
        """This one with a metric from the cache."""
        value = {"value": plain} if name == "similarity" else plain
        return self.merged(_ADAPTER.validate_python({name: value}))


_ADAPTER = TypeAdapter(Measurement)
