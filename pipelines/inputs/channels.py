"""Which channels of a recording are read: their mean, one of them, or each as a speaker of its own.

A call has a speaker a channel: each is loud where the other is not. Stereo sound of one scene has the same loudness at
the same time in both channels, whatever the balance between them. Film sound has its speech in the centre.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

Channels: TypeAlias = Literal["auto", "mix", "split"] | int
"""What is wanted: found by the sound, the mean, each by itself, or one channel from 0."""
FRAME_SECONDS = 0.02
_GROUP = 5
"""Frames that are compared together: 0.1 s."""
_ACTIVE = 1e-3
"""Power over which a channel is active: -30 dB of its own loud moments."""
_FAINT = 1e-4
"""A channel whose loud moments are -40 dB of the other's holds nobody."""
_LOUDER = 10.0
"""Power by which one channel outdoes the other where its speaker speaks alone: 10 dB."""
_TINY = 1e-12
_INAUDIBLE = 1e-5
_TURNED_DOWN = 0.01
_HELD = 5
"""Frames around what is heard of a speaker in which the channel stays as it is."""
_MIN_ALONE_SECONDS = 1.0
_MAX_SHARED = 0.1
_MAX_ENVELOPE = 0.3
_MIN_CENTRE = 0.01
_CANCELLED = 0.1
_SIX = ("FL", "FR", "FC", "LFE", "BL", "BR")
_LAYOUTS = {6: _SIX, 8: (*_SIX, "SL", "SR")}
"""Layouts of files that name none, as WAVs of film sound do."""


def mono(samples: np.ndarray, channel: int | None) -> np.ndarray:
    """One channel of float32 [channels, T], or the mean of all; what has one channel has no other."""
    if channel is None and len(samples) > 1:
        mean: np.ndarray = samples.mean(axis=0, dtype=np.float32)
        return mean
    one: np.ndarray = samples[channel if channel is not None and channel < len(samples) else 0]
    return one


def centre(names: tuple[str, ...]) -> int | None:
    """The centre channel of three and more; None where there is none."""
    if len(names) < 3:
        return None
    names = names if set(names) != {"NONE"} else _LAYOUTS.get(len(names), ())
    return names.index("FC") if "FC" in names else None


def candidates(channels: Channels, names: tuple[str, ...]) -> list[int | None]:
    """What a scan has to listen to, the mean as None; the first one is what is read unless another is chosen."""
    count = len(names)
    if isinstance(channels, int):
        return [channels if channels < count else None]
    if channels == "mix" or count == 1:
        return [None]
    if channels == "split":
        return list(range(count))
    if count == 2:
        return [None, 0, 1]
    middle = centre(names)
    return [None] if middle is None else [None, middle]


def chosen(
    channels: Channels, power: dict[int | None, float], frames: dict[int | None, np.ndarray], shared: np.ndarray
) -> list[int | None]:
    """The channels to read, of the candidates that were listened to.

    Args:
        power: of each candidate. frames: its mean square in frames of `FRAME_SECONDS`.
        shared: mean product of the two channels of stereo in those frames.
    """
    found = list(power)
    if channels == "mix" or len(found) == 1:
        return found[:1]
    if channels == "split":
        return found
    if len(found) == 2:
        middle = found[1]
        return [middle if power[middle] >= _MIN_CENTRE * power[None] else None]
    if is_apart(frames[0], frames[1], shared):
        return [0, 1]
    louder = 0 if power[0] >= power[1] else 1
    # Uncorrelated channels leave half of one channel's power in the mean; below a tenth they cancel.
    return [louder if power[None] < _CANCELLED * power[louder] else None]


def is_apart(left: np.ndarray, right: np.ndarray, shared: np.ndarray) -> bool:
    """Whether each of two channels has a speaker of its own.

    Args:
        left, right: mean square in frames of `FRAME_SECONDS`. shared: mean product of both in those frames.
    """
    loud = [level(side) for side in (left, right)]
    left, right, shared = _grouped(left), _grouped(right), _grouped(shared)
    if not len(left):
        return False
    if min(loud) <= _FAINT * max(loud):
        return False
    ours, theirs = left / loud[0], right / loud[1]
    active = (ours > _ACTIVE) | (theirs > _ACTIVE)
    left_alone, right_alone = active & (ours > _LOUDER * theirs), active & (theirs > _LOUDER * ours)
    if min(left_alone.sum(), right_alone.sum()) * _GROUP * FRAME_SECONDS < _MIN_ALONE_SECONDS:
        return False
    both = active & ~left_alone & ~right_alone
    correlated = both & (np.abs(shared) > 0.5 * np.sqrt(left * right))
    if correlated.sum() > _MAX_SHARED * active.sum():
        return False
    levels = [np.log(side[active] + _ACTIVE / 10) for side in (ours, theirs)]
    deviations = [float(level.std()) for level in levels]
    covariance = float(((levels[0] - levels[0].mean()) * (levels[1] - levels[1].mean())).mean())
    return covariance < _MAX_ENVELOPE * deviations[0] * deviations[1]


def level(frames: np.ndarray) -> float:
    """Power of a channel's loud moments, of its mean square in frames of `FRAME_SECONDS`."""
    groups = _grouped(frames)
    return float(np.quantile(groups, 0.99)) if len(groups) else 0.0


def without_crosstalk(
    own: np.ndarray, others: Sequence[np.ndarray], levels: tuple[float, Sequence[float]], rate: int
) -> np.ndarray:
    """A speaker's channel, turned down by 40 dB where somebody else is louder by 10 dB and the speaker is not heard.

    What leaks into a channel would otherwise be cut out of it as its own speaker's. Louder is meant of the channels'
    own loud moments: a quiet line is no quiet speaker.

    Args:
        own: float32 [T]. others: the other channels, likewise. levels: `level` of each.
    """
    frame = round(rate * FRAME_SECONDS)
    ours = _powers(own, frame) / max(levels[0], _TINY)
    theirs = np.max(
        [_powers(other, frame) / max(of, _TINY) for other, of in zip(others, levels[1], strict=True)], axis=0
    )
    leaked = (theirs > _ACTIVE) & (theirs > _LOUDER * ours) & (ours > _INAUDIBLE)
    # Its own words begin and end softly.
    heard = (ours > _ACTIVE) & ~leaked
    near = np.convolve(heard, np.ones(2 * _HELD + 1), mode="same") > 0
    gain = np.where(leaked & ~near, np.float32(_TURNED_DOWN), np.float32(1))
    if not (gain < 1).any():
        return own
    middles = (np.arange(len(gain)) + 0.5) * frame
    turned: np.ndarray = own * np.interp(np.arange(len(own)), middles, gain).astype(np.float32)
    return turned


def _powers(samples: np.ndarray, frame: int) -> np.ndarray:
    padded = np.pad(samples, (0, -len(samples) % frame))
    powers: np.ndarray = np.square(padded.reshape(-1, frame)).mean(axis=1, dtype=np.float64)
    return powers


def _grouped(frames: np.ndarray) -> np.ndarray:
    whole = len(frames) // _GROUP * _GROUP
    means: np.ndarray = frames[:whole].reshape(-1, _GROUP).mean(axis=1, dtype=np.float64)
    return means
