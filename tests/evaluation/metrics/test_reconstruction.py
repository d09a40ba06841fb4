"""Measures of reconstruction on real speech, and the command over a real checkpoint."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from evaluation.metrics.reconstruction import MEASURES, CodecScorer, mel_codec, si_sdr, vae_codec
from model.codec.audio_vae import AudioVAE
from model.config import AudioVAEConfig
from samples.fabricate import speech
from tests.support.oracle import read_oracle
from voxmill.cli.evaluation.reconstruction import summarise
from voxmill.core.audio import resample

ROOT = Path(__file__).resolve().parents[3]


needs_pesq = pytest.mark.skipif(find_spec("pesq") is None, reason="pesq is a C extension: pip install voxmill[pesq]")


@needs_pesq
def test_measures_fall_with_noise() -> None:
    scorer, recorded = CodecScorer(), speech(seconds=3.0)
    noise = np.random.default_rng(0).standard_normal(len(recorded)).astype(np.float32)
    noise *= np.sqrt(np.mean(recorded**2)) / np.sqrt(np.mean(noise**2))
    scores = [scorer.score(recorded, 16000, recorded + 10 ** (-db / 20) * noise, 16000) for db in (60, 20, 0)]
    for measure in MEASURES:
        first, second, third = (getattr(score, measure) for score in scores)
        assert (first < second < third) if measure.startswith("mel") else (first > second > third), measure
    assert scores[1].si_sdr_16k == pytest.approx(20, abs=0.5)
    perfect = scorer.score(recorded, 16000, recorded, 16000)
    assert perfect.mel_full == perfect.mel_16k == 0.0
    assert perfect.stoi_16k == pytest.approx(1.0, abs=1e-6) and perfect.pesq_16k > 4.5


def test_si_sdr() -> None:
    generator = np.random.default_rng(1)
    signal = generator.standard_normal(16000)
    other = generator.standard_normal(16000)
    signal -= signal.mean()
    other -= other.mean()
    other -= (other @ signal) / (signal @ signal) * signal  # a right angle: the ratio is then known
    other *= np.sqrt((signal @ signal) / (other @ other)) / 10
    assert si_sdr(signal, 3.0 * (signal + other)) == pytest.approx(20.0, abs=1e-6)


def test_only_the_band_of_the_source_counts() -> None:
    """Made-up treble over a 16 kHz source costs nothing; over a 48 kHz one it does."""
    scorer, recorded = CodecScorer(), speech(seconds=2.0, rate=48000)
    treble = 0.05 * np.sin(2 * np.pi * 15000 * np.arange(len(recorded)) / 48000).astype(np.float32)
    wide = scorer.score(recorded, 48000, recorded + treble, 48000, with_pesq=False)
    narrow = scorer.score(resample(recorded, 48000, 16000), 16000, recorded + treble, 48000, with_pesq=False)
    assert wide.mel_full > 0.2 > narrow.mel_full
    assert np.isnan(wide.pesq_16k)


def test_means_are_over_the_clips_that_have_a_value() -> None:
    values = list(np.random.default_rng(2).normal(3.0, 1.0, 200))
    summary = summarise([*values, float("nan")])
    assert (summary.count, summary.missing) == (200, 1)
    half = 1.96 * np.std(values) / np.sqrt(200)
    assert summary.low == pytest.approx(summary.mean - half, abs=0.03)
    assert summary.high == pytest.approx(summary.mean + half, abs=0.03)
    assert summarise(values) == summarise(values)
    assert np.isnan(summarise([1.0]).low)


@needs_pesq
def test_silence_and_scraps_are_no_measure() -> None:
    silent = CodecScorer().score(np.zeros(16000, dtype=np.float32), 16000, np.zeros(16000, dtype=np.float32), 16000)
    assert np.isnan(silent.pesq_16k) and np.isnan(silent.stoi_16k)
    scrap = CodecScorer().score(speech(seconds=0.2), 16000, speech(seconds=0.2), 16000)
    assert np.isnan(scrap.pesq_16k) and np.isnan(scrap.stoi_16k) and scrap.mel_full == 0.0


def test_codecs() -> None:
    audio = speech(seconds=1.5)
    made, rate = mel_codec(iterations=4)(audio, 16000)
    assert rate == 16000 and len(made) == len(audio)
    score = CodecScorer().score(audio, 16000, made, rate, with_pesq=False)
    assert score.stoi_16k > 0.5
    torch.manual_seed(0)
    shape = AudioVAEConfig(encoder_dim=2, latent_dim=4, decoder_dim=64)
    made, rate = vae_codec(AudioVAE(shape).freeze())(speech(seconds=1.5, rate=22050), 22050)
    assert rate == 48000 and len(made) == pytest.approx(72000, abs=2)


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("en-1", "fr-1"):
        soundfile.write(tmp_path / "in" / f"{name}.flac", speech(name, seconds=2.5), 16000)
    soundfile.write(tmp_path / "in" / "silent.wav", np.zeros(48000), 16000)
    (tmp_path / "in" / "broken.wav").write_text("nothing")
    command = [sys.executable, "-m", "voxmill", "evaluate", "reconstruction", "--data", str(tmp_path / "in")]
    command += ["--checkpoint", str(read_oracle().checkpoint), "-o", str(tmp_path / "out"), "--no-pesq"]
    done = subprocess.run(
        [*command, "--tracking-uri", "none", "--clip-seconds", "1.25"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert result["clips"] == 4
    assert result["skipped"] == {
        "not_audio": {"count": 1, "names": ["broken.wav"]},
        "silent": {"count": 2, "names": ["silent.wav@0", "silent.wav@1.25"]},
    }
    score = result["scores"]["AudioVAE"]
    assert score["mel_full"]["low"] <= score["mel_full"]["mean"] <= score["mel_full"]["high"]
    assert score["pesq_16k"] == {"mean": None, "low": None, "high": None, "count": 0, "missing": 4}
    assert "AudioVAE" in (tmp_path / "out" / "reconstruction.md").read_text()
    assert len((tmp_path / "out" / "clips.jsonl").read_text().splitlines()) == 4
    lost = subprocess.run([*command, "--only", "de-1.flac"], cwd=ROOT, capture_output=True, text=True)
    assert lost.returncode == 2 and "no such recording" in lost.stderr and "Traceback" not in lost.stderr
