"""A transcription endpoint, asked over a real connection; the good answers are ones of the embedded Whisper."""

import io
import math
from typing import Any

import numpy as np
import pytest
import soundfile

from annotation.speech.recognisers.config import RecognitionEndpointConfig
from annotation.speech.recognisers.endpoint import EndpointRecogniser
from annotation.speech.recognisers.pieces import PieceText, TimedWord
from tests.support.transcription_server import Answer, Request, Server, transcription_server
from voxmill.core.errors import JobError, UserError
from voxmill.core.http import NoAnswerError

# faster-whisper's, of the first English sample; servers (speaches, LocalAI) send its words with their probabilities.
RECORDED: dict[str, Any] = {
    "task": "transcribe",
    "language": "en",
    "duration": 2.58,
    "text": " No empty conferences currently exist.",
    "words": [
        {"word": " No", "start": 0.0, "end": 0.22, "probability": 0.594},
        {"word": " empty", "start": 0.22, "end": 0.58, "probability": 0.988},
        {"word": " conferences", "start": 0.58, "end": 1.22, "probability": 0.963},
        {"word": " currently", "start": 1.22, "end": 1.76, "probability": 0.998},
        {"word": " exist.", "start": 1.76, "end": 2.22, "probability": 0.993},
    ],
    "segments": [
        {
            "id": 1,
            "start": 0.0,
            "end": 2.22,
            "text": " No empty conferences currently exist.",
            "tokens": [50364, 883, 6707, 22032, 4362, 2514, 13, 50489],
            "avg_logprob": -0.5155,
            "no_speech_prob": 0.01112,
            "compression_ratio": 0.8605,
        }
    ],
}
TEXT = "No empty conferences currently exist."
PIECE = np.linspace(-0.5, 0.5, 41_280, dtype=np.float32)


def recogniser(server: Server, prompt: str | None = None, **settings: Any) -> EndpointRecogniser:
    config = RecognitionEndpointConfig(url=server.url, api_key_variable="OUR_KEY", **settings)
    return EndpointRecogniser(config, "whisper-1", prompt)


def asked(answer: Any, status: int = 200, **settings: Any) -> PieceText:
    """What is made of one answer."""
    with transcription_server(lambda *_: Answer(body=answer, status=status)) as server:
        (text,) = recogniser(server, **settings)([PIECE], ["en"])
    return text


def test_words_probabilities_and_texts_are_taken_and_the_request_is_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "sesame")
    with transcription_server(lambda *_: Answer(body=RECORDED)) as server:
        heard = recogniser(server, prompt="Asterisk")
        texts = heard([PIECE, PIECE[:16_000]], ["en", "zh-yue"])
    assert heard.aligner == "endpoint" and [one.text for one in texts] == [TEXT] * 2
    words = texts[0].words
    assert words is not None
    assert (words[0], words[-1].end) == (TimedWord(word=" No", start=0.0, end=0.22, probability=0.594), 2.22)
    assert (texts[0].mean_log_probability, texts[0].no_speech_probability) == (-0.5155, 0.01112)
    # No word lasts beyond the piece that was sent.
    assert texts[1].words is not None and texts[1].words[-1].end == 1.0
    by_language = {request.fields["language"][0]: request for request in server.seen}
    request = by_language["en"]
    assert request.path == "/v1/audio/transcriptions" and request.headers["authorization"] == "Bearer sesame"
    assert request.fields["model"] == ["whisper-1"] and request.fields["prompt"] == ["Asterisk"]
    assert request.fields["timestamp_granularities[]"] == ["word", "segment"] and "zh" in by_language
    samples, rate = soundfile.read(io.BytesIO(request.audio), dtype="float32")
    assert rate == 16_000 and np.abs(samples - PIECE).max() <= 1 / 32768


def test_what_a_server_does_not_tell_is_not_made_up() -> None:
    assert asked({"text": "Hello."}, response_format="json") == PieceText(text="Hello.")
    openais = {
        **RECORDED,
        "words": [{key: word[key] for key in ("word", "start", "end")} for word in RECORDED["words"]],
    }
    words = asked(openais).words
    assert words is not None and {word.probability for word in words} == {None}
    assert asked({"text": "  "}) == PieceText(text="", words=())


@pytest.mark.parametrize(
    "words",
    [
        None,
        [],
        "No empty",
        [{"word": "No"}],
        [{"word": "No", "start": None, "end": 1.0}],
        [{"word": "No", "start": 2.0, "end": 1.0}],
        [{"word": "No", "start": -1.0, "end": 1.0}],
        [{"word": "a", "start": 1.0, "end": 1.5}, {"word": "b", "start": 0.2, "end": 0.4}],
        [{"word": "No", "start": math.inf, "end": math.inf}],
        [{"word": 7, "start": 0.0, "end": 1.0}],
        [["No", 0.0, 1.0]],
    ],
)
def test_words_of_no_sense_are_no_words(words: object) -> None:
    """Servers send null times, words out of order, and strings."""
    broken = {**RECORDED, "words": words, "segments": [{"avg_logprob": "low", "no_speech_prob": None}]}
    assert asked(broken) == PieceText(text=TEXT)


def test_no_more_is_asked_at_once_than_is_allowed_and_texts_stay_in_order() -> None:
    def by_length(_: int, request: Request) -> Answer:
        return Answer(body={**RECORDED, "text": str(len(request.audio))})

    pieces = [PIECE[: 1600 * number] for number in range(1, 13)]
    with transcription_server(by_length, seconds=0.03) as server:
        texts = recogniser(server, concurrent_requests=3, requests_per_minute=60_000)(pieces, ["en"] * 12)
    assert server.most_open == 3
    lengths = [int(one.text) for one in texts]
    assert lengths == sorted(lengths) and len(set(lengths)) == 12


def test_what_may_pass_is_asked_again_and_what_does_not_pass_ends_the_job() -> None:
    def busy_twice(number: int, _: Request) -> Answer:
        if number < 2:
            return Answer(body={"error": "busy"}, status=(429, 503)[number], headers={"retry-after-ms": "5"})
        return Answer(body=RECORDED)

    with transcription_server(busy_twice) as server:
        (text,) = recogniser(server)([PIECE], ["en"])
        assert text.text == TEXT and len(server.seen) == 3
    for status, body, message in (
        (401, {}, r"answered 401 Unauthorized; set OUR_KEY to a valid key"),
        (404, {}, r"answered 404 Not Found; check the url and the model's name"),
        (500, {}, r"whisper-1 at http://127.0.0.1:\d+/v1 answered 500"),
        (200, b"<html>hello</html>", r"answered b'<html>"),
        (200, {"message": "no text"}, r"whisper-1 at .* answered b'\{"),
        (200, b"[" * 2000, r"whisper-1 at .* answered"),
    ):
        with pytest.raises(JobError, match=message):
            asked(body, status, retries=0)
    with (
        transcription_server(lambda *_: Answer(body={}), seconds=0.5) as server,
        pytest.raises(JobError, match=r"gave no whole answer in 0\.1 s"),
    ):
        recogniser(server, timeout_seconds=0.1, retries=0)([PIECE], ["en"])


def test_a_piece_that_is_refused_is_its_own_failure_and_a_server_that_refuses_all_ends_the_job() -> None:
    """`Audio file is too short` is of one clip, an unknown response format is of all."""
    with transcription_server(lambda *_: Answer(body={"error": "too short"}, status=400)) as server:
        heard = recogniser(server, concurrent_requests=1)
        for _ in range(4):
            with pytest.raises(NoAnswerError, match="http_400: answered 400 Bad Request"):
                heard([PIECE], ["en"])
        with pytest.raises(JobError, match="failed 5 requests in a row"):
            heard([PIECE], ["en"])


def test_an_address_that_is_none_is_refused() -> None:
    config = RecognitionEndpointConfig(url="localhost:8000")
    with pytest.raises(UserError, match=r"transcription\.endpoint\.url='localhost:8000'"):
        EndpointRecogniser(config, "whisper-1")
