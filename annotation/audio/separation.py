"""Voice separated from its background, only where there is a background.

Production names one of demucs' models (`htdemucs`); embedded is Spleeter's two-stem U-Net (MIT). Chunks, fades and
padding are those of `demucs.apply.apply_model`, which takes one recording at a time: here a batch goes across them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from voxmill.core.audio import resample
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model
from voxmill.data.records import Events, Separation, Stretch

if TYPE_CHECKING:
    from torch import Tensor

RATE = 44100
OVERLAP = 0.1
"""Share of a chunk that the next one takes, too."""


class SeparationConfig(Config):
    """When to separate and with what."""

    mode: Literal["auto", "always", "never"] = "auto"
    """`auto` separates stretches where music or noise asks for it and it helps; `always` all of them, `never` none."""
    model: str = "embedded"
    """`embedded` (Spleeter), or the name of a Demucs model."""
    max_music_share: float = 0.2
    """`auto`: a stretch with a larger share of music (0..1) under its speech is separated."""
    min_snr_db: float = 12.0
    """`auto`: a stretch with a lower signal-to-noise ratio, in dB, is separated."""
    min_gain_dnsmos_bak: float = 0.1
    """The separated voice is kept only if DNSMOS BAK rises by this much (scale 1..5)."""
    max_loss_dnsmos_sig: float = 0.3
    """The separated voice is dropped if DNSMOS SIG falls by more than this (scale 1..5)."""


def plan_separation(config: SeparationConfig, events: Events) -> Separation:
    """Which stretches of a recording go through separation, and in a few words why the first of them does."""
    if config.mode != "auto":
        return Separation(wanted=config.mode == "always", why=f"mode {config.mode}")
    wanted: list[tuple[float, float]] = []
    reasons: list[str] = []
    for stretch in events.stretches:
        if why := _why(config, stretch):
            reasons.append(why)
            if wanted and wanted[-1][1] == stretch.start:
                wanted[-1] = wanted[-1][0], stretch.end
            else:
                wanted.append((stretch.start, stretch.end))
    return Separation(wanted=bool(wanted), why=reasons[0] if reasons else "clean", wanted_in=tuple(wanted))


def _why(config: SeparationConfig, stretch: Stretch) -> str:
    if stretch.music_share >= config.max_music_share:
        return f"music under {stretch.music_share:.0%} of the speech"
    if stretch.snr_db < config.min_snr_db:
        return f"speech to background {stretch.snr_db:.0f} dB"
    return ""


class Separator:
    """The voices of recordings without their background.

    A network takes chunks of its own length (23 s embedded, 8 s Demucs), which overlap by a tenth and are faded into
    each other as `demucs.apply` does. Batches of whole chunks go across recordings; a last one that is shorter goes
    alone, unless the network fills it up to that length.

    Args:
        model: `embedded`, the name of a demucs model, or `folder/name` of one in a folder, which may be a URI.
        weights: folder of the embedded weights (unused otherwise).
    """

    def __init__(self, model: str, weights: Path | None = None, device: str = "cpu"):
        self.device = device
        # A core gains nothing by more at a time, and a chunk takes a quarter of a GB on its way.
        self.batch_size = 1 if device == "cpu" else 16
        loaded: Any
        if model == "embedded":
            from annotation.audio.spleeter import SpleeterVocals

            assert weights is not None
            loaded = SpleeterVocals.load(weights)
            loaded.blocks_together = 2 * self.batch_size if self.batch_size > 1 else 1
        else:
            from demucs.pretrained import get_model

            folder, _, name = model.rpartition("/")
            repo = Path(local_model(folder)) if folder else None
            try:
                loaded = get_model(name, repo=repo)
            except Exception as error:
                raise UserError(f"separation.model={model}: demucs cannot load it ({error})") from error
        loaded.to(device).eval()
        vocals = list(loaded.sources).index("vocals")
        # One of demucs' models may be several networks, whose voices are added up in these shares.
        bag = getattr(loaded, "models", None)
        shares = [weights_of_sources[vocals] for weights_of_sources in loaded.weights] if bag is not None else [1.0]
        self._networks = [
            _Network(network, vocals, share / sum(shares), device)
            for network, share in zip([loaded] if bag is None else bag, shares, strict=True)
        ]

    def __call__(self, recordings: Iterable[tuple[np.ndarray, int]]) -> Iterator[np.ndarray]:
        """The voice, float32 [samples], of each recording (mono float32 [samples], its rate), in order."""
        waiting: deque[_Recording] = deque()
        for audio, rate in recordings:
            recording = _Recording(resample(audio, rate, RATE), rate, len(audio))
            waiting.append(recording)
            for network in self._networks:
                network.add(recording, self.batch_size)
            while waiting and not waiting[0].open_chunks:
                yield waiting.popleft().finished()
        for network in self._networks:
            network.finish()
        while waiting:
            yield waiting.popleft().finished()


@dataclass(slots=True)
class _Recording:
    """A recording at `RATE`, [T], and its voice so far; `num_samples` at `rate` are wanted."""

    mono: np.ndarray
    rate: int
    num_samples: int
    voice: np.ndarray = field(init=False)
    open_chunks: int = 0

    def __post_init__(self) -> None:
        self.voice = np.zeros(len(self.mono), dtype=np.float32)

    def finished(self) -> np.ndarray:
        voice = resample(self.voice, RATE, self.rate)[: self.num_samples]
        return np.pad(voice, (0, self.num_samples - len(voice))).astype(np.float32, copy=False)


class _Chunk(NamedTuple):
    """A stretch of a recording as a network gets it, [2,T], and what its voice is multiplied by, [length]."""

    recording: _Recording
    offset: int
    mix_CT: "Tensor"
    weight: np.ndarray


class _Network:
    """A separating network with the chunks that wait for a batch."""

    def __init__(self, network: Any, vocals: int, share: float, device: str):
        self._network, self._vocals, self._share, self._device = network, vocals, share, device
        self._size = int(network.samplerate * network.segment)
        ramp = np.arange(1, self._size // 2 + 1, dtype=np.float32)
        self._fade = np.concatenate([ramp, np.arange(self._size - self._size // 2, 0, -1, dtype=np.float32)])
        self._fade /= self._fade.max()
        self._waiting: list[_Chunk] = []

    def add(self, recording: _Recording, batch_size: int) -> None:
        """Computes a recording's chunks, except those that wait for others to fill a batch."""
        import torch
        from demucs.apply import TensorChunk

        length = len(recording.mono)
        mono = np.ascontiguousarray(recording.mono, dtype=np.float32)
        mix_BCT = torch.from_numpy(mono).expand(1, 2, -1)
        offsets = range(0, length, int((1 - OVERLAP) * self._size))
        total = np.zeros(length, dtype=np.float32)
        for offset in offsets:
            total[offset : offset + self._size] += self._fade[: length - offset]
        recording.open_chunks += len(offsets)
        for offset in offsets:
            piece: Any = TensorChunk(mix_BCT, offset, self._size)  # type: ignore[no-untyped-call]
            (mix_CT,) = piece.padded(self._filled(piece.length))
            end = offset + piece.length
            weight = self._share * self._fade[: piece.length] / total[offset:end]
            chunk = _Chunk(recording, offset, mix_CT, weight)
            if mix_CT.shape[-1] != self._filled(self._size):
                self._separate([chunk])
                continue
            self._waiting.append(chunk)
            if len(self._waiting) == batch_size:
                self.finish()

    def finish(self) -> None:
        """Computes what waits."""
        if self._waiting:
            self._separate(self._waiting)
        self._waiting = []

    def _filled(self, length: int) -> int:
        """Samples that the network wants to be given for a chunk of this length."""
        return int(self._network.valid_length(length)) if hasattr(self._network, "valid_length") else length

    def _separate(self, chunks: list[_Chunk]) -> None:
        import torch
        from demucs.utils import center_trim

        with torch.inference_mode():
            mix_BCT = torch.stack([chunk.mix_CT for chunk in chunks]).to(self._device)
            voices_BT = self._network(mix_BCT)[:, self._vocals].mean(1).cpu()
        for chunk, voice_T in zip(chunks, voices_BT, strict=True):
            length = len(chunk.weight)
            voice = center_trim(voice_T, length).numpy()
            chunk.recording.voice[chunk.offset : chunk.offset + length] += chunk.weight * voice
            chunk.recording.open_chunks -= 1
