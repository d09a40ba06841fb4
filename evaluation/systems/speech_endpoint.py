"""An OpenAI-compatible speech endpoint as a system: `POST URL/audio/speech` answers with a wav.

The key comes from `OPENAI_API_KEY`, never from the command line. The `openai` SDK tries again what may pass (429, 5xx,
a connection that breaks off); an endpoint that refuses, or fails ten times in a row, ends the job. Descriptions are
sent as `instructions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evaluation.benchmarks.benchmark import Utterance
from evaluation.systems.base import Failure, System
from voxmill.core import audio, http
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically

MAX_BYTES = 100_000_000
GIVE_UP_AFTER = 10


class SpeechEndpoint(System):
    """`rest` is URL#MODEL/VOICE. References are not sent: the interface has no place for them.

    Raises:
        UserError: `rest` is not of this form, or the SDK is not installed.
    """

    takes_seed = False

    def __init__(self, name: str, rest: str, workers: int = 4, timeout: float = 120.0, retries: int = 3):
        self.name = name
        self.url, _, chosen = rest.partition("#")
        self.model, _, self.voice = chosen.partition("/")
        if not http.is_address(self.url) or not self.model or not self.voice:
            raise UserError(f"--system {name}=speech:{rest}: write speech:http://host:port/v1#MODEL/VOICE")
        try:
            import openai
        except ImportError:
            raise http.missing_sdk("openai") from None
        self.workers = workers
        self._meter = http.EndpointMeter(
            self.url,
            check=_check,
            key_variable="OPENAI_API_KEY",
            timeout_seconds=timeout,
            give_up_after=GIVE_UP_AFTER,
            max_bytes=MAX_BYTES,
        )
        self._client = openai.OpenAI(
            api_key=http.UNSENT_KEY, base_url=self.url, http_client=self._meter.client, max_retries=retries
        )

    def identity(self) -> dict[str, str]:
        return {"kind": "speech", "url": self.url, "model": self.model, "voice": self.voice}

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        missing = [one for one in utterances if not self.path_of(folder, one).exists()]
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            try:
                for one, problem in zip(missing, pool.map(lambda u: self._one(u, folder), missing), strict=True):
                    if problem:
                        yield Failure(one, problem)
            finally:
                pool.shutdown(cancel_futures=True)

    def _one(self, one: Utterance, folder: Path) -> str | None:
        import openai

        def request() -> bytes:
            answer = self._client.audio.speech.create(
                model=self.model,
                voice=self.voice,
                input=one.text,
                response_format="wav",
                instructions=one.description or openai.omit,
            )
            return answer.content

        try:
            wav = self._meter.ask(request, (openai.OpenAIError,))
        except http.NoAnswerError as error:
            return error.detail
        write_atomically(self.path_of(folder, one), wav)
        return None


def _check(body: bytes) -> http.Failure | None:
    try:
        audio.decode(body)
    except audio.AudioProblem as problem:
        if problem.reason in ("not_audio", "decode_error", "empty_file"):
            # Asked again, a server that answers with a page would do the same.
            return http.Failure("no_audio", f"answered {body[:40]!r}, which is no audio", ends="request")
    return None
