"""Labels that need the whole corpus: speakers, expressiveness, facts, references, modes (report section 3.6).

Pure work over clips in memory. Speakers, norms and expressiveness look at every candidate clip, kept or not, so that a
changed threshold changes none of them.
"""

import math
from collections import Counter

import numpy as np

from annotation.corpus.eligibility import Labels, eligibility
from annotation.corpus.expressiveness import MEASURES, keep_expressive, score_expressiveness
from annotation.corpus.references import SessionClips, find_references, violations
from annotation.corpus.speaker_clusters import name_speakers, purity
from annotation.descriptions.facts import Norms, describe_clip
from pipelines.config import CorpusLabelsConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.collect import CollectedClips
from pipelines.corpus.figures import CorpusLabelFigures, EligibilityFigures, ReferenceFigures, SpeakerFigures
from voxmill.data.records import Axis, Ending, Prosody, StageName


def label_corpus(collected: CollectedClips, config: CorpusLabelsConfig) -> CorpusLabelFigures:
    """Adds speaker, expressiveness and facts to every clip; returns figures for the report."""
    clips = sorted(collected.kept + collected.rejected, key=lambda clip: clip.order)
    figures: CorpusLabelFigures = {"errors": _errors(clips)}
    if "speakers" in config.labels:
        figures["speakers"] = _name_speakers(clips, config)
    measured = [_prosody(clip) for clip in clips]
    speakers = [clip.speaker or "" for clip in clips]
    languages = [clip.candidate.language for clip in clips]
    if "expressiveness" in config.labels:
        columns = {
            name: [None if prosody is None else getattr(prosody, name) for prosody in measured]
            for name in MEASURES
            if name in Prosody.__dataclass_fields__
        }
        columns["emotion_intensity"] = [_emotion_intensity(clip) for clip in clips]
        scores = score_expressiveness(columns, speakers, languages, config.expressiveness)
        for clip, score in zip(clips, scores, strict=True):
            clip.expressiveness, clip.percentile = score.score, score.percentile
    genders = [_gender(clip) for clip in clips]
    known = [i for i, prosody in enumerate(measured) if prosody is not None]
    norms = Norms.fit(
        config.facts,
        [prosody for prosody in measured if prosody is not None],
        [speakers[i] for i in known],
        [genders[i] for i in known],
        [languages[i] for i in known],
    )
    for clip, prosody in zip(clips, measured, strict=True):
        clip.facts = [] if prosody is None else describe_clip(prosody, norms, clip.candidate.language, **_classes(clip))
    figures["norms"] = norms.corpus
    return figures


def _errors(clips: list[CorpusClip]) -> dict[str, int]:
    """How many clips broke which labeller."""
    return dict(Counter(name for clip in clips for name in clip.voice.errors()))


def _prosody(clip: CorpusClip) -> Prosody | None:
    return None if clip.voice.prosody is None else clip.voice.prosody.value


def _gender(clip: CorpusClip) -> str | None:
    label = clip.voice.gender
    return None if label is None or label.value is None else label.value.label


def _emotion_intensity(clip: CorpusClip) -> float | None:
    # An answer that was not sure enough to be given measures all the same.
    label = clip.voice.emotion
    return None if label is None or label.measured is None else label.measured.intensity


def _classes(clip: CorpusClip) -> dict[str, tuple[str, float]]:
    """(class, probability) of every classifier that did not abstain."""
    labels = {"age": clip.voice.age, "emotion": clip.voice.emotion, "gender": clip.voice.gender}
    values = {name: label.value for name, label in labels.items() if label is not None}
    return {name: (value.label, value.probability) for name, value in values.items() if value is not None}


def class_probabilities(clip: CorpusClip) -> dict[str, dict[str, float]]:
    """What the independent classifiers give each of their classes, where they did not abstain."""
    labels = {"age": clip.voice.age, "emotion": clip.voice.emotion, "gender": clip.voice.gender}
    values = {name: label.value for name, label in labels.items() if label is not None}
    return {name: value.probabilities for name, value in values.items() if value is not None}


def _embeddings(clips: list[CorpusClip]) -> np.ndarray:
    """Unit vectors, float32 [N,D]; zeros where a clip has none."""
    vectors = [None if clip.voice.speaker is None else clip.voice.speaker.value for clip in clips]
    size = next((len(vector) for vector in vectors if vector is not None), 1)
    return np.stack([np.zeros(size, np.float32) if v is None else v for v in vectors]) if clips else np.zeros((0, size))


def _name_speakers(clips: list[CorpusClip], config: CorpusLabelsConfig) -> SpeakerFigures:
    """Names clusters; a name that the manifest gives stays, and measures how pure the clusters are."""
    labels = name_speakers(_embeddings(clips), [clip.session for clip in clips], config.speakers)
    given = [(clip.speaker, name) for clip, name in zip(clips, labels.speaker, strict=True) if clip.speaker and name]
    for clip, name in zip(clips, labels.speaker, strict=True):
        clip.cluster = name or None
        clip.speaker = clip.speaker or name or None
    # A cluster belongs to a session, so a speaker is looked for within the session.
    pairs = [(f"{cluster.rsplit(':', 1)[0]}:{speaker}", cluster) for speaker, cluster in given]
    pure = purity([cluster for _, cluster in pairs], [speaker for speaker, _ in pairs]) if pairs else (None, None)
    return {
        "clusters": len({name for name in labels.speaker if name}),
        "without_voice": sum(not name for name in labels.speaker),
        "known": len(given),
        "cluster_purity": pure[0],
        "speaker_purity": pure[1],
    }


def screen(collected: CollectedClips, config: CorpusLabelsConfig) -> None:
    """The expressive pre-screen: kept clips that it drops go to the rejected ones."""
    if "expressiveness" not in config.labels:
        return
    rule = config.expressiveness
    keep = keep_expressive([clip.expressiveness for clip in collected.kept], rule)
    kept = [clip for clip, stays in zip(collected.kept, keep, strict=True) if stays]
    limit = rule.threshold
    if rule.top_share is not None:
        limit = min((clip.expressiveness for clip in kept if clip.expressiveness is not None), default=None)
    for clip, stays in zip(collected.kept, keep, strict=True):
        if not stays:
            ending = Ending(
                stage=StageName.SELECTION, reason="low_expressiveness", value=clip.expressiveness, threshold=limit
            )
            collected.reject(clip, ending)
    collected.kept = kept


def add_references(shards: list[list[CorpusClip]], config: CorpusLabelsConfig) -> ReferenceFigures:
    """Reference candidates of every kept clip, from its own session and its own shard; returns counts of reasons."""
    reasons: Counter[str] = Counter()
    num = broken = 0
    for shard in shards:
        sessions: dict[str, list[CorpusClip]] = {}
        for clip in shard:
            sessions.setdefault(clip.session, []).append(clip)
        for clips in sessions.values():
            columns = session_clips(clips)
            references = find_references(columns, config.references)
            broken += len(violations(columns, references, config.references))
            reasons.update(references.reasons())
            for clip, candidates, reason in zip(clips, references.candidates, references.reason, strict=True):
                clip.references, clip.no_reference = tuple(candidates), reason
                num += bool(candidates)
    return {"with_reference": num, "reasons": dict(reasons.most_common()), "rule_violations": broken}


def session_clips(clips: list[CorpusClip]) -> SessionClips:
    """Columns that the reference rules look at."""
    return SessionClips(
        clip_id=[clip.clip_id for clip in clips],
        recording_id=[clip.recording_id for clip in clips],
        position=[clip.position or 0 for clip in clips],
        start=[clip.start for clip in clips],
        end=[clip.end for clip in clips],
        text=[clip.candidate.text for clip in clips],
        quality=[math.nan if clip.dnsmos is None else clip.dnsmos for clip in clips],
        embedding=_embeddings(clips),
    )


def add_eligibility(clips: list[CorpusClip], config: CorpusLabelsConfig) -> EligibilityFigures:
    """Modes and curriculum stages of every kept clip; returns counts."""
    modes: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    why_not: dict[str, Counter[str]] = {}
    for clip in clips:
        axes: set[Axis] = {description.axis for description in clip.descriptions}
        verified: set[Axis] = {
            description.axis
            for description in clip.descriptions
            if all(verdict.verdict == "pass" for verdict in description.verdicts)
        }
        clip.eligibility = eligibility(
            Labels(
                seconds=clip.duration,
                text=clip.candidate.text,
                origin=clip.origin,
                axes=axes,
                verified_axes=verified,
                num_references=len(clip.references or ()),
                quality=clip.dnsmos,
                percentile=clip.percentile,
            ),
            config.modes,
        )
        modes.update(clip.eligibility.modes)
        stages.update(f"stage{stage}" for stage in clip.eligibility.by_stage)
        for stage, reason in clip.eligibility.why_not.items():
            why_not.setdefault(f"stage{stage}", Counter())[reason] += 1
    return {
        "modes": dict(modes),
        "stages": dict(stages),
        "why_not": {stage: dict(counts) for stage, counts in why_not.items()},
    }
