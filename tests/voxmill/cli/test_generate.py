"""`voxmill generate` on the oracle's checkpoint: files, streams, many requests; a mistake is answered in one line."""

import json
import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from model.checkpoint import load_checkpoint
from model.generation.generator import Generator
from model.generation.request import Request, Settings
from tests.support.oracle import Oracle, read_oracle
from voxmill.cli.app import main

FAST = ("--steps", "3", "--max-len", "5")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return read_oracle()


def generate(monkeypatch: pytest.MonkeyPatch, oracle: Oracle, *words: object) -> int:
    """Exit status of the command, run in this process."""
    command = ["voxmill", "generate", "--checkpoint", str(oracle.checkpoint), *map(str, words)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
        sys.exit(0)
    return int(end.value.code or 0)


def process(oracle: Oracle, *words: object) -> "subprocess.CompletedProcess[bytes]":
    """The command as a user runs it."""
    command = [sys.executable, "-c", "from voxmill.cli.app import main; main()", "generate", "--checkpoint"]
    return subprocess.run([*command, str(oracle.checkpoint), *map(str, words)], capture_output=True, env=os.environ)


def read(path: Path) -> np.ndarray:
    samples: np.ndarray
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == read_oracle().config.audio_vae_config.out_sample_rate and samples.ndim == 1
    return samples


def test_a_wav_file_is_what_the_library_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], oracle: Oracle, tmp_path: Path
) -> None:
    out = tmp_path / "new folder" / "speech.wav"
    words = ("--text", "hello test", "--description", "sad", "--reference", oracle.wav("ref_24k.wav"), "--seed", 7)
    assert generate(monkeypatch, oracle, *words, *FAST, "-o", out) == 0
    line = capsys.readouterr().out
    assert re.search(r"speech\.wav: [\d.]+ s of speech in [\d.]+ s, RTF [\d.]+ \(loading [\d.]+ s, seed 7\)", line)
    generator = Generator.of(load_checkpoint(oracle.checkpoint))
    voice = generator.voice(reference=oracle.wav("ref_24k.wav"))
    speech = generator.generate(Request("hello test", "sad", voice, Settings(steps=3, max_len=5), 7))
    assert np.abs(read(out) - speech.audio_T.numpy()).max() <= 2 / 32768
    assert [path.name for path in out.parent.iterdir()] == ["speech.wav"]  # no part file is left


@pytest.mark.slow
def test_streams(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], oracle: Oracle, tmp_path: Path
) -> None:
    """A stream to a file and to stdout is the speech, to two steps of 16 bits."""
    words = ("--text", "test 你好", "--prompt", oracle.wav("prompt_16k.wav"), "--prompt-text", "hello ", "--seed", 7)
    assert generate(monkeypatch, oracle, *words, *FAST, "-o", tmp_path / "whole.wav") == 0
    assert generate(monkeypatch, oracle, *words, *FAST, "--stream", "-o", tmp_path / "streamed.wav") == 0
    assert "first piece" in capsys.readouterr().out
    piped = process(oracle, *words, *FAST, "--stream", "-o", "-")
    assert piped.returncode == 0 and b"RTF" in piped.stderr
    expected = read(tmp_path / "whole.wav")
    pcm = np.frombuffer(piped.stdout, "<i2").astype("float32") / 32768
    for samples in (read(tmp_path / "streamed.wav"), pcm):
        assert samples.shape == expected.shape and np.abs(samples - expected).max() <= 2 / 32768
    assert np.abs(expected).max() > 0.01


def test_a_streamed_file_is_whole_at_any_time(tmp_path: Path) -> None:
    from voxmill.cli.generate import _open_wav, _pcm

    path = tmp_path / "growing.wav"
    with _open_wav(path, 48000) as file:
        for count in (1, 2, 3):
            file.writeframes(_pcm(torch.linspace(-2, 2, 7680)))
            with wave.open(str(path)) as half:
                assert half.getnframes() == count * 7680
    assert read(path).min() >= -1


def test_many_requests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], oracle: Oracle, tmp_path: Path
) -> None:
    """Each line's file is what the same request gives alone; paths start at the file's folder."""
    (tmp_path / "voice.wav").write_bytes(oracle.wav("ref_24k.wav").read_bytes())
    lines = [
        {"text": "hello test", "id": "first", "seed": 3},
        {"text": "test", "reference": "voice.wav", "description": "sad", "seed": 4, "max_len": 2},
        {"text": "test 你好", "prompt": str(oracle.wav("prompt_16k.wav")), "prompt_text": "hello ", "guidance": 1.5},
    ]
    requests = tmp_path / "requests.jsonl"
    requests.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    out = tmp_path / "out"
    words = ("--requests", requests, "--seed", 9, "--batch", 2, *FAST, "-o", out)
    assert generate(monkeypatch, oracle, *words) == 0
    assert "3 requests" in capsys.readouterr().out
    results = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in results] == ["first", "000003", "000005"]
    assert [row["seed"] for row in results] == [3, 4, 9]
    names = {row["file"] for row in results}
    assert {path.name for path in out.iterdir()} == names | {"results.jsonl"}
    for row in results:
        assert row["seconds"] == pytest.approx(len(read(out / row["file"])) / 48000, abs=1e-3)
    assert results[1]["seconds"] == pytest.approx(0.32)
    assert generate(monkeypatch, oracle, "--text", "hello test", "--seed", 3, *FAST, "-o", tmp_path / "alone.wav") == 0
    alone, batched = read(tmp_path / "alone.wav"), read(out / "first.wav")
    assert alone.shape == batched.shape and np.abs(alone - batched).max() <= 1e-3


def test_an_adapter_changes_the_speech(monkeypatch: pytest.MonkeyPatch, oracle: Oracle, tmp_path: Path) -> None:
    words = ("--text", "hello test", "--seed", 3, *FAST)
    assert generate(monkeypatch, oracle, *words, "-o", tmp_path / "plain.wav") == 0
    assert generate(monkeypatch, oracle, *words, "--lora", oracle.lora, "-o", tmp_path / "lora.wav") == 0
    plain, adapted = read(tmp_path / "plain.wav"), read(tmp_path / "lora.wav")
    shared = min(len(plain), len(adapted))
    assert np.abs(plain[:shared] - adapted[:shared]).max() > 1e-3


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with recordings that are of no use."""
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000, "float32"), 16000)
    soundfile.write(tmp_path / "short.wav", np.sin(np.arange(800) / 5).astype("float32"), 16000)
    (tmp_path / "noise.wav").write_bytes(b"this is no audio at all" * 50)
    (tmp_path / "a folder").mkdir()
    return tmp_path


HELLO = ("--text", "hello")
MISTAKES = {
    "nothing": ((), r"no text; give --text, or --requests"),
    "empty text": (("--text", " \n"), r"the text is empty"),
    "missing reference": ((*HELLO, "--reference", "gone.wav"), r"gone\.wav: .*no such file"),
    "unreadable reference": ((*HELLO, "--reference", "noise.wav"), r"noise\.wav: "),
    "silent reference": ((*HELLO, "--reference", "silent.wav"), r"silent\.wav: is silent"),
    "short reference": ((*HELLO, "--reference", "short.wav"), r"short\.wav: 0\.05 s of audio is too short"),
    "missing prompt": ((*HELLO, "--prompt", "gone.wav", "--prompt-text", "a"), r"gone\.wav: .*no such file"),
    "prompt without text": ((*HELLO, "--prompt", "silent.wav"), r"silent\.wav: a prompt needs its text"),
    "prompt with empty text": ((*HELLO, "--prompt", "silent.wav", "--prompt-text", " "), r"a prompt needs its text"),
    "text without prompt": ((*HELLO, "--prompt-text", "a"), r"a prompt text needs its audio"),
    "description with prompt": (
        (*HELLO, "--description", "sad", "--prompt", "silent.wav", "--prompt-text", "a"),
        r"description does not work with a prompt",
    ),
    "too long": (("--text", "hello " * 900), r"\d+ positions .* the model takes \d+"),
    "steps": ((*HELLO, "--steps", "0"), r"steps = 0: "),
    "guidance": ((*HELLO, "--guidance", "-1"), r"guidance = -1\.0: "),
    "seed": ((*HELLO, "--seed", "-1"), r"seed = -1 must be an integer"),
    "batch": ((*HELLO, "--batch", "0"), r"--batch 0 must be 1 or more"),
    "device": ((*HELLO, "--device", "abacus"), r"--device = 'abacus': no device"),
    "dtype": ((*HELLO, "--dtype", "int3"), r"--dtype int3: use bfloat16 or float32"),
    "adapter": ((*HELLO, "--lora", "a folder"), r"a folder"),
    "text and requests": ((*HELLO, "--requests", "r.jsonl"), r"--text does not go with --requests"),
    "stream and requests": (("--requests", "r.jsonl", "--stream"), r"--stream does not go with --requests"),
    "out is a folder": ((*HELLO, "-o", "a folder"), r"a folder: is a folder"),
    "requests missing": (("--requests", "gone.jsonl"), r"gone\.jsonl: cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    oracle: Oracle,
    recordings: Path,
    mistake: str,
) -> None:
    monkeypatch.chdir(recordings)
    words, message = MISTAKES[mistake]
    out = () if "-o" in words else ("-o", "out.wav" if "--requests" not in words else "out")
    assert generate(monkeypatch, oracle, *words, *out) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"voxmill generate: [^\n]+\n", error) and re.search(message, error), error
    assert not (recordings / "out.wav").exists() and not (recordings / "out").exists()


LINES: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("{text: hello}", r"line 2: not valid JSON"),
    "no object": ('"hello"', r"line 2: must be an object"),
    "unknown field": (
        '{"text": "a", "referense": "x.wav"}',
        r"line 2: unknown field 'referense'; did you mean 'reference'",
    ),
    "no text": ('{"id": "a"}', r"line 2: no text"),
    "empty text": ('{"text": ""}', r"line 2: the text is empty"),
    "text is a number": ('{"text": 3}', r"line 2: text = 3 must be a string"),
    "steps": ('{"text": "a", "steps": "many"}', r"line 2: steps = 'many': "),
    "seed": ('{"text": "a", "seed": 1.5}', r"line 2: seed = 1\.5 must be an integer"),
    "id twice": ('{"text": "a", "id": "One"}', r"line 2: id 'One' is taken by line 1"),
    "id leads out": ('{"text": "a", "id": "../a"}', r"line 2: id '\.\./a' cannot name a file"),
    "missing reference": ('{"text": "a", "reference": "gone.wav"}', r"line 2: .*gone\.wav: .*no such file"),
    "prompt without text": ('{"text": "a", "prompt": "silent.wav"}', r"line 2: .*a prompt needs its text"),
    "text without prompt": ('{"text": "a", "prompt_text": "b"}', r"line 2: a prompt text needs its audio"),
    "not UTF-8": (b'{"text": "\xff"}', r"requests\.jsonl: not UTF-8"),
}


@pytest.mark.parametrize("mistake", LINES)
def test_a_bad_line_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    oracle: Oracle,
    recordings: Path,
    mistake: str,
) -> None:
    line, message = LINES[mistake]
    content = line if isinstance(line, bytes) else line.encode()
    requests = recordings / "requests.jsonl"
    requests.write_bytes(b'{"text": "hello", "id": "one"}\n' + content + b"\n")
    assert generate(monkeypatch, oracle, "--requests", requests, "-o", recordings / "out") == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"voxmill generate: [^\n]+\n", error) and re.search(message, error), error
    assert not (recordings / "out").exists()


def test_an_empty_file_of_requests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], oracle: Oracle, tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    assert generate(monkeypatch, oracle, "--requests", tmp_path / "empty.jsonl", "-o", tmp_path / "out") == 2
    assert "no requests; write one JSON object a line" in capsys.readouterr().err


def test_no_checkpoint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["voxmill", "generate", "--checkpoint", str(tmp_path / "gone"), *HELLO, "-o", str(tmp_path / "a.wav")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    error = capsys.readouterr().err
    assert end.value.code == 2 and re.fullmatch(r"voxmill generate: [^\n]*gone[^\n]*\n", error), error
