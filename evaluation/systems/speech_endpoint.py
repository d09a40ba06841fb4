"""An OpenAI-compatible speech endpoint as a system: `POST URL/audio/speech` answers with a wav.

The key comes from `OPENAI_API_KEY`, never from the command line. What may pass (429, 5xx, a dropped connection) is tried
again; an endpoint that refuses, or fails ten times in a row, ends the job. Descriptions go as `instructions`.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evaluation.benchmarks.benchmark import Utterance
from evaluation.metrics.audio_files import Unusable, load
from evaluation.systems.base import Failure, System
from voxmill.core.errors import JobError, UserError

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
MAX_BYTES = 100_000_000
GIVE_UP_AFTER = 10


class SpeechEndpoint(System):
    """`rest` is URL#MODEL/VOICE. References are not sent: the interface has no place for them."""

    takes_seed = False

    def __init__(self, name: str, rest: str, workers: int = 4, timeout: float = 120.0, wait: float = 1.0):
        self.name = name
        self.url, _, chosen = rest.partition("#")
        self.model, _, self.voice = chosen.partition("/")
        if not self.url.startswith(("http://", "https://")) or not self.model or not self.voice:
            raise UserError(f"--system {name}=speech:{rest}: write speech:http://host:port/v1#MODEL/VOICE")
        self.workers, self.timeout, self.wait = workers, timeout, wait
        # Redirects are not followed, because they would carry the key elsewhere.
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._failed_in_row = 0

    def identity(self) -> dict[str, str]:
        return {"kind": "speech", "url": self.url, "model": self.model, "voice": self.voice}

    def speak(self, utterances: Sequence[Utterance], folder: Path, seed: int) -> Iterator[Failure]:
        missing = [one for one in utterances if not self.path_of(folder, one).exists()]
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            for one, problem in zip(missing, pool.map(lambda u: self._one(u, folder), missing), strict=True):
                self._failed_in_row = self._failed_in_row + 1 if problem else 0
                if problem:
                    yield Failure(one, problem)
                if self._failed_in_row >= GIVE_UP_AFTER:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise JobError(f"{self.url} failed {GIVE_UP_AFTER} times in a row ({problem}); mend it and go on")

    def _one(self, one: Utterance, folder: Path) -> str | None:
        body: dict[str, Any] = {
            "model": self.model,
            "voice": self.voice,
            "input": one.text,
            "response_format": "wav",
        }
        if one.description:
            body["instructions"] = one.description
        answer: bytes | str = ""
        for attempt in range(4):
            if attempt:
                time.sleep(self.wait * 2**attempt)
            answer, may_pass = self._ask(json.dumps(body).encode())
            if isinstance(answer, bytes) or not may_pass:
                break
        if isinstance(answer, str):
            return answer
        path = self.path_of(folder, one)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part.wav")
        part.write_bytes(answer)
        found = load(part)
        if isinstance(found, Unusable) and found.reason == "unreadable":
            part.unlink()
            return f"answered {answer[:40]!r}, which is no audio"
        os.replace(part, path)
        return None

    def _ask(self, body: bytes) -> tuple[bytes | str, bool]:
        """(wav or what went wrong, whether asking again may help)."""
        headers = {"Content-Type": "application/json"}
        key = os.environ.get("OPENAI_API_KEY", "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/audio/speech", body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                data: bytes = response.read(MAX_BYTES)
                return data, False
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 404):
                raise JobError(
                    f"{self.url} answered {error.code}; check OPENAI_API_KEY, the url and the model"
                ) from None
            return f"answered {error.code}", error.code in RETRIED
        except (OSError, ValueError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {str(error)[:80]}", True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
