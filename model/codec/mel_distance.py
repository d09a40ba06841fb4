"""Multi-scale mel distance, as DAC defines it (arXiv 2306.06546, 3.5): AudioVAE's main loss and report Table 10's MelD.

Seven scales; a scale is the mean absolute difference of log10 mel magnitudes clamped at 1e-5, and the distance is the
sum over the scales. Different here: each row may have a band limit of its own, above which no mel band counts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NUM_MELS = (5, 10, 20, 40, 80, 160, 320)
WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
FLOOR = 1e-5


class MelDistance(nn.Module):
    """Distance of audio at one sample rate.

    Args:
        sample_rate: of the audio, in hertz.
        num_mels: mel bands of each scale (librosa's Slaney scale and norm, from 0 to the Nyquist frequency).
        windows: Hann windows of each scale in samples; a hop is a quarter.
    """

    def __init__(
        self, sample_rate: int, *, num_mels: Sequence[int] = NUM_MELS, windows: Sequence[int] = WINDOWS
    ) -> None:
        super().__init__()
        if len(num_mels) != len(windows):
            raise ValueError(f"{len(num_mels)} numbers of mel bands for {len(windows)} windows")
        import librosa

        self.windows = tuple(windows)
        for scale, (bands, window) in enumerate(zip(num_mels, windows, strict=True)):
            filters = librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bands)
            edges = librosa.mel_frequencies(n_mels=bands + 2, fmin=0.0, fmax=sample_rate / 2)
            self.register_buffer(f"filters_{scale}_MF", torch.from_numpy(filters), persistent=False)
            self.register_buffer(f"lower_{scale}_M", torch.from_numpy(edges[:bands]).float(), persistent=False)
            self.register_buffer(f"window_{scale}_N", torch.hann_window(window), persistent=False)

    def forward(self, x_BT: Tensor, y_BT: Tensor, nyquist_B: Tensor | None = None) -> Tensor:
        """Distance of each row, [B] fp32, 0 or more.

        Args:
            x_BT, y_BT: audio in [-1, 1].
            nyquist_B: hertz; mel bands that begin at or above it do not count. None: all count.
        """
        total_B = x_BT.new_zeros(len(x_BT), dtype=torch.float32)
        for scale in range(len(self.windows)):
            difference_BMT = (self._log_mel(x_BT, scale) - self._log_mel(y_BT, scale)).abs()
            difference_BM = difference_BMT.mean(dim=-1)
            if nyquist_B is None:
                total_B = total_B + difference_BM.mean(dim=-1)
            else:
                counts_BM = (self._buffer(f"lower_{scale}_M") < nyquist_B[:, None]).float()
                total_B = total_B + (difference_BM * counts_BM).sum(dim=-1) / counts_BM.sum(dim=-1)
        return total_B

    def _log_mel(self, x_BT: Tensor, scale: int) -> Tensor:
        window_N = self._buffer(f"window_{scale}_N")
        size = len(window_N)
        spectrum_BFT = torch.stft(x_BT.float(), size, size // 4, window=window_N, return_complex=True)
        # The root of a sum has no slope at zero; 1e-14 is far below the floor of 1e-5.
        magnitude_BFT = (spectrum_BFT.real.square() + spectrum_BFT.imag.square() + 1e-14).sqrt()
        return (self._buffer(f"filters_{scale}_MF") @ magnitude_BFT).clamp(min=FLOOR).log10()

    def _buffer(self, name: str) -> Tensor:
        return self.get_buffer(name)


def band_limit(x_BT: Tensor, nyquist_B: Tensor, sample_rate: int) -> Tensor:
    """Each row without the band above its own Nyquist frequency, [B, T]; rows of the full band are unchanged.

    The last twentieth of the band fades out, since a sharp edge would ring. Works on the whole row by FFT.

    Args:
        nyquist_B: hertz.
        sample_rate: of `x_BT`, hertz.
    """
    full_B = nyquist_B >= sample_rate / 2
    if bool(full_B.all()):
        return x_BT
    spectrum_BF = torch.fft.rfft(x_BT.float())
    frequency_F = torch.fft.rfftfreq(x_BT.shape[-1], d=1 / sample_rate).to(x_BT.device)
    position_BF = (frequency_F / nyquist_B[:, None] - 0.95) / 0.05
    keep_BF = 0.5 + 0.5 * torch.cos(torch.pi * position_BF.clamp(0, 1))
    limited_BT = torch.fft.irfft(spectrum_BF * keep_BF, n=x_BT.shape[-1])
    return torch.where(full_B[:, None], x_BT, limited_BT)
