"""Labels that need more than a clip: expressiveness, facts, references, modes (report section 3.6).

Pure work over the clips of a bucket in memory, by the norms of the whole corpus. Norms and expressiveness look at every
candidate clip, kept or not, so that a changed threshold changes none of them.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotation.corpus.eligibility import Labels, eligibility
from annotation.corpus.expressiveness import SCORE_CELLS
from annotation.corpus.grid_counts import cell_of
from annotation.corpus.references import SessionClips, find_references, violations
from annotation.descriptions.facts import AXES, FREE_WORDS, describe_clip, given_facts, in_order
from annotation.descriptions.verification import CLASSIFIED, Answer, Evidence
from annotation.voice.given_labels import SONG, given_classes
from pipelines.config import AnnotateConfig, CorpusLabelsConfig
from pipelines.corpus.clips import CorpusClip, dialect_of, gender_of_speaker, index_row, style_of
from pipelines.corpus.figures import EligibilityFigures, GivenVerdicts, ReferenceFigures
from pipelines.corpus.measures import embeddings_of, prosody_of
from pipelines.corpus.norms import CorpusNorms
from voxmill.data.languages import DIALECTS, base_language
from voxmill.data.records import Axis, Fact, FactSource
from voxmill.data.verified import admits

_CLASSIFIED = ("age", "emotion", "gender")


def add_scores(clips: Sequence[CorpusClip], scores: np.ndarray, norms: CorpusNorms) -> None:
    """Expressiveness of every clip and its rank among those that the norms were fitted on.

    Args:
        scores: float [N], NaN where there is none.
    """
    percentiles = norms.expressiveness.percentiles(scores)
    for clip, score, percentile in zip(clips, scores.tolist(), percentiles.tolist(), strict=True):
        if not math.isnan(score):
            clip.expressiveness, clip.percentile = score, round(percentile, 4)


def add_facts(clips: Sequence[CorpusClip], norms: CorpusNorms, config: AnnotateConfig) -> None:
    """What is known of every clip in words."""
    of_facts = norms.of_facts(config)
    for clip in clips:
        prosody, given = prosody_of(clip), given_classes(clip.given)
        if prosody is None:
            facts = given_facts(given)
        else:
            voice = None if clip.traits is None else clip.traits.of_voice(prosody)
            facts = describe_clip(
                prosody, of_facts, clip.candidate.language, **_classes(clip), given=given, voice=voice
            )
        facts = [_as_of_speaker(fact, clip) for fact in facts]
        clip.facts = in_order([*facts, *_dialect(clip), *_song(clip)])


def _as_of_speaker(fact: Fact, clip: CorpusClip) -> Fact:
    """The fact, with its source where it is decided over the speaker's clips."""
    if fact.attribute != "gender" or fact.source != "classified" or gender_of_speaker(clip) is None:
        return fact
    return replace(fact, source="speaker")


def _dialect(clip: CorpusClip) -> list[Fact]:
    """The dialect, where it is known and has a name of its own."""
    dialect = dialect_of(clip)
    if dialect is None or dialect.label not in DIALECTS:
        return []
    source: FactSource = "given" if dialect.reason == "given" else "classified"
    probability = None if source == "given" else dialect.probability
    return [Fact("dialect", AXES["dialect"], DIALECTS[dialect.label], probability=probability, source=source)]


def _song(clip: CorpusClip) -> list[Fact]:
    """That a clip is sung, where no style is given."""
    style = style_of(clip)
    if style is None or style.label != SONG or style.reason == "given":
        return []
    share = clip.singing_share
    return [Fact("style", AXES["style"], SONG, value=share, unit="share of time", source="classified")]


def errors_of(clips: Sequence[CorpusClip]) -> dict[str, int]:
    """How many clips broke which labeller."""
    return dict(Counter(name for clip in clips for name in clip.voice.errors()))


def _classes(clip: CorpusClip) -> dict[str, tuple[str, float]]:
    """(class, probability) of every classifier that did not abstain."""
    probabilities = _classified(clip)
    best = {name: max(classes, key=lambda word: classes[word]) for name, classes in probabilities.items()}
    return {name: (word, probabilities[name][word]) for name, word in best.items()}


def _classified(clip: CorpusClip) -> dict[str, dict[str, float]]:
    """Probabilities of the classes of every classifier that did not abstain; of gender, as its speaker's clips have it.

    A clip whose speaker nobody knows stands for itself.
    """
    labels = {"age": clip.voice.age, "emotion": clip.voice.emotion, "gender": clip.voice.gender}
    values = {name: label.value for name, label in labels.items() if label is not None}
    found = {name: value.probabilities for name, value in values.items() if value is not None}
    if clip.traits is not None and gender_of_speaker(clip) is not None:
        found.pop("gender", None)
        if classes := clip.traits.gender_probabilities:
            found["gender"] = classes
    return found


def class_probabilities(clip: CorpusClip) -> dict[str, dict[str, float]]:
    """What the independent classifiers give each of their classes, where they did not abstain.

    What the corpus says counts instead: a description is to agree with it.
    """
    given = {name: {word: 1.0} for name, word in given_classes(clip.given).items() if name in _CLASSIFIED}
    return _classified(clip) | given


def evidence_of(clip: CorpusClip, *, of_caption: bool = False) -> Evidence:
    """What a description of a clip is verified against.

    Args:
        of_caption: the corpus wrote it: our classifiers judge it, and the corpus's labels are its writer's own source.
    """
    classified = _classified(clip)
    given = {name: {word: 1.0} for name, word in given_classes(clip.given).items() if name in _CLASSIFIED}
    # A writer of ours gets what the corpus says, else what a classifier does: of the two the other one judges.
    own = given if of_caption else classified | given
    facts = [fact for fact in clip.facts if not of_caption or fact.source in ("measured", "given") or _is_signal(fact)]
    judges = {name: classes for name, classes in classified.items() if of_caption or name in given}
    answers = {
        name: [Answer("classifier", max(classes, key=lambda word: classes[word]), max(classes.values()))]
        for name, classes in judges.items()
    }
    return Evidence(facts, own, answers)


def _is_signal(fact: Fact) -> bool:
    return fact.attribute not in CLASSIFIED


def count_given(clips: Sequence[CorpusClip]) -> dict[str, int]:
    """Labels of the corpus by `attribute/verdict`: pass where the classifier says the same, fail where another one."""
    counts: Counter[str] = Counter()
    for clip in clips:
        classified = _classes(clip)
        for name, word in given_classes(clip.given).items():
            if name not in FREE_WORDS:
                answer = classified.get(name)
                counts[f"{name}/{_outcome(None if answer is None else answer[0], word)}"] += 1
        dialect, label = dialect_of(clip), clip.voice.dialect
        if dialect is not None and dialect.label is not None and dialect.reason == "given":
            value = None if label is None else label.value
            counts[f"dialect/{_outcome(None if value is None else value.label, dialect.label)}"] += 1
    return dict(counts)


def _outcome(classified: str | None, given: str) -> str:
    return "abstain" if classified is None else "pass" if classified == given else "fail"


def given_table(counts: Mapping[str, int]) -> list[GivenVerdicts]:
    """The same as a row an attribute."""
    return [
        {
            "attribute": name,
            "pass": counts.get(f"{name}/pass", 0),
            "fail": counts.get(f"{name}/fail", 0),
            "abstain": counts.get(f"{name}/abstain", 0),
        }
        for name in sorted({key.partition("/")[0] for key in counts})
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoff:
    """The least expressive clip of `top_share`, in the order of cells of scores and then of names."""

    cell: int
    clip_id: str


def not_described(clip: CorpusClip, config: CorpusLabelsConfig, cutoff: Cutoff | None = None) -> str:
    """Why a clip gets no descriptions: `not_expressive`, `not_scored` or `not_meant`; "" where it does.

    The pre-screen decides what is annotated (report section 3.6), never what stays in the data.

    Args:
        cutoff: with `top_share`, the last clip that is described; None describes none.
    """
    rule, screen = config.expressiveness, config.screen()
    if screen == "all":
        return ""
    if screen == "expressive":
        if clip.expressiveness is None:
            return "not_scored"
        return "" if _passes(clip, rule.threshold, cutoff) else "not_expressive"
    return "" if screen(index_row(clip)) else "not_meant"


def _passes(clip: CorpusClip, threshold: float | None, cutoff: Cutoff | None) -> bool:
    if clip.expressiveness is None:
        return False
    if threshold is not None:
        return clip.expressiveness >= threshold
    if cutoff is None:
        return False
    cell = int(cell_of(np.array([clip.expressiveness]), SCORE_CELLS)[0])
    return (-cell, clip.clip_id) <= (-cutoff.cell, cutoff.clip_id)


def add_references(shards: list[list[CorpusClip]], config: CorpusLabelsConfig) -> ReferenceFigures:
    """Reference candidates of every kept clip, from its own session; returns counts of reasons.

    Those of the clip's own language are of its own shard. Those of another language may lie in another one, as they
    have to where shards are by language.
    """
    reasons: Counter[str] = Counter()
    num = broken = across = 0
    for session in _sessions(shards):
        clips = [clip for _, clip in session]
        columns = session_clips(clips, [shard for shard, _ in session])
        references = find_references(columns, config.references)
        broken += len(violations(columns, references, config.references))
        reasons.update(references.reasons())
        languages = {clip.clip_id: base_language(clip.candidate.language) for clip in clips}
        for clip, candidates, reason in zip(clips, references.candidates, references.reason, strict=True):
            clip.references, clip.no_reference = tuple(candidates), reason
            num += bool(candidates)
            across += any(languages[other.clip_id] != languages[clip.clip_id] for other in candidates)
    return {
        "with_reference": num,
        "across_languages": across,
        "reasons": dict(reasons.most_common()),
        "rule_violations": broken,
    }


def _sessions(shards: list[list[CorpusClip]]) -> Iterator[list[tuple[int, CorpusClip]]]:
    """Clips of each session with the number of their shard; a session of one language in each shard by itself."""
    sessions: dict[str, dict[int, list[tuple[int, CorpusClip]]]] = {}
    for number, shard in enumerate(shards):
        for clip in shard:
            sessions.setdefault(clip.session, {}).setdefault(number, []).append((number, clip))
    for by_shard in sessions.values():
        parts = [*by_shard.values()]
        if len({base_language(clip.candidate.language) for part in parts for _, clip in part}) == 1:
            yield from parts
        else:
            yield [pair for part in parts for pair in part]


def session_clips(clips: list[CorpusClip], shards: list[int]) -> SessionClips:
    """Columns that the reference rules look at. `shards`: numbers of their shards."""
    return SessionClips(
        clip_id=[clip.clip_id for clip in clips],
        recording_id=[clip.recording_id for clip in clips],
        position=[clip.position or 0 for clip in clips],
        start=[clip.start for clip in clips],
        end=[clip.end for clip in clips],
        text=[clip.candidate.text for clip in clips],
        quality=[math.nan if clip.dnsmos is None else clip.dnsmos for clip in clips],
        speaker=[clip.speaker or "" for clip in clips],
        speaker_is_sure=[clip.correction is not None and clip.correction.speaker is not None for clip in clips],
        embedding=embeddings_of(clips),
        language=[clip.candidate.language for clip in clips],
        shard=shards,
    )


def add_eligibility(clips: list[CorpusClip], config: CorpusLabelsConfig) -> EligibilityFigures:
    """Modes and curriculum stages of every kept clip; returns counts."""
    modes: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    why_not: dict[str, Counter[str]] = {}
    for clip in clips:
        axes: set[Axis] = {description.axis for description in clip.descriptions}
        verified: set[Axis] = {
            description.axis for description in clip.descriptions if admits(config.modes.stage3_verified, description)
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
