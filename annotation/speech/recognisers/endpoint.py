"""Any OpenAI-compatible transcription server: `POST URL/audio/transcriptions` with a wav, answered in JSON.

The `openai` SDK sends and tries again what may pass; `EndpointMeter` keeps the pace and one deadline an attempt, sets
the key from the environment, and ends the job where the server refuses the key or knows no such model. A server that
does not answer ends the job too: that is no recording's fault. One that refuses a recording ends its window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from annotation.speech.recognisers.config import RecognitionEndpointConfig
from annotation.speech.recognisers.pieces import PieceText, TimedWord
from voxmill.core.audio import encode_wav
from voxmill.core.errors import JobError, UserError
from voxmill.core.http import UNSENT_KEY, EndpointMeter, Failure, NoAnswerError, is_address, missing_sdk, unreadable
from voxmill.data.languages import base_language

if TYPE_CHECKING:
    import openai

MAX_BYTES = 4_000_000
GIVE_UP_AFTER = 5
REFUSED = ("http_400", "http_413", "http_415", "http_422")
"""What a server answers to audio or settings that it does not take."""


class EndpointRecogniser:
    """One endpoint, asked by some threads at once.

    Raises:
        UserError: the URL is not http(s), or the SDK is not installed.
    """

    def __init__(self, config: RecognitionEndpointConfig, model: str, prompt: str | None = None):
        if not is_address(config.url):
            raise UserError(f"transcription.endpoint.url={config.url!r}: write an address such as http://host:8000/v1")
        try:
            import openai
        except ImportError:
            raise missing_sdk("openai") from None
        self._config, self._model, self._prompt = config, model, prompt
        self.aligner = "endpoint" if config.response_format == "verbose_json" else ""
        self._meter = EndpointMeter(
            f"{model} at {config.url}",
            check=_check,
            key_variable=config.api_key_variable,
            timeout_seconds=config.timeout_seconds,
            give_up_after=GIVE_UP_AFTER,
            max_bytes=MAX_BYTES,
            requests_per_minute=config.requests_per_minute,
        )
        self._client = openai.OpenAI(
            api_key=UNSENT_KEY, base_url=config.url, http_client=self._meter.client, max_retries=config.retries
        )

    def __call__(self, pieces: Sequence[np.ndarray], languages: Sequence[str]) -> list[PieceText]:
        with ThreadPoolExecutor(self._config.concurrent_requests) as pool:
            try:
                return list(pool.map(self._ask, pieces, languages))
            finally:
                pool.shutdown(cancel_futures=True)

    def _ask(self, piece: np.ndarray, language: str) -> PieceText:
        import openai

        try:
            answer = self._meter.ask(lambda: self._request(openai.omit, piece, language), (openai.OpenAIError,))
        except NoAnswerError as error:
            if error.kind in REFUSED:
                # This recording's own; a server that refuses all of them ends the job by `GIVE_UP_AFTER`.
                raise
            raise JobError(f"{self._model} at {self._config.url} {error.detail}") from None
        return _text(answer, len(piece) / 16000)

    def _request(self, omit: openai.Omit, piece: np.ndarray, language: str) -> dict[str, Any]:
        is_verbose = self._config.response_format == "verbose_json"
        ask: Any = self._client.audio.transcriptions.create
        answer = ask(
            model=self._model,
            file=("clip.wav", encode_wav(piece, 16000), "audio/wav"),
            # Dialects have no code that servers know.
            language=base_language(language),
            prompt=omit if self._prompt is None else self._prompt,
            response_format=self._config.response_format,
            temperature=0.0,
            timestamp_granularities=["word", "segment"] if is_verbose else omit,
        )
        # With what servers add to the SDK's own types.
        told: dict[str, Any] = answer.to_dict(warnings=False)
        return told


def _check(body: bytes) -> Failure | None:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return unreadable(body, "not_a_transcription")
    text = reply.get("text") if isinstance(reply, dict) else None
    return None if isinstance(text, str) else unreadable(body, "not_a_transcription")


def _text(answer: dict[str, Any], seconds: float) -> PieceText:
    """What an answer says; what of it is missing or of no sense stays None."""
    # Half a surrogate pair can be neither stored nor compared.
    text = " ".join(answer["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace").split())
    return PieceText(
        text=text,
        words=_words(answer.get("words"), seconds) if text else (),
        mean_log_probability=_of_segments(answer.get("segments"), "avg_logprob"),
        no_speech_probability=_of_segments(answer.get("segments"), "no_speech_prob"),
    )


def _words(told: object, seconds: float) -> tuple[TimedWord, ...] | None:
    """Words with their times; None where there are none, or one has no times in the order of time."""
    if not isinstance(told, list) or not told:
        return None
    words: list[TimedWord] = []
    for one in told:
        if not isinstance(one, dict):
            return None
        word, start, end = (one.get(name) for name in ("word", "start", "end"))
        if not (isinstance(word, str) and _is_number(start) and _is_number(end)) or not 0 <= start <= end:
            return None
        if words and start < words[-1].start:
            return None
        probability: object = one.get("probability")
        probable = float(probability) if _is_number(probability) and 0 <= probability <= 1 else None
        words.append(TimedWord(word=word, start=min(start, seconds), end=min(end, seconds), probability=probable))
    return tuple(words)


def _of_segments(told: object, name: str) -> float | None:
    """The mean of a figure over segments by their tokens; None where a segment has none."""
    if not isinstance(told, list) or not told:
        return None
    values, weights = [], []
    for one in told:
        value: object = one.get(name) if isinstance(one, dict) else None
        if not _is_number(value):
            return None
        values.append(float(value))
        tokens = one.get("tokens")
        weights.append(max(len(tokens), 1) if isinstance(tokens, list) else 1)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
