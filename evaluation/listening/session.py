"""A randomised double-blind listening session as one page: N-MOS, S-MOS and I-MOS (report 4.7).

Neither the listener nor who hands out the page sees which system speaks: trials have numbers, and the key to them is a
file of its own. All clips have one loudness, since the louder of two sounds better.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import JsonValue

from evaluation.metrics.utterance_score import UtteranceScore
from voxmill.core.audio import decode, encode_flac, mono
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import sha256_bytes, sha256_text

FORMAT = "voxmill-listening-1"
Scale = Literal["N", "S", "I"]
SCALES: dict[Scale, str] = {"N": "naturalness", "S": "similarity", "I": "instruction"}
LOUDNESS = -23.0
MAX_BYTES = 200_000_000
Scores = Mapping[tuple[str, str], Sequence[UtteranceScore]]
"""Scores by (benchmark, system)."""


@dataclass(frozen=True)
class Session:
    """A session's files. `page` goes to listeners, `key` stays. `skipped`: utterances without what a scale needs."""

    id: str
    page: Path
    key: Path
    trials: int
    skipped: dict[str, int]


class _Spoken(NamedTuple):
    system: str
    score: UtteranceScore


@dataclass(frozen=True, slots=True)
class _Trial:
    scale: Scale
    benchmark: str
    spoken: _Spoken


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """What a trial's number stands for."""

    scale: Scale
    system: str
    item: str


def build_session(
    scores: Scores, folder: Path, *, scales: Sequence[str] = ("N", "S", "I"), limit: int = 20, seed: int = 0
) -> Session:
    """Writes `listen.html` and `key.json` of a session.

    Args:
        scores: as `results.records.read_scores` returns them.
        scales: of N (how natural), S (how like the reference), I (how well the instruction is followed).
        limit: utterances of each benchmark, drawn at random among those that every system has spoken.

    Raises:
        UserError: an unknown scale, nothing to rate, or a page too large for a browser.
    """
    unknown = [scale for scale in scales if scale not in SCALES]
    if unknown or not scales:
        raise UserError(f"scale {unknown[0] if unknown else ''!r} is unknown; use some of N, S, I")
    wanted: list[Scale] = [scale for name in scales for scale in SCALES if scale == name]
    generator = np.random.default_rng(seed)
    trials: list[_Trial] = []
    skipped: dict[str, int] = dict.fromkeys(scales, 0)
    for benchmark in dict.fromkeys(name for name, _ in scores):
        for utterance in _drawn(scores, benchmark, limit, generator):
            for scale in wanted:
                if all(_fits(spoken.score, scale) for spoken in utterance):
                    trials += [_Trial(scale, benchmark, spoken) for spoken in utterance]
                else:
                    skipped[scale] += 1
    if not trials:
        raise UserError("nothing to rate: no utterance that all systems have spoken has what these scales need")
    generator.shuffle(trials)
    clips: dict[str, str] = {}
    shown: list[dict[str, JsonValue]] = []
    key: dict[str, KeyEntry] = {}
    for number, trial in enumerate(trials, start=1):
        name = f"t{number:04d}"
        score = trial.spoken.score
        one: dict[str, JsonValue] = {
            "trial": name,
            "scale": trial.scale,
            "clip": _clip(score.wav, clips),
            "text": score.text,
        }
        if trial.scale == "S" and score.reference is not None:
            one["reference"] = _clip(score.reference, clips)
        if trial.scale == "I":
            one["instruction"] = score.description
        shown.append(one)
        key[name] = KeyEntry(trial.scale, trial.spoken.system, f"{trial.benchmark}/{score.id}")
    size = sum(len(clip) for clip in clips.values())
    if size > MAX_BYTES:
        raise UserError(f"the page would hold {size / 1e6:.0f} MB of audio; lower --limit")
    id_ = sha256_text(json.dumps([shown, sorted(clips)], sort_keys=True))[:12]
    session = Session(
        id_, folder / "listen.html", folder / "key.json", len(shown), {s: n for s, n in skipped.items() if n}
    )
    write_atomically(session.page, _page({"format": FORMAT, "session": id_, "trials": shown, "clips": clips}))
    entries = {name: asdict(entry) for name, entry in key.items()}
    plain = {"format": FORMAT, "session": id_, "seed": seed, "trials": entries}
    write_atomically(session.key, json.dumps(plain, indent=1))
    return session


def _fits(score: UtteranceScore, scale: Scale) -> bool:
    """Whether an utterance has what a scale needs."""
    return bool({"N": score.wav, "S": score.reference, "I": score.description}[scale])


def _drawn(scores: Scores, benchmark: str, limit: int, generator: np.random.Generator) -> list[list[_Spoken]]:
    """Utterances that all systems of a benchmark have spoken, of the first seed."""
    by_id: dict[str, dict[str, UtteranceScore]] = {}
    systems = [system for name, system in scores if name == benchmark]
    for system in systems:
        for score in scores[(benchmark, system)]:
            if score.status == "ok":
                by_id.setdefault(score.id, {}).setdefault(system, score)
    complete = sorted(id_ for id_, spoken in by_id.items() if len(spoken) == len(systems))
    order = generator.permutation(len(complete))[:limit]
    return [[_Spoken(system, by_id[complete[i]][system]) for system in systems] for i in sorted(order)]


def _clip(path: Path, clips: dict[str, str]) -> str:
    """Name, of its content, of a clip in the page; the same recording is there once."""
    from annotation.audio.quality import QualityConfig, loudness_gain

    content = path.read_bytes()
    # A hash, since the name in the page must not reveal the system.
    name = sha256_bytes(content)[:16]
    if name not in clips:
        samples_TC, rate = decode(content)
        mono_T = mono(samples_TC)
        _, gain = loudness_gain(mono_T, rate, QualityConfig(loudness_lufs=LOUDNESS))
        levelled_T = (mono_T * 10 ** (gain / 20)).astype(np.float32)
        clips[name] = base64.b64encode(encode_flac(levelled_T, rate)).decode()
    return name


def _page(data: Mapping[str, object]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("evaluation", "listening")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    script = loader.get_source(environment, "page.js")[0]
    # JSON in a page: `<` is escaped so that no text can end the element it is in.
    plain = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    digest = base64.b64encode(bytes.fromhex(sha256_text(script))).decode()
    return environment.get_template("page.html.j2").render(script=script, data=plain, digest=digest)
