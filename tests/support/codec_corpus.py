"""Small corpora for the trainer's tests: real recordings at several rates, with what a real corpus holds besides."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

RECORDINGS = Path(__file__).resolve().parents[2] / "samples" / "recordings"


def speech(name: str = "en-1", seconds: float = 3.0, start: float = 1.0, rate: int = 16000) -> np.ndarray:
    """Mono float32 of a sample recording, resampled to `rate`."""
    audio, native = soundfile.read(
        RECORDINGS / f"{name}.flac", start=int(start * 16000), frames=int(seconds * 16000), dtype="float32"
    )
    resampled: np.ndarray = soxr.resample(audio, native, rate)
    return resampled


def make_folder(folder: Path) -> Path:
    """Two good files at 16 kHz, one at 48 kHz, one stereo at 22.05 kHz, and eight kinds of bad ones."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "a.flac", speech("en-1"), 16000)
    soundfile.write(folder / "b.wav", speech("fr-1"), 16000)
    soundfile.write(folder / "c.wav", speech("it-1", rate=48000), 48000)
    stereo = speech("es-1", rate=22050)
    soundfile.write(folder / "d.wav", np.stack([stereo, stereo], axis=1), 22050)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no audio\n" * 20)
    soundfile.write(folder / "short.wav", speech(seconds=0.1), 16000)
    soundfile.write(folder / "telex.wav", speech(rate=4000), 4000)
    soundfile.write(folder / "silence.wav", np.zeros(64000, dtype=np.float32), 16000)
    soundfile.write(folder / "nan.wav", np.full(64000, np.nan, dtype=np.float32), 16000, subtype="FLOAT")
    soundfile.write(folder / "cut.flac", speech("ru-1"), 16000)
    content = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 4])
    (folder / "notes.txt").write_text("not audio by its name, not even counted")
    return folder


SETTINGS = [
    "model.audio_vae={encoder_dim: 2, encoder_rates: [2, 5, 8, 8], latent_dim: 4, decoder_dim: 64, "
    "decoder_rates: [8, 6, 5, 2, 2, 2]}",
    "data.seconds=0.16",
    "data.held_out=[d.wav]",
    "loss.num_mels=[10, 40]",
    "loss.mel_windows=[256, 1024]",
    "discriminator={periods: [3], period_channels: 2, windows: [256], bands: [0.2], spectrum_channels: 2, start: 1}",
    "rows=4",
    "precision=fp32",
    "run={steps: 4, log_every: 1, validate_every: 4, validate_crops: 2, listen: 1, save_every: 2, device: cpu, "
    "tracking_uri: none}",
]
"""Overrides that make a run of four steps on `make_folder`'s corpus take a moment."""
