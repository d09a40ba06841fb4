"""Labels that need the whole corpus: speakers, expressiveness, facts, references, modes (report section 3.6).

Pure work over rows in memory. Speakers, norms and expressiveness look at every candidate clip, kept or not, so that a
changed threshold changes none of them.
"""

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np

from annotation.corpus.eligibility import Labels, teaches
from annotation.corpus.expressiveness import MEASURES, keep_expressive, score_expressiveness
from annotation.corpus.references import SessionClips, find_references, violations
from annotation.corpus.speaker_clusters import name_speakers, purity
from annotation.descriptions.facts import Norms, describe_clip
from pipelines.config import ControlConfig
from pipelines.corpus.collect import Gathered
from pipelines.corpus.select import Verdict
from pipelines.stages.voice_attributes import decode_vector
from voxmill.data.records import Prosody

Row = dict[str, Any]


def label_corpus(found: Gathered, config: ControlConfig) -> dict[str, Any]:
    """Adds speaker, expressiveness and facts to every row; returns figures for the report."""
    rows = sorted(found.kept + found.rejected, key=lambda row: (row["session"], row["order"]))
    figures: dict[str, Any] = {"errors": _errors(rows)}
    if "speakers" in config.labels:
        figures["speakers"] = _name_speakers(rows, config)
    measured = [_prosody(row) for row in rows]
    speakers = [row["speaker"] or "" for row in rows]
    languages = [row["language"] for row in rows]
    if "expressiveness" in config.labels:
        columns = {
            name: [None if p is None else getattr(p, name) for p in measured]
            for name in MEASURES
            if name in Prosody.__dataclass_fields__
        }
        columns["emotion_intensity"] = [_voice(row, "emotion", "intensity") for row in rows]
        scores = score_expressiveness(columns, speakers, languages, config.expressiveness)
        for row, score in zip(rows, scores, strict=True):
            row["expressiveness"], row["expressiveness_percentile"] = score.score, score.percentile
            row["scored"] = score
    genders = [_voice(row, "gender", "label") for row in rows]
    known = [i for i, p in enumerate(measured) if p is not None]
    norms = Norms.fit(
        config.facts,
        [p for p in measured if p is not None],
        *([column[i] for i in known] for column in (speakers, genders, languages)),
    )
    for row, prosody in zip(rows, measured, strict=True):
        row["facts"] = [] if prosody is None else describe_clip(prosody, norms, row["language"], **_classes(row))
    figures["norms"] = norms.corpus
    return figures


def _errors(rows: list[Row]) -> dict[str, int]:
    """How many clips broke which labeller."""
    return dict(Counter(name for row in rows for name, label in row["voice"].items() if label and "error" in label))


def _voice(row: Row, labeller: str, key: str) -> Any:
    label = row["voice"].get(labeller) or {}
    return label.get(key)


def _prosody(row: Row) -> Prosody | None:
    label = row["voice"].get("prosody")
    return Prosody(**label) if label and "error" not in label else None


def _classes(row: Row) -> dict[str, tuple[str, float]]:
    """(class, probability) of every classifier that did not abstain."""
    found = {
        name: (_voice(row, name, "label"), _voice(row, name, "probability"))
        for name in ("age", "emotion")
        if _voice(row, name, "label") is not None
    }
    label, female = _voice(row, "gender", "label"), _voice(row, "gender", "female")
    if label is not None:
        found["gender"] = (label, max(female, 1 - female))
    return found


def class_probabilities(row: Row) -> dict[str, dict[str, float]]:
    """What the independent classifiers give each of their classes, where they did not abstain."""
    found = {
        name: _voice(row, name, "probabilities")
        for name in ("age", "emotion")
        if _voice(row, name, "label") is not None
    }
    female = _voice(row, "gender", "female")
    if _voice(row, "gender", "label") is not None:
        found["gender"] = {"female": female, "male": 1 - female}
    return found


def _embeddings(rows: list[Row]) -> np.ndarray:
    """Unit vectors, float32 [N,D]; zeros where a clip has none."""
    vectors = [decode_vector(row["voice"].get("speaker")) for row in rows]
    size = next((len(vector) for vector in vectors if vector is not None), 1)
    return np.stack([np.zeros(size, np.float32) if v is None else v for v in vectors]) if rows else np.zeros((0, size))


def _name_speakers(rows: list[Row], config: ControlConfig) -> dict[str, Any]:
    """Names clusters; a name that the manifest gives stays, and says how pure the clusters are."""
    labels = name_speakers(_embeddings(rows), [row["session"] for row in rows], config.speakers)
    given = [(row["speaker"], name) for row, name in zip(rows, labels.speaker, strict=True) if row["speaker"] and name]
    for row, name in zip(rows, labels.speaker, strict=True):
        row["cluster"] = name or None
        row["speaker"] = row["speaker"] or name or None
    figures: dict[str, Any] = {
        "clusters": len({name for name in labels.speaker if name}),
        "without_voice": sum(not name for name in labels.speaker),
        "known": len(given),
        "cluster_purity": None,
        "speaker_purity": None,
    }
    if given:
        # A cluster belongs to a session, so a speaker is looked for within the session.
        pairs = [(f"{cluster.rsplit(':', 1)[0]}:{speaker}", cluster) for speaker, cluster in given]
        figures["cluster_purity"], figures["speaker_purity"] = purity([c for _, c in pairs], [s for s, _ in pairs])
    return figures


def screen(found: Gathered, config: ControlConfig) -> None:
    """The expressive pre-screen: kept clips that it drops go to the rejected ones."""
    if "expressiveness" not in config.labels:
        return
    rule = config.expressiveness
    kept = keep_expressive([row["scored"] for row in found.kept], rule)
    bar = rule.threshold
    if rule.top_share is not None:
        bar = min((row["expressiveness"] for row, keep in zip(found.kept, kept, strict=True) if keep), default=None)
    for row, keep in zip(found.kept, kept, strict=True):
        if not keep:
            verdict = Verdict("expressiveness", "low_expressiveness", row["expressiveness"], bar)
            found.rejected.append(row | dataclasses.asdict(verdict))
    found.kept = [row for row, keep in zip(found.kept, kept, strict=True) if keep]


def add_references(shards: list[list[Row]], config: ControlConfig) -> dict[str, Any]:
    """Reference candidates of every kept clip, from its own session and its own shard; returns counts of reasons."""
    reasons: Counter[str] = Counter()
    num = broken = 0
    for shard in shards:
        sessions: dict[str, list[Row]] = {}
        for row in shard:
            sessions.setdefault(row["session"], []).append(row)
        for rows in sessions.values():
            clips = session_clips(rows)
            found = find_references(clips, config.references)
            broken += len(violations(clips, found, config.references))
            reasons.update(found.reasons())
            for row, references, reason in zip(rows, found.found, found.reason, strict=True):
                row["references"] = [dataclasses.asdict(reference) for reference in references]
                row["no_reference"] = reason
                num += bool(references)
    return {"with_reference": num, "reasons": dict(reasons.most_common()), "rule_violations": broken}


def session_clips(rows: list[Row]) -> SessionClips:
    """Columns that the reference rules look at."""
    return SessionClips(
        clip_id=[row["clip_id"] for row in rows],
        recording_id=[row["recording_id"] for row in rows],
        position=[row["position"] for row in rows],
        start=[row["start_sample"] / row["sample_rate"] for row in rows],
        end=[row["end_sample"] / row["sample_rate"] for row in rows],
        text=[row["text"] for row in rows],
        quality=[math.nan if row["quality"]["dnsmos_ovr"] is None else row["quality"]["dnsmos_ovr"] for row in rows],
        embedding=_embeddings(rows),
    )


def teach(rows: list[Row], config: ControlConfig) -> dict[str, Any]:
    """Modes and stages of every kept clip; returns counts."""
    modes: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    why_not: dict[str, Counter[str]] = {}
    for row in rows:
        taught = teaches(
            Labels(
                seconds=row["duration"],
                text=row["text"],
                origin=row["origin"],
                descriptions=row["described"],
                num_references=len(row.get("references") or []),
                quality=row["quality"]["dnsmos_ovr"],
                percentile=row.get("expressiveness_percentile"),
            ),
            config.modes,
        )
        row["modes"] = list(taught.modes)
        row["stages"] = [int(stage.removeprefix("stage")) for stage in taught.stages]
        row["stage_modes"] = [
            {"stage": int(stage.removeprefix("stage")), "modes": list(of)} for stage, of in taught.stages.items()
        ]
        modes.update(taught.modes)
        stages.update(list(taught.stages))
        for stage, reason in taught.why_not.items():
            why_not.setdefault(stage, Counter())[reason] += 1
    return {
        "modes": dict(modes),
        "stages": dict(stages),
        "why_not": {stage: dict(counts) for stage, counts in why_not.items()},
    }
