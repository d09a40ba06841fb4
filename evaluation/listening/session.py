"""A randomised double-blind listening session as one page: N-MOS, S-MOS and I-MOS (report 4.7).

Neither the listener nor who hands out the page sees which system speaks: trials have numbers, and the key to them is a
file of its own. All clips have one loudness, since the louder of two sounds better.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.results.comparison import Row
from evaluation.results.records import write_text
from voxmill.core.errors import UserError

FORMAT = "voxmill-listening-1"
SCALES = {"N": "naturalness", "S": "similarity", "I": "instruction"}
LOUDNESS = -23.0
MAX_BYTES = 200_000_000


@dataclass(frozen=True)
class Session:
    """What was built. `page` goes to listeners, `key` stays. `skipped`: utterances without what a scale needs."""

    id: str
    page: Path
    key: Path
    trials: int
    skipped: dict[str, int]


def build_session(
    rows: Mapping[tuple[str, str], Sequence[Row]],
    folder: Path,
    *,
    scales: Sequence[str] = ("N", "S", "I"),
    limit: int = 20,
    seed: int = 0,
) -> Session:
    """Writes `listen.html` and `key.json` of a session.

    Args:
        rows: scored rows by (benchmark, system), as `results.read_rows` gives them.
        scales: of N (how natural), S (how like the reference), I (how well the instruction is followed).
        limit: utterances of each benchmark, drawn at random among those that every system has spoken.

    Raises:
        UserError: an unknown scale, nothing to rate, or a page too large for a browser.
    """
    unknown = [scale for scale in scales if scale not in SCALES]
    if unknown or not scales:
        raise UserError(f"scale {unknown[0] if unknown else ''!r} is unknown; use some of N, S, I")
    generator = np.random.default_rng(seed)
    trials: list[dict[str, Any]] = []
    skipped = dict.fromkeys(scales, 0)
    for benchmark in dict.fromkeys(name for name, _ in rows):
        for utterance in _drawn(rows, benchmark, limit, generator):
            for scale in scales:
                needed = {"N": "wav", "S": "reference", "I": "description"}[scale]
                if any(not row[needed] for _, row in utterance):
                    skipped[scale] += 1
                    continue
                trials += [{"scale": scale, "benchmark": benchmark, "system": s, "row": row} for s, row in utterance]
    if not trials:
        raise UserError("nothing to rate: no utterance that all systems have spoken has what these scales need")
    generator.shuffle(trials)  # type: ignore[arg-type]
    clips: dict[str, str] = {}
    shown, key = [], {}
    for number, trial in enumerate(trials, start=1):
        row, name = trial["row"], f"t{number:04d}"
        one = {"trial": name, "scale": trial["scale"], "clip": _clip(row["wav"], clips), "text": row["text"]}
        if trial["scale"] == "S":
            one["reference"] = _clip(row["reference"], clips)
        if trial["scale"] == "I":
            one["instruction"] = row["description"]
        shown.append(one)
        key[name] = {
            "scale": trial["scale"],
            "system": trial["system"],
            "item": f"{trial['benchmark']}/{row['id']}",
        }
    size = sum(len(clip) for clip in clips.values())
    if size > MAX_BYTES:
        raise UserError(f"the page would hold {size / 1e6:.0f} MB of audio; lower --limit")
    id_ = hashlib.sha256(json.dumps([shown, sorted(clips)], sort_keys=True).encode()).hexdigest()[:12]
    write_text(folder / "listen.html", _page({"format": FORMAT, "session": id_, "trials": shown, "clips": clips}))
    write_text(
        folder / "key.json", json.dumps({"format": FORMAT, "session": id_, "seed": seed, "trials": key}, indent=1)
    )
    return Session(
        id_, folder / "listen.html", folder / "key.json", len(shown), {s: n for s, n in skipped.items() if n}
    )


def _drawn(
    rows: Mapping[tuple[str, str], Sequence[Row]], benchmark: str, limit: int, generator: np.random.Generator
) -> list[list[tuple[str, Row]]]:
    """Utterances that all systems of a benchmark have spoken: (system, row) each, of the first seed."""
    spoken: dict[str, dict[str, Row]] = {}
    systems = [system for name, system in rows if name == benchmark]
    for system in systems:
        for row in rows[(benchmark, system)]:
            if row["status"] == "ok":
                spoken.setdefault(row["id"], {}).setdefault(system, row)
    complete = sorted(id_ for id_, found in spoken.items() if len(found) == len(systems))
    order = generator.permutation(len(complete))[:limit]
    return [[(system, spoken[complete[i]][system]) for system in systems] for i in sorted(order)]


def _clip(path: str, clips: dict[str, str]) -> str:
    """Name, of its content, of a clip in the page; the same recording is there once."""
    import soundfile

    from annotation.audio.quality import QualityConfig, loudness_gain

    data = Path(path).read_bytes()
    # The name in the page must not tell the system: of a hash nobody reads one.
    name = hashlib.sha256(data).hexdigest()[:16]
    if name not in clips:
        samples_TC, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        mono_T = samples_TC.mean(axis=1)
        _, gain = loudness_gain(mono_T, rate, QualityConfig(loudness_lufs=LOUDNESS))
        buffer = io.BytesIO()
        levelled_T = np.clip(mono_T * 10 ** (gain / 20), -1, 1)
        soundfile.write(buffer, levelled_T, rate, format="FLAC", subtype="PCM_16")
        clips[name] = base64.b64encode(buffer.getvalue()).decode()
    return name


def _page(data: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("evaluation", "listening")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    script = environment.loader.get_source(environment, "page.js")[0]  # type: ignore[union-attr]
    # JSON in a page: `<` is escaped so that no text can end the element it is in.
    plain = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(script=script, data=plain, digest=digest)
