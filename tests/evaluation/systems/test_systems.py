"""Every kind of system: real programs, a real checkpoint, a real HTTP server."""

import io
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from evaluation.benchmarks.benchmark import Utterance
from evaluation.systems import read_system
from evaluation.systems.base import identity_of, speech_folder
from evaluation.systems.checkpoint import Checkpoint
from evaluation.systems.command import Command
from evaluation.systems.speech_endpoint import SpeechEndpoint
from evaluation.systems.wav_folder import WavFolder
from tests.support.chat_server import Handler, chat_server
from tests.support.oracle import read_oracle
from voxmill.core.errors import JobError, UserError

PROGRAM = """
import sys, soundfile, numpy as np
text, out = sys.argv[1:3]
if 'fail' in text: sys.exit('cannot say that')
if 'nothing' not in text: soundfile.write(out, np.full(1600, len(text) / 100, dtype='float32'), 16000)
"""


def utterance(id_: str, text: str, **rest: Any) -> Utterance:
    return Utterance(id_, text, "en", "en", **rest)


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "a program.py"
    path.write_text(PROGRAM)
    return f"{shlex.quote(sys.executable)} '{path}'"


def test_a_command_speaks_what_is_missing_and_says_what_it_could_not(tmp_path: Path, program: str) -> None:
    system = Command("mine", f"{program} {{text}} {{output}}", workers=2)
    asked = [utterance("a", 'say "this"; $(touch no) {text}'), utterance("deep/b", "fail"), utterance("c", "nothing")]
    failed = {failure.utterance.id: failure.reason for failure in system.speak(asked, tmp_path / "wavs", 0)}
    assert failed == {"deep/b": "exit status 1: cannot say that", "c": "exit status 0: wrote no wav"}
    path = system.path_of(tmp_path / "wavs", asked[0])
    first = soundfile.read(path)[0]
    assert first[0] == pytest.approx(len(asked[0].text) / 100, abs=1e-3)
    assert sorted(path.name for path in (tmp_path / "wavs").rglob("*") if path.is_file()) == [path.name]
    before = path.stat().st_mtime_ns
    assert list(system.speak([asked[0]], tmp_path / "wavs", 0)) == []
    assert path.stat().st_mtime_ns == before
    assert not (tmp_path / "no").exists()


def test_a_command_that_never_ends_or_wants_what_is_not_there(tmp_path: Path, program: str) -> None:
    endless = Command("slow", f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(60)' {{output}}", timeout=0.5)
    assert list(endless.speak([utterance("a", "x")], tmp_path, 0))[0].reason == "no answer in 0 s"
    clone = Command("clone", f"{program} {{text}} {{output}} {{reference}}")
    assert list(clone.speak([utterance("a", "x")], tmp_path, 0))[0].reason == "no reference for {reference}"


def test_places_follow_everything_that_the_speech_depends_on(tmp_path: Path, program: str) -> None:
    one, other = (Command("mine", f"{program} {{text}} {{output}} {flag}") for flag in ("", "--loud"))
    places = {speech_folder(tmp_path, s, seed) for s in (one, other) for seed in (0, 1)}
    assert len(places) == 4 and speech_folder(tmp_path, one, 0) in places
    (tmp_path / "r.wav").write_text("voice")
    asked = [utterance("a", "x"), utterance("a", "y"), utterance("a", "x", description="calm")]
    asked += [utterance("a", "x", reference=tmp_path / "r.wav", reference_text=text) for text in (None, "hi")]
    assert len({one.path_of(tmp_path, u) for u in asked}) == 5
    before = one.path_of(tmp_path, asked[-1])
    (tmp_path / "r.wav").write_text("another voice")
    # The group and the list that it is in change nothing of an utterance's speech; its reference does.
    again = utterance("a", "x", reference=tmp_path / "r.wav", reference_text="hi")
    assert one.path_of(tmp_path, again) != before
    assert one.path_of(tmp_path, Utterance("a", "x", "en", "another group")) == one.path_of(tmp_path, asked[0])
    assert not one.takes_seed and Command("seeded", f"{program} {{seed}} {{output}}").takes_seed


def test_a_command_is_another_one_when_its_files_are_or_the_user_says_so(tmp_path: Path) -> None:
    (tmp_path / "tts.sh").write_text("echo one")
    (tmp_path / "voice.bin").write_text("weights")
    line = f"bash {tmp_path / 'tts.sh'} --voice={tmp_path / 'voice.bin'} {{text}} {{output}} {'x' * 300}"
    places = []
    for named, script, voice in (
        ("command", "echo one", "weights"),
        ("command", "echo two", "weights"),
        ("command", "echo two", "more weights"),
        ("command,version=2", "echo two", "more weights"),
    ):
        (tmp_path / "tts.sh").write_text(script)
        (tmp_path / "voice.bin").write_text(voice)
        system = read_system(f"mine={named}:{line}")
        places.append(speech_folder(tmp_path, system, 0))
    assert len(set(places)) == 4
    assert "tts.sh" in system.covered() and "voice.bin" in system.covered() and "version=2" in system.covered()
    assert identity_of(system)["version"] == "2" and "tts.sh" in identity_of(system)["files"]
    for named in ("mine=command,v=2:x", "mine=command,version=:x"):
        with pytest.raises(UserError, match="version=2"):
            read_system(named)


def test_a_folder_of_wavs_is_read_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "wavs" / "ja").mkdir(parents=True)
    (tmp_path / "wavs" / "ja" / "u1.flac").write_bytes(b"x")
    system = WavFolder("peer", str(tmp_path / "wavs"))
    assert system.path_of(tmp_path / "elsewhere", utterance("ja/u1", "x")).name == "u1.flac"
    assert system.path_of(tmp_path / "elsewhere", utterance("ja/u2", "x")) == tmp_path / "wavs" / "ja" / "u2.wav"
    assert list(system.speak([utterance("ja/u2", "x")], tmp_path, 0)) == []


def test_a_checkpoint_speaks_in_every_recipe_and_the_same_with_the_same_seed(tmp_path: Path) -> None:
    oracle = read_oracle()
    reference = oracle.wav("ref_24k.wav")
    voiced = utterance("v", "hello test", reference=reference, reference_text="hello")
    described = utterance("d", "hello test", reference=reference, description="sad")
    missing = utterance("m", "hello test", reference=tmp_path / "none.wav", reference_text="hello")
    wordless = utterance("w", "hello test", reference=reference)
    spoken = {}
    for recipe in ("", "continuation", "reference", "description"):
        system = Checkpoint("ours", str(oracle.checkpoint), recipe, device="cpu")
        folder = tmp_path / (recipe or "both")
        failed = {
            failure.utterance.id: failure.reason
            for failure in system.speak([voiced, described, missing, wordless], folder, 3)
        }
        if recipe in ("", "continuation"):
            assert "needs the reference's text" in failed.pop("w")
        if recipe != "description":
            assert "none.wav" in failed.pop("m")
        assert not failed
        spoken[recipe] = soundfile.read(system.path_of(folder, voiced))[0]
        assert len(spoken[recipe]) > 0 and np.isfinite(spoken[recipe]).all()
    again = Checkpoint("ours", str(oracle.checkpoint), "continuation", device="cpu")
    assert list(again.speak([voiced], tmp_path / "again", 3)) == []
    # Alone and in a batch, sums are taken in another order: the last bit may differ.
    assert np.allclose(soundfile.read(again.path_of(tmp_path / "again", voiced))[0], spoken["continuation"], atol=1e-3)
    identities = {str(Checkpoint("o", str(oracle.checkpoint), r).identity()) for r in ("", "reference", "continuation")}
    assert len(identities) == 3


def wav_bytes() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(2400, 0.1, dtype="float32"), 24000, format="WAV")
    return buffer.getvalue()


def test_a_speech_endpoint_is_asked_again_where_that_may_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")

    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        if body["input"] == "busy" and number == 0:
            handler.send("busy", 503, Retry_After_Ms="1")
        elif body["input"] == "page":
            handler.send("<html>sorry</html>")
        elif body["input"] == "wrong":
            handler.send("no", 400)
        else:
            handler.send(wav_bytes(), Content_Type="audio/wav")

    with chat_server(answer) as server:
        system = SpeechEndpoint("api", f"{server.url}#tts-1/alloy", workers=1)
        asked = [utterance("a", "busy", description="calm"), utterance("b", "page"), utterance("c", "wrong")]
        failed = {failure.utterance.id: failure.reason for failure in system.speak(asked, tmp_path, 0)}
        assert "is no audio" in failed["b"] and failed["c"] == "answered 400 Bad Request" and len(failed) == 2
        assert soundfile.info(system.path_of(tmp_path, asked[0])).samplerate == 24000
        seen = server.seen[1]
        assert seen["path"] == "/v1/audio/speech" and seen["headers"]["authorization"] == "Bearer secret"
        assert seen["body"] == {
            "model": "tts-1",
            "voice": "alloy",
            "input": "busy",
            "response_format": "wav",
            "instructions": "calm",
        }
        assert len(server.seen) == 4 and "secret" not in str(system.identity())


def test_a_speech_endpoint_that_refuses_ends_the_job(tmp_path: Path) -> None:
    with chat_server(lambda handler, number, body: handler.send("no", 401)) as server:
        system = SpeechEndpoint("api", f"{server.url}#m/v", workers=1)
        with pytest.raises(JobError, match="answered 401 Unauthorized; set OPENAI_API_KEY"):
            list(system.speak([utterance("a", "x")], tmp_path, 0))
        assert len(server.seen) == 1 and not any(tmp_path.iterdir())


def test_a_speech_endpoint_that_answers_with_pages_ends_the_job_after_some(tmp_path: Path) -> None:
    with chat_server(lambda handler, number, body: handler.send("<html>sign in</html>")) as server:
        system = SpeechEndpoint("api", f"{server.url}#m/v", workers=2)
        problems = []
        with pytest.raises(JobError, match="10 requests in a row.*which is no audio"):
            for failure in system.speak([utterance(str(n), "x") for n in range(30)], tmp_path, 0):
                problems.append(failure.reason)
        assert 0 < len(problems) < 12 and len(server.seen) < 15 and not list(tmp_path.rglob("*.wav"))


def test_a_speech_endpoint_that_breaks_off_leaves_nothing_half_written(tmp_path: Path) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + wav_bytes()[:2000])
        handler.close_connection = True

    with chat_server(answer) as server:
        system = SpeechEndpoint("api", f"{server.url}#m/v", workers=1, retries=1)
        failed = list(system.speak([utterance("a", "x")], tmp_path, 0))
        assert (
            failed[0].reason.startswith("cannot be reached") and len(server.seen) == 2 and not any(tmp_path.iterdir())
        )


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("espeak-ng", "NAME=KIND:REST"),
        ("a/b=wavs:x", "NAME=KIND:REST"),
        ("a=magic:x", "kind 'magic' is unknown"),
        ("a=wavs:no-such-folder", "no such folder"),
        ("a=checkpoint:no-such-folder", "no config.json there"),
        ("a=command:no-such-program {text} {output}", "not installed"),
        ("a=command:cat {text}", "no {output}"),
        ("a=command:cat {output} {voice}", "fields are text"),
        ("a=command:cat '{output}", "No closing quotation"),
        ("a=speech:localhost:80#m/v", "write speech:http"),
        ("a=speech:http://localhost:80", "write speech:http"),
        ("a=speech:http://localhost:eighty#m/v", "write speech:http"),
    ],
)
def test_mistakes_are_reported_in_one_line(named: str, message: str) -> None:
    with pytest.raises(UserError, match="--system") as caught:
        read_system(named)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(UserError, match="recipe 'prompt' is unknown"):
        read_system(f"a=checkpoint:{read_oracle().checkpoint}#prompt")
    assert shutil.which("cat") and read_system("a=command:cat {output}").name == "a"
