"""Random crops for AudioVAE: a 16 kHz input, a 48 kHz target, each with the rate of its source (report 3.2).

Crop `k` of a run depends on the seed and on `k` alone, so any number of ranks sees the same crops in the same order and
a run resumes by a number. A crop that turns out unusable is replaced by the next draw of the same `k`.
"""

import math
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxmill.core.audio import SILENT_PEAK, AudioProblem, resample
from voxmill.core.errors import UserError
from voxmill.data.audio_sources import Clip, Skipped, read_clip

ATTEMPTS = 50
"""Draws for one crop before a corpus counts as unusable."""
MARGIN_SECONDS = 0.1
"""Read on both sides of a crop where the clip has it, so that resampling has no edge inside the crop."""


@dataclass(frozen=True)
class Crops:
    """A batch. `input_BT` at the encoder's rate, `target_BT` at the decoder's, both in [-1, 1].

    `rate_B` is the source's rate in hertz, int32, at most the decoder's: the decoder's condition, and twice the highest
    frequency that the source has.
    """

    input_BT: Tensor
    target_BT: Tensor
    rate_B: Tensor

    def to(self, device: torch.device) -> "Crops":
        """The same on a device."""
        return Crops(self.input_BT.to(device), self.target_BT.to(device), self.rate_B.to(device))


class CropSource:
    """Draws crops from clips, each second of audio equally often.

    Args:
        clips: all `seconds` long or longer.
        seconds: length of a crop; a whole number of latent frames.
        gain_db: level is changed by a gain drawn evenly from [-gain_db, gain_db], lowered where it would clip.
    """

    def __init__(
        self, clips: list[Clip], *, seconds: float, gain_db: float, seed: int, rate_in: int, rate_out: int
    ) -> None:
        self.clips, self.seconds, self.gain_db, self.seed = clips, seconds, gain_db, seed
        self.rate_in, self.rate_out = rate_in, rate_out
        self.skipped = Skipped()
        room = np.array([clip.seconds - seconds for clip in clips])
        assert (room >= -1e-9).all(), "a clip is shorter than the crop"
        # Even a clip as long as one crop can be drawn.
        self._ends = np.cumsum(np.maximum(room, 0) + seconds)

    def batch(self, first: int, count: int) -> Crops:
        """Crops `first` to `first + count` of the run."""
        return _joined([self.crop(index) for index in range(first, first + count)])

    def stream(self, first: int, count: int, *, every: int, readers: int) -> Generator[Crops, None, None]:
        """Batches of `count` crops without end, the first one from crop `first`, each next one `every` further on.

        `readers` threads read two batches ahead.
        """
        with ThreadPoolExecutor(readers) as pool:
            waiting: deque[list[Future[tuple[Tensor, Tensor, int]]]] = deque()
            try:
                while True:
                    while len(waiting) < 3:
                        waiting.append([pool.submit(self.crop, index) for index in range(first, first + count)])
                        first += every
                    yield _joined([future.result() for future in waiting.popleft()])
            finally:
                pool.shutdown(cancel_futures=True)

    def crop(self, index: int) -> tuple[Tensor, Tensor, int]:
        """(input [T_in], target [T_out], rate) of crop `index`.

        Raises:
            UserError: none of `ATTEMPTS` draws could be used; the message counts the reasons.
        """
        draw = np.random.default_rng([self.seed, index])
        for _ in range(ATTEMPTS):
            clip = self.clips[int(np.searchsorted(self._ends, draw.uniform(0, self._ends[-1]), side="right"))]
            start = draw.uniform(0, max(clip.seconds - self.seconds, 0))
            gain = draw.uniform(-self.gain_db, self.gain_db)
            try:
                return self._cut(clip, start, gain)
            except AudioProblem as problem:
                self.skipped.add(problem.reason, clip.name)
        raise UserError(f"none of {ATTEMPTS} crops of the corpus could be used: {self.skipped}; fix or remove these")

    def _cut(self, clip: Clip, start_seconds: float, gain_db: float) -> tuple[Tensor, Tensor, int]:
        rate = clip.sample_rate
        length = min(math.ceil(self.seconds * rate), clip.num_samples)
        start = min(int(start_seconds * rate), clip.num_samples - length)
        before = min(round(MARGIN_SECONDS * rate), start)
        after = min(round(MARGIN_SECONDS * rate), clip.num_samples - start - length)
        audio = read_clip(clip, start - before, before + length + after)
        inner = np.abs(audio[before : before + length]).max()
        if inner < SILENT_PEAK:
            raise AudioProblem("silent", clip.name)
        gain = min(10 ** (gain_db / 20), 0.99 / float(np.abs(audio).max()))
        return *self.views(audio * np.float32(gain), rate, before / rate), min(rate, self.rate_out)

    def views(self, audio: np.ndarray, rate: int, start_seconds: float) -> tuple[Tensor, Tensor]:
        """(input of the encoder [T_in], target of the decoder [T_out]) from `start_seconds` of `audio` on."""
        input_T, target_T = (
            _piece(resample(audio, rate, target), round(start_seconds * target), round(self.seconds * target))
            for target in (self.rate_in, self.rate_out)
        )
        return input_T, target_T


def _joined(crops: list[tuple[Tensor, Tensor, int]]) -> Crops:
    inputs, targets, rate = zip(*crops, strict=True)
    return Crops(torch.stack(inputs), torch.stack(targets), torch.tensor(rate, dtype=torch.int32))


def _piece(audio: np.ndarray, start: int, length: int) -> Tensor:
    piece = audio[start : start + length]
    # Resampling rounds lengths: a sample may be missing at the end.
    return torch.from_numpy(np.pad(piece, (0, length - len(piece))).clip(-1, 1).astype(np.float32))


def hold_out(clips: list[Clip], names: tuple[str, ...], share: float) -> tuple[list[Clip], list[Clip]]:
    """(clips to train on, clips held out), split by recording: no recording is on both sides.

    Args:
        names: recordings to hold out; an empty tuple takes those whose name's hash falls into the first `share`.

    Raises:
        UserError: a name that no recording has; nothing is left on a side.
    """
    import zlib

    known = {clip.recording for clip in clips}
    for name in names:
        if name not in known:
            near = ", ".join(sorted(known)[:5])
            raise UserError(f"data.held_out: no recording {name!r}; there are {near} ...")
    chosen = set(names) if names else {name for name in known if zlib.crc32(name.encode()) / 2**32 < share}
    held = [clip for clip in clips if clip.recording in chosen]
    rest = [clip for clip in clips if clip.recording not in chosen]
    if not held or not rest:
        raise UserError(
            f"{len(known)} recordings leave {len(rest)} clips to train on and {len(held)} held out; "
            "name some in data.held_out, or change data.held_out_share"
        )
    return rest, held
