"""Norms of a dataset: what a clip's expressiveness and facts are measured by, fitted once and kept in OUT/norms.

A dataset keeps its norms, so that one more recording moves no other clip's percentile; they are fitted again where the
settings that they depend on change, or on demand (`corpus_labels.norms=refit`).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from annotation.corpus.expressiveness import (
    ExpressivenessNorms,
    count_measures,
    fit_norms,
    score_clips,
)
from annotation.corpus.grid_counts import GridCounts
from annotation.descriptions.facts import Norms, VoiceSums
from pipelines.config import AnnotateConfig
from pipelines.corpus.measures import Measures
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint, sha256_bytes

FORMAT = 1
Counted = dict[str, dict[str, GridCounts]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusNorms:
    """`made_with`: fingerprint of the settings that they depend on. `facts`: as `Norms.corpus` has them."""

    made_with: str
    expressiveness: ExpressivenessNorms
    facts: dict[str, tuple[float, float, int]]

    def of_facts(self, config: AnnotateConfig) -> Norms:
        """For `describe_clip`."""
        return Norms(config.corpus_labels.facts, self.facts)


def made_with(config: AnnotateConfig) -> str:
    """Fingerprint of the settings that norms depend on."""
    labels, rule = config.corpus_labels, config.corpus_labels.expressiveness
    return fingerprint(
        [
            FORMAT,
            config.voice_attributes.model_dump(mode="json"),
            "speakers" in labels.labels and labels.speakers.model_dump(mode="json"),
            [rule.speaker_weight, rule.shrinkage, rule.limit],
        ]
    )


@dataclass(frozen=True, slots=True)
class NormSums:
    """What norms are fitted from, of some buckets: counts of measures by language, sums of voices."""

    measures: Counted
    voices: dict[str, VoiceSums]

    @classmethod
    def of(cls, bucket: Measures) -> "NormSums":
        """Of one bucket."""
        return cls(count_measures(bucket.columns(), bucket.table["language"].to_pylist()), bucket.voices)

    def __add__(self, other: "NormSums") -> "NormSums":
        measures: Counted = {}
        for name in {**self.measures, **other.measures}:
            one, two = self.measures.get(name, {}), other.measures.get(name, {})
            measures[name] = {
                language: one[language] + two[language]
                if language in one and language in two
                else (one.get(language) or two[language])
                for language in {**one, **two}
            }
        voices = dict(self.voices)
        for key, sums in other.voices.items():
            voices[key] = voices[key] + sums if key in voices else sums
        return NormSums(measures, voices)

    @classmethod
    def total(cls, many: Iterable["NormSums"]) -> "NormSums":
        """Of all."""
        return sum(many, start=cls({}, {}))


def fit(sums: NormSums, config: AnnotateConfig) -> CorpusNorms:
    """Norms without counts of scores, which `with_scores` adds."""
    return CorpusNorms(
        made_with=made_with(config),
        expressiveness=fit_norms(sums.measures, config.corpus_labels.expressiveness),
        facts=Norms.from_sums(config.corpus_labels.facts, sums.voices).corpus,
    )


def scores_of(bucket: Measures, norms: CorpusNorms, config: AnnotateConfig) -> np.ndarray:
    """Expressiveness of every row, float [N], NaN where there is none."""
    table = bucket.table
    speakers = [name or "" for name in table["speaker"].to_pylist()]
    languages = table["language"].to_pylist()
    rule = config.corpus_labels.expressiveness
    return score_clips(bucket.columns(), speakers, languages, norms.expressiveness, rule).score


def with_scores(norms: CorpusNorms, scores: GridCounts) -> CorpusNorms:
    """The norms with the counts of all scores."""
    return replace(norms, expressiveness=replace(norms.expressiveness, scores=scores))


def write_norms(out: Path, norms: CorpusNorms) -> str:
    """Writes norms under a name of their content; returns it, below OUT."""
    voice = norms.expressiveness
    value = {
        "format": FORMAT,
        "made_with": norms.made_with,
        "corpus": voice.corpus,
        "languages": voice.languages,
        "score_cells": voice.scores.cells.tolist(),
        "score_counts": voice.scores.counts.tolist(),
        "facts": norms.facts,
    }
    content = json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
    name = f"norms/norms-{sha256_bytes(content)[:12]}.json"
    if not (out / name).exists():
        write_atomically(out / name, content)
    return name


def read_norms(out: Path, name: str) -> CorpusNorms:
    """Norms of that name."""
    value = json.loads((out / name).read_bytes())
    scores = GridCounts(np.array(value["score_cells"], np.int64), np.array(value["score_counts"], np.int64))
    languages = {
        measure: {language: (centre, width) for language, (centre, width) in by_language.items()}
        for measure, by_language in value["languages"].items()
    }
    corpus = {measure: (centre, width) for measure, (centre, width) in value["corpus"].items()}
    return CorpusNorms(
        made_with=value["made_with"],
        expressiveness=ExpressivenessNorms(corpus=corpus, languages=languages, scores=scores),
        facts={key: (middle, width, voices) for key, (middle, width, voices) in value["facts"].items()},
    )
