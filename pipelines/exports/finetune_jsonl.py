"""Clips as the released fine-tuning scripts read them, in a JSONL.

Its keys are `audio, text, ref_audio, duration, ref_duration, dataset_id`.

A described clip's text starts with `(description)`. Audio becomes 16 kHz mono, which the released loader asks for (its
validator refuses other rates), and paths are absolute, because its trainer resolves relative ones against the working
directory and its validator against the manifest; in object storage they are URIs. Audio is written as it comes; the
manifest last, whole.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from annotation.descriptions.cleaning import prefixed
from voxmill.core.audio import RATE_16K, Samples, encode_flac, resample
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.files import atomic_file, make_parents
from voxmill.core.hashing import sha256_text, stable_fraction
from voxmill.core.storage import absolute, uri
from voxmill.data.description_kinds import DEFAULT_SHARES, KindShares, weights_of
from voxmill.data.records import DESCRIPTION_AXES, Axis, Description, Mode, Reference
from voxmill.data.transcript import plain_text
from voxmill.data.verified import VerifiedRule, admits


class FinetuneConfig(Config):
    """`modes`: which rows a clip gives, as far as it can. `descriptions`: rows a clip and mode with different texts.

    Clips longer than `max_seconds` are left out: the released trainer warns of running out of memory from 30 s on.
    """

    modes: tuple[Mode, ...] = ("basic", "design", "reference", "controllable")
    """Rows that are written of each clip, where its labels allow them."""
    descriptions: int = 1
    """Rows of a clip and mode, each with another description."""
    kinds: KindShares = DEFAULT_SHARES
    """What these modes show, by shares: descriptions of the voice (design), the delivery (style) or both; no others."""
    verified: VerifiedRule | None = None
    """Verdicts on descriptions that are written, by attribute, as `clips.verified` of a recipe; null takes all."""
    max_seconds: float = 30.0
    """Longer clips are left out; the released trainer runs out of memory from 30 s on."""
    dataset_id: int = 0
    """Value of the column of that name."""


@dataclass(frozen=True)
class FinetuneClip:
    """One clip: float32 [samples] at `rate`, with its labels. `modes` as `annotation.corpus.eligibility` gives them."""

    clip_id: str
    audio: Samples
    rate: int
    text: str
    modes: Sequence[Mode]
    descriptions: Sequence[Description]
    references: Sequence[Reference]


@dataclass(frozen=True)
class _Row:
    clip_id: str
    text: str
    reference: str | None


class _Entry(TypedDict):
    audio: str
    text: str
    duration: float
    dataset_id: int
    ref_audio: NotRequired[str | None]
    ref_duration: NotRequired[float | None]


def export_finetune(folder: Path, groups: Iterable[Iterable[FinetuneClip]], config: FinetuneConfig) -> dict[str, int]:
    """Writes `folder/audio/*.flac` and `folder/train.jsonl`, one row a clip and mode.

    Args:
        groups: clips with their references, such as those of a bucket, each in any order; the rows of one group are
            held at a time. A reference that is not in its clip's group is counted and its row left out.

    Returns:
        Counts: rows by mode, and `too_long`, `no_text`, `empty_audio`, `reference_missing`.

    Raises:
        UserError: the folder holds a manifest already, or no row came out.
    """
    manifest = folder / "train.jsonl"
    if manifest.exists():
        raise UserError(f"{manifest} exists; name another folder or remove it")
    if "continuation" in config.modes:
        raise UserError("finetune.modes: continuation has no rows of its own, it is learned from basic; leave it out")
    make_parents(folder / "audio" / "clip.flac")
    counts: Counter[str] = Counter()
    has_references, num_rows = False, 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as entries:
        for group in groups:
            for entry in _entries(folder, group, config, counts):
                has_references |= "ref_audio" in entry
                num_rows += 1
                entries.write(f"{json.dumps(entry, ensure_ascii=False)}\n")
        if not num_rows:
            raise UserError(f"{folder}: none of the clips gives a row of the modes {', '.join(config.modes)}")
        entries.seek(0)
        with atomic_file(manifest) as file:
            for line in entries:
                file.write((_with_reference_keys(line) if has_references else line).encode())
    return dict(counts)


def _entries(
    folder: Path, group: Iterable[FinetuneClip], config: FinetuneConfig, counts: Counter[str]
) -> Iterator[_Entry]:
    """Rows of one group whose references are in it; writes its clips' audio."""
    seconds: dict[str, float] = {}
    rows: list[tuple[Mode, _Row]] = []
    for clip in group:
        if not plain_text(clip.text):
            counts["no_text"] += 1
        elif not len(clip.audio):
            counts["empty_audio"] += 1
        elif len(clip.audio) / clip.rate > config.max_seconds:
            counts["too_long"] += 1
        elif clip.clip_id not in seconds:
            seconds[clip.clip_id] = _write_audio(folder, clip)
            rows += _rows(clip, config)
    for mode, row in rows:
        if row.reference is not None and row.reference not in seconds:
            counts["reference_missing"] += 1
            continue
        counts[mode] += 1
        yield _entry(folder, row, seconds, config)


def _with_reference_keys(line: str) -> str:
    """The loader infers columns from all rows: one that has a reference needs the keys in every row."""
    entry = {"ref_audio": None, "ref_duration": None} | json.loads(line)
    order = ("audio", "text", "duration", "dataset_id", "ref_audio", "ref_duration")
    return json.dumps({key: entry[key] for key in order}, ensure_ascii=False) + "\n"


def _write_audio(folder: Path, clip: FinetuneClip) -> float:
    samples_T = resample(clip.audio, clip.rate, RATE_16K)
    _audio_path(folder, clip.clip_id).write_bytes(encode_flac(samples_T, RATE_16K))
    return len(samples_T) / RATE_16K


def _audio_path(folder: Path, clip_id: str) -> Path:
    return absolute(folder) / "audio" / f"{clip_id}.flac"


def _rows(clip: FinetuneClip, config: FinetuneConfig) -> Iterator[tuple[Mode, _Row]]:
    plain, reference = plain_text(clip.text), clip.references[0].clip_id if clip.references else None
    for mode in config.modes:
        if mode not in clip.modes:
            continue
        if mode == "basic":
            yield mode, _Row(clip.clip_id, plain, None)
        elif mode == "reference":
            yield mode, _Row(clip.clip_id, plain, reference)
        else:
            for text in _some(clip.descriptions, mode, config, f"{clip.clip_id}/{mode}"):
                yield mode, _Row(clip.clip_id, prefixed(text, plain), None if mode == "design" else reference)


def _some(descriptions: Sequence[Description], mode: Mode, config: FinetuneConfig, seed: str) -> list[str]:
    """Different texts, each of a kind by its share, in an order that only the seed and the texts decide."""
    weights = {
        axis: weight
        for axis, weight in zip(DESCRIPTION_AXES, weights_of(mode, config.kinds) or (), strict=True)
        if weight
    }
    left = {
        axis: sorted(
            {one.text for one in descriptions if one.axis == axis and admits(config.verified, one)},
            key=lambda text: sha256_text(f"{seed}/{text}"),
            reverse=True,
        )
        for axis in weights
    }
    texts: list[str] = []
    while len(texts) < config.descriptions and any(left.values()):
        axis = _drawn({axis: weights[axis] for axis in weights if left[axis]}, f"{seed}/{len(texts)}")
        text = left[axis].pop()
        if text not in texts:
            texts.append(text)
    return texts


def _drawn(weights: Mapping[Axis, float], seed: str) -> Axis:
    """One of the kinds in proportion to their weights."""
    roll = stable_fraction(seed) * sum(weights.values())
    for axis, weight in weights.items():
        roll -= weight
        if roll < 0:
            return axis
    return axis


def _entry(folder: Path, row: _Row, seconds: dict[str, float], config: FinetuneConfig) -> _Entry:
    entry: _Entry = {
        "audio": uri(_audio_path(folder, row.clip_id)),
        "text": row.text,
        "duration": round(seconds[row.clip_id], 4),
        "dataset_id": config.dataset_id,
    }
    if row.reference is not None:
        entry["ref_audio"] = uri(_audio_path(folder, row.reference))
        entry["ref_duration"] = round(seconds[row.reference], 4)
    return entry
