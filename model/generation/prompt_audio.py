"""A recording of a speaker as latent patches (report 3.4, spec 4.1): any format, any rate, mono, padded, encoded.

Decoded by libsndfile, resampled by soxr's HQ to the length that librosa gives: patches equal the released code's.
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.codec.audio_vae import AudioVAE
from voxmill.core.audio import AudioProblem, Reason, Samples, check, decode, mono, resample
from voxmill.core.errors import UserError

Side = Literal["left", "right"]
TRIM_DB, TRIM_FRAME, TRIM_HOP, TRIM_KEEP = 35.0, 2048, 512, 0.2
"""Silence is this far below the peak; frame and hop in samples; seconds of it that stay at both ends."""
_FIXES: dict[Reason, str] = {
    "too_short": "give 3 to 10 s of speech",
    "silent": "give a recording of speech",
    "non_finite": "export it again",
    "not_audio": "convert it to WAV",
    "decode_error": "convert it to WAV",
}


def load_prompt(path: str | Path, vae: AudioVAE, *, patch_size: int, pad: Side, trim: bool = False) -> Tensor:
    """Latent patches [T, patch_size, D] of a recording, fp32 on the CPU.

    Args:
        pad: where zeros fill up the patches: "right" for a reference, "left" for a prompt, whose end must touch the
            generated speech.
        trim: cut silence at both ends first, except 200 ms.

    Raises:
        UserError: the file is missing, no readable audio, silent, not finite or shorter than 0.1 s; names the file.
    """
    rate = vae.config.sample_rate
    audio_T = read_audio(path, rate=rate)
    if trim:
        audio_T = trim_silence(audio_T, rate=rate)
    return encode_prompt(audio_T, vae, patch_size=patch_size, pad=pad)


@torch.no_grad()
def encode_prompt(audio_T: Tensor, vae: AudioVAE, *, patch_size: int, pad: Side) -> Tensor:
    """Latent patches [T, patch_size, D] of mono audio in [-1, 1] at the encoder's rate, fp32 on the CPU."""
    missing = -len(audio_T) % (patch_size * vae.hop)
    padded_T = F.pad(audio_T, (missing, 0) if pad == "left" else (0, missing))
    latents_DL = vae.encode(padded_T[None].to(vae.device))[0]
    patches_TPD: Tensor = latents_DL.T.unflatten(0, (-1, patch_size)).cpu()
    return patches_TPD


def read_audio(path: str | Path, *, rate: int) -> Tensor:
    """A recording as mono fp32 [T] at `rate` hertz; channels are averaged. Errors as in `load_prompt`."""
    try:
        samples_TC, file_rate = decode(path)
        samples_T = mono(samples_TC)
        check(samples_T, file_rate)
    except AudioProblem as problem:
        fix = _FIXES.get(problem.reason, "name an audio file")
        raise UserError(f"{path}: {problem.detail}; {fix}") from None
    return torch.from_numpy(np.ascontiguousarray(to_rate(samples_T, file_rate, rate=rate)))


def to_rate(samples_T: Samples, file_rate: int, *, rate: int) -> Samples:
    """Mono samples [T] at `rate` hertz, ceil(T * rate / file_rate) of them, as librosa gives."""
    if file_rate == rate:
        return samples_T
    length = math.ceil(len(samples_T) * (rate / file_rate))
    resampled_T = resample(samples_T, file_rate, rate)[:length]
    return np.pad(resampled_T, (0, length - len(resampled_T)))


def trim_silence(audio_T: Tensor, *, rate: int) -> Tensor:
    """`audio_T` without silence at its ends, except 0.2 s.

    The end is the earlier of two: where the level falls 35 dB below the loudest frame, and the last whole frame whose
    level is within 35 dB of the peak *sample*, which also cuts a tail of background noise.
    """
    import librosa

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
