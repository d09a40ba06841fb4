"""A text that exists for a recording becomes the text of its clips. Uses no model and no audio.

The recognised words of all clips of the recording are anchors: the given words are aligned with them over the whole
recording (`given_words`), by words (rapidfuzz's Levenshtein, in linear memory) and, where these differ, by characters.
So every clip gets its own part of the given text, whatever windows and units it was recognised in, and the times of the
recognised words; a word that was not recognised shares the time of its neighbours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rapidfuzz.distance import Levenshtein

from annotation.speech.given_words import (
    SAME_WORD,
    SHORTEST_SHARE,
    HeardWord,
    Pair,
    RecognisedClip,
    WordAlignment,
    by_characters,
)
from voxmill.data.languages import CHARACTER_BASED, base_language
from voxmill.data.records import GivenPart, Seconds, TextDifference, Word
from voxmill.data.scripts import one_line

SURE = 0.6
"""Mean probability of recognised words that are not in the text from which on they are taken to be said."""
UNLIKE, SURER = 0.2, 0.8
"""Words with a fifth of their characters in common and more are likelier misheard than others: so they need this."""
SHORTEST_ADDED = 3
"""Characters; recognisers hear shorter words than these where nothing is said."""
QUICK_SHARE = 0.8
"""Words that are given but not recognised, and would have to be said in less than this share of their usual time, are
likely not said."""
OPENING = frozenset("\"'“‘«„¿¡([{<「『《〈【（")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipText:
    """A clip's own part of the given text.

    text: "" where no part of it is the clip's. words: in seconds of the clip. agreement: of the characters of the part
    and of what was recognised, 0..1.
    """

    text: str
    words: tuple[Word, ...]
    agreement: float
    differences: tuple[TextDifference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAlignment:
    """The given text over the clips of a recording.

    clips: one for each clip, None where the text says nothing of its time. agreement: of all that was recognised with
    its part, 0..1. placed: share of the given words that a clip has.
    """

    clips: tuple[ClipText | None, ...]
    agreement: float
    placed: float


def align_given(parts: Sequence[GivenPart], clips: Sequence[RecognisedClip]) -> GivenAlignment:
    """The part of a given text that each clip of a recording holds.

    Args:
        parts: in order; each may have times.
        clips: of one recording and channel, in order of time.
    """
    return _Texts(parts, clips).result()


def place_words(text: str, clip: RecognisedClip) -> tuple[Word, ...]:
    """The words of a text that is all said in a clip, at the times of the recognised ones that it was known by."""
    placed = _Texts([GivenPart(text=text)], [clip], whole=True).result().clips[0]
    return () if placed is None else placed.words


class _Texts:
    """The texts of the clips of one recording, from the words that stand for each other."""

    def __init__(self, parts: Sequence[GivenPart], clips: Sequence[RecognisedClip], *, whole: bool = False) -> None:
        self.parts, self.clips = parts, clips
        self.alignment = WordAlignment(parts, clips, whole=whole)
        self.by_character = base_language(self.alignment.language) in CHARACTER_BASED
        self.text, self.given, self.heard = self.alignment.text, self.alignment.given, self.alignment.heard

    def result(self) -> GivenAlignment:
        """What each clip has of it."""
        by_clip: list[list[Pair]] = [[] for _ in self.clips]
        for number, pair in enumerate(self.alignment.pairs):
            if pair.h0 < pair.h1:
                by_clip[self.heard[pair.h0].clip].append(pair)
            else:
                for clip, own in self.alignment.places(number):
                    by_clip[clip].append(own)
        texts = [self._clip_text(number, own) for number, own in enumerate(by_clip)]
        placed = sum(pair.g1 - pair.g0 for own in by_clip for pair in own)
        weights = [sum(len(word.word) for word in clip.words) for clip in self.clips]
        told = [(text.agreement, weight) for text, weight in zip(texts, weights, strict=True) if text is not None]
        total = sum(weight for _, weight in told)
        return GivenAlignment(
            clips=tuple(texts),
            agreement=sum(agreement * weight for agreement, weight in told) / total if total else 0.0,
            placed=placed / len(self.given) if self.given else 0.0,
        )

    def _clip_text(self, number: int, pairs: Sequence[Pair]) -> ClipText | None:
        clip = self.clips[number]
        if self.parts and all(_apart(part, clip) for part in self.parts):
            return None
        placed = [pair for pair in pairs if pair.g0 < pair.g1]
        heard = _heard_of(self.heard, pairs)
        if not placed:
            return ClipText(text="", words=(), agreement=0.0, differences=())
        g0, g1 = placed[0].g0, placed[-1].g1
        bounds = self._word_bounds(g0, g1)
        times = self._times(clip, pairs)
        words = []
        for (first, last), (start, end) in bounds:
            own = [times[g] for g in range(first, last)]
            probability = sum(one.probability for one in own) / len(own)
            low, high = own[0].start - clip.start, own[-1].end - clip.start
            told = None if any(word.probability is None for word in clip.words) else probability
            words.append(Word(self.text[start:end].strip(), round(low, 3), round(max(high, low), 3), told))
        spelt = self.text[bounds[0][1][0] : bounds[-1][1][1]]
        agreement = Levenshtein.normalized_similarity(
            " ".join(self.alignment.forms(g0, g1)), " ".join(word.form for word in heard)
        )
        return ClipText(
            text=one_line(spelt),
            words=tuple(words),
            agreement=float(agreement),
            differences=tuple(self._differences(clip, pairs)),
        )

    def _word_bounds(self, g0: int, g1: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Words as they are written: their tokens, and the characters that they have with their punctuation."""
        cuts = [(g0, self._cut(g0 - 1, g0))]
        for g in range(g0 + 1, g1):
            between = self.text[self.given[g - 1].end : self.given[g].start]
            if any(char.isspace() for char in between) or (self.by_character and not self._in_one_word(g)):
                cuts.append((g, self._cut(g - 1, g)))
        cuts.append((g1, self._cut(g1 - 1, g1)))
        return [((a, b), (start, end)) for (a, start), (b, end) in pairwise(cuts)]

    def _in_one_word(self, g: int) -> bool:
        """Whether a letter or digit continues a word of another script, in a language written without spaces."""
        before, own = self.given[g - 1], self.given[g]
        return before.end == own.start and before.form.isascii() and own.form.isascii()

    def _cut(self, left: int, right: int) -> int:
        """The character at which what is written between two words is divided."""
        if left < 0:
            return 0
        start = self.given[left].end
        end = self.given[right].start if right < len(self.given) else len(self.text)
        if right == len(self.given):
            return end
        between = self.text[start:end]
        for place, char in enumerate(between):
            if char.isspace() or char in OPENING:
                return start + place
        return end

    def _times(self, clip: RecognisedClip, pairs: Sequence[Pair]) -> dict[int, HeardWord]:
        """Time and probability of each given word of a clip."""
        times: dict[int, HeardWord] = {}
        open_words: list[int] = []
        floor = clip.start
        for pair in pairs:
            if pair.h0 == pair.h1:
                open_words += range(pair.g0, pair.g1)
                continue
            own = self.heard[pair.h0 : pair.h1]
            start, end = own[0].start, own[-1].end
            if pair.g0 == pair.g1:
                continue
            probability = sum(word.probability for word in own) / len(own) * self._similarity(pair)
            self._spread(times, open_words, floor, start, end)
            if open_words and times[open_words[-1]].end > start:
                start = times[open_words[-1]].end
            open_words = []
            self._divide(times, range(pair.g0, pair.g1), start, max(end, start), probability)
            floor = max(end, start)
        if open_words:
            last = max((g for g in times), default=None)
            if last is not None and clip.end - floor < self._seconds(open_words) * SHORTEST_SHARE:
                self._divide_with(times, last, open_words, clip.end)
            elif self.alignment.whole and not clip.words:
                # Nothing was recognised, and a clip is cut where its speech begins and ends.
                self._divide(times, open_words, floor, clip.end, 0.0)
            else:
                self._divide(times, open_words, floor, min(clip.end, floor + self._seconds(open_words)), 0.0)
        return times

    def _spread(
        self, times: dict[int, HeardWord], words: Sequence[int], floor: Seconds, start: Seconds, end: Seconds
    ) -> None:
        """Times of words that were not recognised, which end at `start`, where the next word does so at `end`."""
        if not words:
            return
        seconds = self._seconds(words)
        before = words[0] - 1
        if start - floor >= seconds * SHORTEST_SHARE:
            self._divide(times, words, max(floor, start - seconds), start, 0.0)
        elif before in times:
            self._divide_with(times, before, words, start)
        else:
            self._divide(times, words, floor, floor + (end - floor) / 2, 0.0)

    def _seconds(self, words: Sequence[int]) -> Seconds:
        return sum(len(self.given[g].form) for g in words) / self.alignment.pace

    def _divide(
        self, times: dict[int, HeardWord], words: Sequence[int], start: Seconds, end: Seconds, probability: float
    ) -> None:
        """Gives words a stretch of time by their characters."""
        forms = [self.given[g].form for g in words]
        shares = by_characters(start, end - start, [len(form) for form in forms])
        for g, form, (low, high) in zip(words, forms, shares, strict=True):
            times[g] = HeardWord(form, low, high, probability, 0)

    def _divide_with(self, times: dict[int, HeardWord], known: int, words: Sequence[int], end: Seconds) -> None:
        """Gives words behind a known one a part of its time, up to `end`; it stays as probable as it was."""
        word = times[known]
        self._divide(times, [known, *words], word.start, end, 0.0)
        times[known] = replace(times[known], probability=word.probability)

    def _similarity(self, pair: Pair) -> float:
        given, heard = self.alignment.forms(pair.g0, pair.g1), [word.form for word in self.heard[pair.h0 : pair.h1]]
        return float(Levenshtein.normalized_similarity("".join(given), "".join(heard)))

    def _differences(self, clip: RecognisedClip, pairs: Sequence[Pair]) -> Iterator[TextDifference]:
        """Where the part of a clip and what was recognised are not the same."""
        for pair in pairs:
            similarity = self._similarity(pair)
            if similarity == 1.0:
                continue
            heard = self.heard[pair.h0 : pair.h1]
            start, end = (heard[0].start, heard[-1].end) if heard else self._gap(clip, pair)
            yield TextDifference(
                kind="changed" if not pair.gap else "added" if heard else "missing",
                given=" ".join(self.alignment.forms(pair.g0, pair.g1)),
                recognised=" ".join(word.form for word in heard),
                start=round(start - clip.start, 3),
                end=round(end - clip.start, 3),
                similarity=round(similarity, 3),
                likely=self._is_likely(clip, pair, similarity),
            )

    def _gap(self, clip: RecognisedClip, pair: Pair) -> tuple[Seconds, Seconds]:
        """Time between the recognised words beside given ones that were not recognised."""
        before, after = self.alignment.beside(pair)
        start = clip.start if before is None or before.start < clip.start else before.end
        end = clip.end if after is None or after.start >= clip.end else after.start
        return start, max(start, end)

    def _is_likely(self, clip: RecognisedClip, pair: Pair, similarity: float) -> bool:
        """Whether recording and text part here, and not only the recogniser errs."""
        heard = self.heard[pair.h0 : pair.h1]
        probability = sum(word.probability for word in heard) / max(len(heard), 1)
        if not pair.gap:
            # What the one writes in figures, the other may write in words.
            in_figures = _has_digit(word.form for word in heard) != _has_digit(self.alignment.forms(pair.g0, pair.g1))
            sure = probability >= (SURE if similarity < UNLIKE else SURER)
            return similarity < SAME_WORD and sure and not in_figures
        if heard:
            return probability >= SURE and sum(len(word.form) for word in heard) >= SHORTEST_ADDED
        before, after = self.alignment.beside(pair)
        forms, start, end = self.alignment.forms(pair.g0, pair.g1), clip.start, clip.end
        if before is not None and before.start >= clip.start:
            forms, start = [before.form, *forms], before.start
        if after is not None and after.end <= clip.end:
            forms, end = [*forms, after.form], after.end
        return not self.alignment.fits(forms, end - start, QUICK_SHARE)


def _heard_of(heard: Sequence[HeardWord], pairs: Sequence[Pair]) -> Sequence[HeardWord]:
    own = [pair for pair in pairs if pair.h0 < pair.h1]
    return heard[own[0].h0 : own[-1].h1] if own else ()


def _has_digit(forms: Iterable[str]) -> bool:
    return any(char.isdigit() for form in forms for char in form)


def _apart(part: GivenPart, clip: RecognisedClip) -> bool:
    """Whether a part has times, and a clip lies outside them."""
    return part.start is not None and part.end is not None and (clip.end <= part.start or part.end <= clip.start)
