"""Reference clips for cloning: other clips of the same session in which the same voice speaks another text.

Report section 3.6: candidates come from the recording session, with a cosine of speaker embeddings above 0.7, and
never directly precede the target. Beyond the report a candidate never overlaps the target in time (cut at another
place it would be the target itself), never has nearly its text, keeps to a length band and to a quality floor.

A speaker who is heard in two languages gets references of the own language and, beside those, some of the other one:
from such pairs a model learns to keep a voice across languages. Clips of poorer quality than the target can be kept
beside them, too: from those it learns that noise of a reference is not part of the voice.

All pairs are scored in blocks of a matrix product; texts are compared by rapidfuzz on the best candidates only, after
equal texts are ruled out by their number. 10,000 clips take seconds on one thread.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from annotation.speech.text_checks import normalise
from voxmill.core.config import Config
from voxmill.data.languages import base_language
from voxmill.data.records import Reference

Reason = Literal[
    "alone_in_session",
    "no_embedding",
    "none_fit_length_or_quality",
    "only_preceding_or_overlapping",
    "no_similar_voice",
    "same_text",
]


class ReferencesConfig(Config):
    """The rules. `min_similarity` is a cosine of the speaker encoder in use: see `benchmarks/speakers.py`.

    `min_quality` is DNSMOS overall (1..5), null for no floor. `max_text_similarity` is rapidfuzz's ratio on normalised
    text, 0..1. `text_checks` bounds how many candidates of one clip are compared by text. Seconds are a reference's.
    """

    count: int = Field(3, ge=1)
    """References of a clip at most, besides those in another language and noisier ones."""
    other_languages: int = Field(1, ge=0)
    """Further references of a clip at most, in another language that its speaker is heard in."""
    language_seconds: float = Field(10.0, gt=0)
    """A speaker is heard in a language from so many seconds on; less may be a mistake of recognition."""
    noisier: int = Field(0, ge=0)
    """Further references of a clip at most, of poorer quality than the clip and perhaps below `min_quality`."""
    noisier_by: float = Field(0.3, gt=0)
    """How far the DNSMOS overall of a noisier reference lies below the clip's, at least."""
    min_similarity: float = 0.7
    """Lowest cosine between the speaker vectors of a clip and its reference."""
    min_seconds: float = 2.0
    """Shortest reference, in seconds."""
    max_seconds: float = 20.0
    """Longest reference, in seconds."""
    min_quality: float | None = 2.8
    """Lowest DNSMOS overall (1..5) of a reference; null for no floor."""
    max_text_similarity: float = 0.8
    """A reference whose text is more similar to the clip's (0..1, normalised edit ratio) is not used."""
    text_checks: int = 64
    """Candidates of one clip whose texts are compared, at most."""


@dataclass(frozen=True)
class SessionClips:
    """Columns of one session's clips, each [N]; times in seconds within the own recording.

    `position` orders the clips of the session. `embedding`: unit vectors, float32 [N,D], zeros where there is none.
    `quality`: DNSMOS overall; NaN where it was not measured, which no floor lets pass. `speaker`: names; where a person
    has given one of two (`speaker_is_sure`), two names are two voices, whatever the encoder says. `language`: codes,
    "" where it is not known; None: all one. `shard`: number of each clip's shard, within which references of the own
    language stay; None: all one.
    """

    clip_id: Sequence[str]
    recording_id: Sequence[str]
    position: Sequence[int]
    start: Sequence[float]
    end: Sequence[float]
    text: Sequence[str]
    quality: Sequence[float]
    speaker: Sequence[str]
    speaker_is_sure: Sequence[bool]
    embedding: np.ndarray
    language: Sequence[str] | None = None
    shard: Sequence[int] | None = None


@dataclass(frozen=True)
class References:
    """For every clip its candidates, or why there are none (None where there are some).

    First come those of the own language, then those of another, then noisier ones, each kind with the best first.
    """

    candidates: list[list[Reference]]
    reason: list[Reason | None]

    def reasons(self) -> dict[str, int]:
        """How many clips have no reference, by reason."""
        return dict(Counter(reason for reason in self.reason if reason is not None))


def find_references(clips: SessionClips, config: ReferencesConfig, block: int = 512) -> References:
    """Candidates within one session.

    The reason is the first rule, in the order of `Reason`, that leaves a clip without a candidate. Equal cosines go by
    position, so the same session gives the same references.
    """
    session = _Session(clips, config)
    candidates: list[list[Reference]] = []
    reasons: list[Reason | None] = []
    for first in range(0, session.num, block):
        references, why = session.block(first, min(first + block, session.num))
        candidates += references
        reasons += why
    # The session worked in order of position; the caller's order is another matter.
    back = np.argsort(session.order, kind="stable")
    return References([candidates[i] for i in back], [reasons[i] for i in back])


class _Session:
    """One session's columns as arrays in order of position."""

    def __init__(self, clips: SessionClips, config: ReferencesConfig):
        self.config = config
        self.num = len(clips.clip_id)
        self.order = np.argsort(np.asarray(clips.position), kind="stable")
        self.clip_id = [clips.clip_id[i] for i in self.order]
        self.position = np.asarray(clips.position)[self.order]
        self.start = np.asarray(clips.start, dtype=np.float64)[self.order]
        self.end = np.asarray(clips.end, dtype=np.float64)[self.order]
        self.text = [normalise(clips.text[i]) for i in self.order]
        self.text_number = _numbers(self.text)
        self.recording = _numbers([clips.recording_id[i] for i in self.order])
        self.speaker = _numbers([clips.speaker[i] for i in self.order])
        self.speaker_is_sure = np.asarray(clips.speaker_is_sure, dtype=bool)[self.order]
        self.language = heard_languages(clips, config)[self.order]
        self.shard = np.zeros(self.num, dtype=np.int64) if clips.shard is None else np.asarray(clips.shard)[self.order]
        self.quality = np.asarray(clips.quality, dtype=np.float64)[self.order]
        self.embedding = np.ascontiguousarray(clips.embedding[self.order], dtype=np.float32)
        norms = np.linalg.norm(self.embedding, axis=1)
        self.has_voice = norms > 0.5
        self.embedding /= np.where(self.has_voice, norms, 1.0)[:, None]
        seconds = self.end - self.start
        fits = (seconds >= config.min_seconds) & (seconds <= config.max_seconds) & self.has_voice
        self.is_good = np.ones(self.num, dtype=bool)
        if config.min_quality is not None:
            # A comparison with NaN is false: what was not measured does not pass.
            self.is_good = self.quality >= config.min_quality
        self.candidates = np.flatnonzero(fits if config.noisier else fits & self.is_good)

    def block(self, first: int, last: int) -> tuple[list[list[Reference]], list[Reason | None]]:
        """References of the clips `first` to `last`, which are rows here; candidates are columns."""
        rows, columns, config = np.arange(first, last), self.candidates, self.config
        kinds = self._kinds(rows, columns)
        allowed = rows[:, None] != columns
        allowed &= np.logical_or.reduce([of_kind for count, of_kind in kinds if count])
        num_others = allowed.sum(axis=1)
        allowed &= ~self._precedes_or_overlaps(rows, columns)
        num_apart = allowed.sum(axis=1)
        # Clipped, because float32 rounds the cosine of equal vectors to 1 + 1e-7.
        similarity = np.clip(self.embedding[rows] @ self.embedding[columns].T, -1.0, 1.0)
        allowed &= similarity > config.min_similarity
        sure = self.speaker_is_sure[rows][:, None] | self.speaker_is_sure[columns]
        allowed &= ~(sure & (self.speaker[rows][:, None] != self.speaker[columns]))
        num_similar = allowed.sum(axis=1)
        allowed &= self.text_number[rows][:, None] != self.text_number[columns]
        chances = [(count, of_kind & allowed) for count, of_kind in kinds if count]
        candidates: list[list[Reference]] = []
        reasons: list[Reason | None] = []
        for i, row in enumerate(rows.tolist()):
            references: dict[str, Reference] = {}
            for count, of_kind in chances:
                if of_kind[i].any():
                    scores = np.where(of_kind[i], similarity[i], -2.0)
                    references |= self._choose(row, scores, count, known=references)
            candidates.append([*references.values()])
            if references:
                reasons.append(None)
            elif self.num == 1:
                reasons.append("alone_in_session")
            elif not self.has_voice[row]:
                reasons.append("no_embedding")
            elif not num_others[i]:
                reasons.append("none_fit_length_or_quality")
            elif not num_apart[i]:
                reasons.append("only_preceding_or_overlapping")
            else:
                reasons.append("same_text" if num_similar[i] else "no_similar_voice")
        return candidates, reasons

    def _kinds(self, rows: np.ndarray, columns: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """How many references of a kind a clip may have, and bool [rows, columns]: which candidates are of it."""
        config, is_good = self.config, self.is_good[columns]
        own, other = self.language[rows][:, None], self.language[columns]
        is_other = (own != other) & (own >= 0) & (other >= 0)
        is_near = ~is_other & (self.shard[rows][:, None] == self.shard[columns])
        is_noisier = self.quality[columns] <= self.quality[rows][:, None] - config.noisier_by
        return [
            (config.count, is_near & is_good),
            (config.other_languages, is_other & is_good),
            (config.noisier, is_near & is_noisier),
        ]

    def _precedes_or_overlaps(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """bool [rows, columns]: the candidate lies directly before the clip, or shares time with it.

        Directly before is the previous clip that is here, and also the previous position, which may be another: a
        clip between the two may have been dropped.
        """
        before = columns == rows[:, None] - 1
        before |= self.position[columns] == self.position[rows][:, None] - 1
        shared = self.start[columns] < self.end[rows][:, None]
        shared &= self.end[columns] > self.start[rows][:, None]
        shared &= self.recording[columns] == self.recording[rows][:, None]
        either: np.ndarray = before | shared
        return either

    def _choose(self, row: int, similarity: np.ndarray, count: int, known: Collection[str]) -> dict[str, Reference]:
        """The most similar candidates that are not `known` and whose texts are not nearly the clip's own, by id."""
        from rapidfuzz import fuzz

        limit = min(self.config.text_checks, len(similarity))
        best = np.argpartition(-similarity, limit - 1)[:limit]
        best = best[np.lexsort((best, -similarity[best]))]
        cutoff = self.config.max_text_similarity * 100
        chosen: dict[str, Reference] = {}
        for column in best.tolist():
            if len(chosen) == count or similarity[column] < -1.0:
                break
            candidate = int(self.candidates[column])
            clip_id = self.clip_id[candidate]
            # 0.0 is returned below the cutoff, without the whole comparison.
            if clip_id not in known and not fuzz.ratio(self.text[row], self.text[candidate], score_cutoff=cutoff):
                chosen[clip_id] = Reference(clip_id, round(float(similarity[column]), 4))
        return chosen


def heard_languages(clips: SessionClips, config: ReferencesConfig) -> np.ndarray:
    """A number for the language of each clip, int64 [N]; -1 where its speaker is hardly heard in it, or in no other.

    Dialects count as their language. One clip that was taken for another language makes nobody bilingual.
    """
    if clips.language is None:
        return np.full(len(clips.clip_id), -1, dtype=np.int64)
    seconds: dict[tuple[str, str], float] = {}
    spoken = [(who, base_language(code)) for who, code in zip(clips.speaker, clips.language, strict=True)]
    for key, start, end in zip(spoken, clips.start, clips.end, strict=True):
        seconds[key] = seconds.get(key, 0.0) + end - start
    heard = {key for key, length in seconds.items() if key[1] and length >= config.language_seconds}
    languages = _numbers([code for _, code in spoken])
    return np.where([key in heard for key in spoken], languages, -1) if spoken else languages


def _numbers(values: Sequence[str]) -> np.ndarray:
    """An integer for each distinct value."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)


def violations(clips: SessionClips, references: References, config: ReferencesConfig) -> list[str]:
    """Every rule checked again on finished references, pair by pair; the audit expects an empty list."""
    from rapidfuzz import fuzz

    languages, most = heard_languages(clips, config), config.count + config.other_languages + config.noisier
    index = {clip_id: i for i, clip_id in enumerate(clips.clip_id)}
    texts = [normalise(text) for text in clips.text]
    in_order = [int(i) for i in np.argsort(np.asarray(clips.position), kind="stable")]
    previous = {after: before for before, after in zip(in_order[:-1], in_order[1:], strict=True)}
    broken: list[str] = []
    for i, candidates in enumerate(references.candidates):
        names = [reference.clip_id for reference in candidates]
        if len(set(names)) != len(names) or len(names) > most:
            broken.append(f"{clips.clip_id[i]}: repeated or too many references")
        for reference in candidates:
            j = index.get(reference.clip_id)
            label = f"{clips.clip_id[i]} <- {reference.clip_id}"
            if j is None or j == i:
                broken.append(f"{label}: not another clip of the session")
                continue
            seconds = clips.end[j] - clips.start[j]
            is_other = languages[i] != languages[j] and min(languages[i], languages[j]) >= 0
            is_noisier = config.noisier and clips.quality[j] <= clips.quality[i] - config.noisier_by
            overlaps = clips.start[j] < clips.end[i] and clips.end[j] > clips.start[i]
            rules = {
                "directly precedes": previous.get(i) == j or clips.position[j] == clips.position[i] - 1,
                "overlaps": clips.recording_id[i] == clips.recording_id[j] and overlaps,
                "length": not config.min_seconds <= seconds <= config.max_seconds,
                "quality": config.min_quality is not None
                and not (clips.quality[j] >= config.min_quality or is_noisier),
                "shard": clips.shard is not None and clips.shard[i] != clips.shard[j] and not is_other,
                "similarity": not reference.similarity >= config.min_similarity,
                "speaker": (clips.speaker_is_sure[i] or clips.speaker_is_sure[j])
                and clips.speaker[i] != clips.speaker[j],
                "text": fuzz.ratio(texts[i], texts[j]) >= config.max_text_similarity * 100,
            }
            broken += [f"{label}: {rule}" for rule, is_broken in rules.items() if is_broken]
    return broken
