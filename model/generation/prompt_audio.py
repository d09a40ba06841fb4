"""A recording of a speaker to latent patches (report 3.4, spec 4.1): any format, any rate, mono, padded, encoded.

Decoded by libsndfile, resampled by soxr's HQ to the length that librosa gives: patches equal the released code's. What
libsndfile does not read, FFmpeg does.
"""

import math
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.codec.audio_vae import AudioVAE
from voxmill.core.errors import UserError

SHORTEST = 0.1
"""Seconds; less holds no speech."""
SILENCE = 1e-4
"""A recording that peaks below this (-80 dBFS) is silent: dither and nothing else."""
TRIM_DB, TRIM_FRAME, TRIM_HOP, TRIM_KEEP = 35.0, 2048, 512, 0.2
"""Silence is this far below the peak; frame and hop in samples; seconds of it that stay at both ends."""


def load_prompt(
    path: str | Path, vae: AudioVAE, *, patch_size: int, pad: Literal["left", "right"], trim: bool = False
) -> Tensor:
    """Latent patches [T, patch_size, D] of a recording, fp32 on the CPU.

    Args:
        pad: where zeros go to fill the last patch: "right" for a reference, "left" for a prompt, whose end must meet
            the generated speech.
        trim: cut silence at both ends first, keeping 200 ms.

    Raises:
        UserError: the file is missing, no readable audio, silent, or shorter than 0.1 s; names the file.
    """
    rate = vae.config.sample_rate
    audio_T = read_audio(path, rate=rate)
    if trim:
        audio_T = trim_silence(audio_T, rate=rate)
    return encode_prompt(audio_T, vae, patch_size=patch_size, pad=pad)


@torch.no_grad()
def encode_prompt(audio_T: Tensor, vae: AudioVAE, *, patch_size: int, pad: Literal["left", "right"]) -> Tensor:
    """Latent patches [T, patch_size, D] of mono audio in [-1, 1] at the encoder's rate, fp32 on the CPU."""
    missing = -len(audio_T) % (patch_size * vae.hop)
    padded_T = F.pad(audio_T, (missing, 0) if pad == "left" else (0, missing))
    latents_DL = vae.encode(padded_T[None].to(vae.device))[0]
    patches_TPD: Tensor = latents_DL.T.unflatten(0, (-1, patch_size)).cpu()
    return patches_TPD


def read_audio(path: str | Path, *, rate: int) -> Tensor:
    """A recording as mono fp32 [T] at `rate` hertz; channels are averaged. Errors as in `load_prompt`."""
    import numpy as np

    path = Path(path)
    channels_CT, found_rate = _decode(path)
    seconds = channels_CT.shape[1] / found_rate
    if seconds < SHORTEST:
        raise UserError(f"{path}: {seconds:.2f} s of audio is too short; give at least {SHORTEST} s, better 3 to 10 s")
    if not np.isfinite(channels_CT).all():
        raise UserError(f"{path}: holds samples that are not numbers; export it again")
    mono_T = channels_CT.mean(axis=0, dtype=np.float32)
    if np.abs(mono_T).max() < SILENCE:
        raise UserError(f"{path}: is silent; give a recording of speech")
    return torch.from_numpy(np.ascontiguousarray(to_rate(mono_T, found_rate, rate=rate)))


def to_rate(mono_T: Any, found_rate: int, *, rate: int) -> Any:
    """Mono fp32 samples (numpy, [T]) at `rate` hertz, as many as librosa gives."""
    import numpy as np
    import soxr

    if found_rate == rate:
        return mono_T
    length = math.ceil(len(mono_T) * (rate / found_rate))
    resampled_T = soxr.resample(mono_T, found_rate, rate, quality="HQ")[:length]
    return np.pad(resampled_T, (0, length - len(resampled_T)))


def trim_silence(audio_T: Tensor, *, rate: int) -> Tensor:
    """`audio_T` without silence at its ends, except 0.2 s.

    The end is the earlier of two: where the level falls 35 dB below the loudest frame, and the last whole frame whose
    level is within 35 dB of the peak *sample*, which also cuts a tail of background noise.
    """
    import librosa
    import numpy as np

    samples_T = audio_T.numpy()
    _, (start, end) = librosa.effects.trim(samples_T, top_db=TRIM_DB, frame_length=TRIM_FRAME, hop_length=TRIM_HOP)
    if len(samples_T) >= TRIM_FRAME:
        frames_NF = np.lib.stride_tricks.sliding_window_view(samples_T, TRIM_FRAME)[::TRIM_HOP]
        level_N = np.sqrt(np.square(frames_NF).mean(axis=1))
        (loud,) = np.nonzero(level_N >= np.abs(samples_T).max() * 10 ** (-TRIM_DB / 20))
        if len(loud):
            end = min(end, int(loud[-1]) * TRIM_HOP + TRIM_FRAME)
    kept = int(TRIM_KEEP * rate)
    return audio_T[max(0, int(start) - kept) : int(end) + kept]


def _decode(path: Path) -> tuple[Any, int]:
    """(samples [channels, T], fp32 array; rate in hertz) of the first audio stream."""
    import soundfile

    try:
        # The bytes, not the name: to FFmpeg a name that looks like an address would be one.
        with path.open("rb") as file:
            try:
                samples_TC, rate = soundfile.read(file, dtype="float32", always_2d=True)
                return samples_TC.T, rate
            except soundfile.LibsndfileError:
                file.seek(0)
                return _decode_by_ffmpeg(path, file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name an audio file") from None


def _decode_by_ffmpeg(path: Path, file: BinaryIO) -> tuple[Any, int]:
    """For what libsndfile does not read: m4a, webm, the sound of a film."""
    import av
    import numpy as np

    blocks: list[Any] = [np.zeros((1, 0), dtype=np.float32)]
    rate = 1
    try:
        with av.open(file, "r", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise UserError(f"{path}: has no audio in it; give a recording")
            resampler = av.AudioResampler(format="fltp")
            for frame in container.decode(container.streams.audio[0]):
                rate = frame.sample_rate
                blocks += [block.to_ndarray() for block in resampler.resample(frame)]
    except (av.FFmpegError, ValueError) as error:
        detail = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as audio ({detail}); convert it to WAV") from None
    return np.concatenate(blocks[1:] or blocks, axis=1), rate
