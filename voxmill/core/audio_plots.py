"""Pictures of audio for a run's tracker and for reports."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mel_picture(audio: Mapping[str, NDArray[np.float32]], sample_rate: int, nyquist: float) -> "Figure":
    """Log mel spectrograms side by side on one colour scale.

    Args:
        audio: mono samples [T] by title. sample_rate: of all of them, hertz. nyquist: highest frequency shown, hertz.
    """
    import librosa
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(audio), 3.2), layout="constrained")
    for axes, (title, samples) in zip(figure.subplots(1, len(audio), squeeze=False)[0], audio.items(), strict=True):
        mel = librosa.feature.melspectrogram(
            y=samples, sr=sample_rate, n_fft=2048, hop_length=480, n_mels=80, fmax=nyquist
        )
        axes.imshow(
            10 * np.log10(mel + 1e-8),
            origin="lower",
            aspect="auto",
            vmin=-70,
            vmax=30,
            cmap="magma",
            extent=(0, len(samples) / sample_rate, 0, 80),
        )
        axes.set(title=title, xlabel="seconds", ylabel=f"mel band, to {nyquist / 1000:g} kHz")
    return figure
