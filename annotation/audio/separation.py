"""Voice separated from its background, where there is one: from music by one model, from noise by another.

For music production names one of demucs' models (`htdemucs`); embedded is Spleeter's two-stem U-Net (MIT). Chunks,
fades and padding are those of `demucs.apply.apply_model`, which takes one recording at a time: here a batch goes across
them. For noise without music embedded is DeepFilterNet3.
"""

import difflib
import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from voxmill.core.audio import resample
from voxmill.core.config import Config
from voxmill.core.errors import UserError, first_line
from voxmill.core.local_copies import local_model
from voxmill.data.records import Background, Events, Separation, Stretch

if TYPE_CHECKING:
    from torch import Tensor

RATE = 44100
OVERLAP = 0.1
"""Share of a chunk that the next one takes, too."""
SPLEETER, DEEPFILTERNET = "spleeter", "deepfilternet3"
EMBEDDED: dict[Background, str] = {"music": SPLEETER, "noise": DEEPFILTERNET}
"""What `embedded` stands for, by what there is to separate from."""


class SeparationConfig(Config):
    """When to separate and with what."""

    mode: Literal["auto", "always", "never"] = "auto"
    """`auto` separates stretches where music or noise asks for it and it helps; `always` all of them, `never` none."""
    model: str = "embedded"
    """What separates from music: `embedded` (spleeter), deepfilternet3, a name that demucs knows, or FOLDER/NAME."""
    noise_model: str | None = "embedded"
    """What separates from noise without music: `embedded` (deepfilternet3), or as above; null: the same model."""
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
    backgrounds: list[Background] = []
    reasons: list[str] = []
    for stretch in events.stretches:
        background, why = _background(config, stretch)
        if background is None:
            continue
        reasons.append(why)
        if wanted and wanted[-1][1] == stretch.start and backgrounds[-1] == background:
            wanted[-1] = wanted[-1][0], stretch.end
        else:
            wanted.append((stretch.start, stretch.end))
            backgrounds.append(background)
    why = reasons[0] if reasons else "clean"
    return Separation(wanted=bool(wanted), why=why, wanted_in=tuple(wanted), backgrounds=tuple(backgrounds))


def _background(config: SeparationConfig, stretch: Stretch) -> tuple[Background | None, str]:
    if stretch.music_share >= config.max_music_share:
        return "music", f"music under {stretch.music_share:.0%} of the speech"
    if stretch.snr_db < config.min_snr_db:
        return "noise", f"speech to background {stretch.snr_db:.0f} dB"
    return None, ""


def separator_name(config: SeparationConfig, background: Background) -> str:
    """The model that separates from a background."""
    name = config.model if background == "music" or config.noise_model is None else config.noise_model
    if name == "embedded":
        # Where one model is for both, it is the one that can do both.
        return EMBEDDED[background if config.noise_model is not None else "music"]
    return name


def check_separator(name: str, key: str) -> None:
    """Refuses a name that no model has, before the first stretch needs it; loads nothing.

    Raises:
        UserError: neither voxmill nor demucs knows it, or its folder does not have it.
    """
    if name in EMBEDDED.values() or name.startswith("hf://"):
        return
    folder, _, own = name.rpartition("/")
    if folder:
        path = Path(local_model(folder))
        files = [file for pattern in (f"{own}.yaml", f"{own}.th", f"{own}-*.th") for file in path.glob(pattern)]
        if not files:
            raise UserError(f"{key}={name}: {folder} is no folder with {own}.yaml or {own}.th, a model of demucs")
        return
    known = [*EMBEDDED.values(), *demucs_names()]
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known[:13])}, and demucs' signatures"
        raise UserError(f"{key}={name}: neither voxmill nor demucs has such a model; {hint}")


def demucs_names() -> list[str]:
    """Names of the bags of models and of the single models that the installed demucs can fetch."""
    spec = importlib.util.find_spec("demucs")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "remote"
    lines = (folder / "files.txt").read_text(encoding="utf-8").splitlines()
    single = [line.split("-")[0] for line in lines if line.strip() and not line.startswith(("#", "root:"))]
    return sorted(path.stem for path in folder.glob("*.yaml")) + single


class VoiceModel(Protocol):
    """What separates voices from their background."""

    def __call__(self, recordings: Iterable[tuple[np.ndarray, int]]) -> Iterator[np.ndarray]:
        """The voice, float32 [samples], of each recording (mono float32 [samples], its rate), in order."""


class Separator:
    """The voices of recordings without their background.

    A network takes chunks of its own length (23 s embedded, 8 s Demucs), which overlap by a tenth and are faded into
    each other as `demucs.apply` does. Batches of whole chunks go across recordings; a last one that is shorter goes
    alone, unless the network fills it up to that length.

    Args:
        model: `spleeter`, the name of a demucs model, or `folder/name` of one in a folder, which may be a URI.
        weights: folder of Spleeter's weights (unused otherwise).

    Raises:
        UserError: demucs cannot load it, or it has no voice among what it separates.
    """

    def __init__(self, model: str, weights: Path | None = None, device: str = "cpu"):
        self.device = device
        # A core gains nothing by more at a time, and a chunk takes a quarter of a GB on its way.
        self.batch_size = 1 if device == "cpu" else 16
        loaded: Any
        if model == SPLEETER:
            from annotation.audio.spleeter import SpleeterVocals

            assert weights is not None
            loaded = SpleeterVocals.load(weights)
            loaded.blocks_together = 2 * self.batch_size if self.batch_size > 1 else 1
        else:
            from demucs.pretrained import get_model

            folder, _, name = ("", "", model) if model.startswith("hf://") else model.rpartition("/")
            repo = Path(local_model(folder)) if folder else None
            try:
                loaded = get_model(name, repo=repo)
            # It exits where a folder or a library is not there.
            except (Exception, SystemExit) as error:
                reason = first_line(error)
                raise UserError(f"separation.model={model}: demucs cannot load it ({reason})") from error
        loaded.to(device).eval()
        sources = list(loaded.sources)
        if "vocals" not in sources:
            raise UserError(f"separation.model={model}: it separates {', '.join(sources)} and no vocals; name another")
        vocals = sources.index("vocals")
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
