"""A text that exists for a recording becomes the text of its clips. Uses no model and no audio.

The recognised words of all clips of the recording are anchors: the given words are aligned with them over the whole
recording, by words (rapidfuzz's Levenshtein, in linear memory) and, where these differ, by characters. So every clip
gets its own part of the given text, whatever windows and units it was recognised in, and the times of the recognised
words; a word that was not recognised shares the time of its neighbours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from statistics import median

from rapidfuzz.distance import Levenshtein

from annotation.speech.text_checks import token_spans
from voxmill.data.languages import CHARACTER_BASED, base_language
from voxmill.data.records import GivenPart, Seconds, TextDifference, Word

SAME_WORD = 0.5
"""Similarity of a given and a recognised word from which on the recogniser is taken to have misspelt the same word."""
SURE = 0.6
"""Mean probability of recognised words that are not in the text from which on they are taken to be said."""
SHORTEST_ADDED = 3
"""Characters; recognisers hear shorter words than these where nothing is said."""
SHORTEST_SHARE = 0.45
"""Words that have less than this share of the time that they usually take are taken not to be said."""
PASSAGE_SECONDS = 0.3
"""So much more time than there is do words need that are a passage which was not read."""
SLACK_SECONDS = 2.0
"""So far outside its own times a part with times may be recognised."""
OPENING = frozenset("\"'“‘«„¿¡([{<「『《〈【（")
DEFAULT_PACE = 14.0
"""Characters a second, where too few words were recognised to measure it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognisedClip:
    """A clip of a recording in seconds of the recording; its words are in seconds of the clip."""

    start: Seconds
    end: Seconds
    words: tuple[Word, ...]
    language: str


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


@dataclass(frozen=True, slots=True)
class _Given:
    """A word of the given text as it is compared, where it stands, and the number of its part."""

    form: str
    start: int
    end: int
    part: int


@dataclass(frozen=True, slots=True)
class _Heard:
    """A recognised word as it is compared, in seconds of the recording, and the number of its clip."""

    form: str
    start: Seconds
    end: Seconds
    probability: float
    clip: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """Given words [g0, g1) that stand for the recognised words [h0, h1); either may be none."""

    g0: int
    g1: int
    h0: int
    h1: int

    @property
    def gap(self) -> bool:
        """Whether one of the sides is empty."""
        return self.g0 == self.g1 or self.h0 == self.h1


def align_given(parts: Sequence[GivenPart], clips: Sequence[RecognisedClip]) -> GivenAlignment:
    """The part of a given text that each clip of a recording holds.

    Args:
        parts: in order; each may have times.
        clips: of one recording and channel, in order of time.
    """
    return _Alignment(parts, clips).result()


class _Alignment:
    """Given and recognised words of one recording, and which stand for which."""

    def __init__(self, parts: Sequence[GivenPart], clips: Sequence[RecognisedClip]) -> None:
        self.parts, self.clips = parts, clips
        language = _language(clips)
        self.by_character = base_language(language) in CHARACTER_BASED
        self.text = "\n".join(part.text for part in parts)
        self.given: list[_Given] = []
        offset = 0
        for number, part in enumerate(parts):
            spans = token_spans(part.text, language)
            self.given += [_Given(form, start + offset, end + offset, number) for form, start, end in spans]
            offset += len(part.text) + 1
        self.heard = [word for number, clip in enumerate(clips) for word in _heard(number, clip)]
        seconds = [(len(word.form), word.end - word.start) for word in self.heard if word.end > word.start]
        self.pace = DEFAULT_PACE if len(seconds) < 5 else median(size / length for size, length in seconds)
        self.pairs = list(self._as_passages(self._within_clips(self._within_times(self._pairs()))))

    def _pairs(self) -> Iterator[_Pair]:
        """All words of both sides in order: equal ones by themselves, what lies between as its characters fit."""
        h = 0
        for g0, g1, h0, h1 in self._stretches():
            if h < h0:
                yield _Pair(g0, g0, h, h0)
            yield from self._by_words(g0, g1, h0, h1)
            h = h1
        if h < len(self.heard):
            yield _Pair(len(self.given), len(self.given), h, len(self.heard))

    def _stretches(self) -> Iterator[tuple[int, int, int, int]]:
        """Given and recognised words that may stand for each other; parts with times may be far from the next."""
        borders = [n for n in range(1, len(self.given)) if self._are_apart(self.given[n - 1].part, self.given[n].part)]
        h = 0
        for first, last in pairwise([0, *borders, len(self.given)]):
            start = self.parts[self.given[first].part].start if self.given else None
            end = self.parts[self.given[last - 1].part].end if self.given else None
            while start is not None and h < len(self.heard) and self.heard[h].end < start - SLACK_SECONDS:
                h += 1
            h_first = h
            while h < len(self.heard) and (end is None or self.heard[h].start < end + SLACK_SECONDS):
                h += 1
            yield first, last, h_first, h

    def _are_apart(self, one: int, other: int) -> bool:
        """Whether there is so much time between parts that no word can be of both."""
        end, start = self.parts[one].end, self.parts[other].start
        return end is not None and start is not None and start - end >= 2 * SLACK_SECONDS

    def _by_words(self, first: int, last: int, h_first: int, h_last: int) -> Iterator[_Pair]:
        given, heard = self._forms(first, last), [word.form for word in self.heard[h_first:h_last]]
        runs = [
            (code.src_start, code.src_end, code.dest_start, code.dest_end)
            for code in Levenshtein.opcodes(given, heard)
            if code.tag == "equal"
        ]
        g, h = first, h_first
        for a0, a1, b0, b1 in [*_joined(runs, given), (len(given), len(given), len(heard), len(heard))]:
            yield from self._by_characters(g, first + a0, h, h_first + b0)
            for number in range(a1 - a0):
                g, h = first + a0 + number, h_first + b0 + number
                yield _Pair(g, g + 1, h, h + 1)
            g, h = first + a1, h_first + b1

    def _by_characters(self, g0: int, g1: int, h0: int, h1: int) -> Iterator[_Pair]:
        """Words between two anchors: those with most of their characters in common stand for each other."""
        if g0 == g1 and h0 == h1:
            return
        if g0 == g1 or h0 == h1:
            yield _Pair(g0, g1, h0, h1)
            return
        given, heard = _characters(self._forms(g0, g1)), _characters([word.form for word in self.heard[h0:h1]])
        common: dict[tuple[int, int], int] = {}
        for code in Levenshtein.opcodes("".join(c for c, _ in given), "".join(c for c, _ in heard)):
            if code.tag == "equal":
                for place in range(code.src_end - code.src_start):
                    key = given[code.src_start + place][1], heard[code.dest_start + place][1]
                    common[key] = common.get(key, 0) + 1
        linked = [
            (g, h)
            for (g, h), count in sorted(common.items())
            if count >= SAME_WORD * min(len(self.given[g0 + g].form), len(self.heard[h0 + h].form))
        ]
        g, h = g0, h0
        for a0, a1, b0, b1 in _components(linked):
            yield from self._that_fit(g, g0 + a0, h, h0 + b0)
            g, h = g0 + a1, h0 + b1
            yield from self._that_fit(g0 + a0, g, h0 + b0, h)
        yield from self._that_fit(g, g1, h, h1)

    def _that_fit(self, g0: int, g1: int, h0: int, h1: int) -> Iterator[_Pair]:
        """Words that stand for each other, unless more are given than could be said there."""
        if g0 == g1 and h0 == h1:
            return
        by_clip = [[*own] for _, own in groupby(self.heard[h0:h1], key=lambda word: word.clip)]
        seconds = sum(own[-1].end - own[0].start for own in by_clip)
        if g0 < g1 and h0 < h1 and not self._fits(self._forms(g0, g1), seconds + PASSAGE_SECONDS, SHORTEST_SHARE):
            yield _Pair(g0, g1, h0, h0)
            yield _Pair(g1, g1, h0, h1)
        else:
            yield _Pair(g0, g1, h0, h1)

    def _within_times(self, pairs: Iterable[_Pair]) -> Iterator[_Pair]:
        """The same, pairs that lie far outside the times of their part taken apart."""
        for pair in pairs:
            if pair.gap or all(self._may_lie(self.given[g].part, pair) for g in (pair.g0, pair.g1 - 1)):
                yield pair
            else:
                yield _Pair(pair.g0, pair.g1, pair.h0, pair.h0)
                yield _Pair(pair.g1, pair.g1, pair.h0, pair.h1)

    def _may_lie(self, number: int, pair: _Pair) -> bool:
        part = self.parts[number]
        if part.start is None or part.end is None:
            return True
        start, end = self.heard[pair.h0].start, self.heard[pair.h1 - 1].end
        return part.start - SLACK_SECONDS <= end and start <= part.end + SLACK_SECONDS

    def _within_clips(self, pairs: Iterable[_Pair]) -> Iterator[_Pair]:
        """The same, pairs that several clips have cut where one clip ends: by their characters."""
        for pair in pairs:
            borders = [h for h in range(pair.h0 + 1, pair.h1) if self.heard[h - 1].clip != self.heard[h].clip]
            if not borders:
                yield pair
                continue
            sizes = [len(word.form) for word in self.heard[pair.h0 : pair.h1]]
            own = [len(word.form) for word in self.given[pair.g0 : pair.g1]]
            g, h = pair.g0, pair.h0
            for border in [*borders, pair.h1]:
                share = sum(sizes[: border - pair.h0]) / sum(sizes)
                last = pair.g0 + sum(sum(own[: n + 1]) - own[n] / 2 <= share * sum(own) for n in range(len(own)))
                last = pair.g1 if border == pair.h1 else max(last, g)
                yield _Pair(g, last, h, border)
                g, h = last, border

    def _as_passages(self, pairs: Iterable[_Pair]) -> Iterator[_Pair]:
        """The same, given words that nobody says as one passage, between two clips where several clips lie there."""
        for is_gap, group in groupby(pairs, key=lambda pair: pair.gap):
            own = [*group]
            missing = [pair for pair in own if pair.g0 < pair.g1]
            added = [pair for pair in own if pair.h0 < pair.h1]
            if not is_gap or not missing:
                yield from own
                continue
            g0, g1 = missing[0].g0, missing[-1].g1
            # Behind what is said beside it in the same clip as the word before.
            clips = [self.heard[pair.h0].clip for pair in added]
            before = [pair for pair, clip in zip(added, clips, strict=True) if clip == clips[0]]
            place = before[-1].h1 if before else missing[0].h0
            for pair in before:
                yield _Pair(g0, g0, pair.h0, pair.h1)
            yield _Pair(g0, g1, place, place)
            for pair in added[len(before) :]:
                yield _Pair(g1, g1, pair.h0, pair.h1)

    def result(self) -> GivenAlignment:
        """What each clip has of it."""
        by_clip: list[list[_Pair]] = [[] for _ in self.clips]
        for number, pair in enumerate(self.pairs):
            if pair.h0 < pair.h1:
                by_clip[self.heard[pair.h0].clip].append(pair)
            else:
                for clip, own in self._places(number):
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

    def _places(self, number: int) -> Iterator[tuple[int, _Pair]]:
        """Where words that were not recognised belong: between two words of a clip, or where two clips have room."""
        pair = self.pairs[number]
        before = self.heard[pair.h0 - 1] if pair.h0 else None
        after = self.heard[pair.h0] if pair.h0 < len(self.heard) else None
        if before is not None and after is not None and before.clip == after.clip:
            yield before.clip, pair
            return
        first, last = pair.g0, pair.g1
        if before is not None:
            room = self.clips[before.clip].end - before.start
            while first < last and self._fits([before.form, *self._forms(pair.g0, first + 1)], room):
                first += 1
        if after is not None:
            room = after.end - self.clips[after.clip].start
            while first < last and self._fits([after.form, *self._forms(last - 1, pair.g1)], room):
                last -= 1
        if first < last:
            # There is more of it than could be said there: a passage that was not read.
            return
        if before is not None and pair.g0 < first:
            yield before.clip, _Pair(pair.g0, first, pair.h0, pair.h0)
        if after is not None and last < pair.g1:
            yield after.clip, _Pair(last, pair.g1, pair.h0, pair.h0)

    def _forms(self, first: int, last: int) -> list[str]:
        return [word.form for word in self.given[first:last]]

    def _fits(self, forms: Sequence[str], seconds: Seconds, share: float = 1.0) -> bool:
        """Whether words can be said in so much time."""
        return sum(map(len, forms)) / self.pace * share <= seconds

    def _clip_text(self, number: int, pairs: Sequence[_Pair]) -> ClipText | None:
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
            words.append(Word(self.text[start:end].strip(), round(low, 3), round(max(high, low), 3), probability))
        spelt = self.text[bounds[0][1][0] : bounds[-1][1][1]]
        agreement = Levenshtein.normalized_similarity(
            " ".join(self._forms(g0, g1)), " ".join(word.form for word in heard)
        )
        return ClipText(
            text=" ".join(spelt.split()),
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

    def _times(self, clip: RecognisedClip, pairs: Sequence[_Pair]) -> dict[int, _Heard]:
        """Time and probability of each given word of a clip."""
        times: dict[int, _Heard] = {}
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
                known = times[last]
                self._divide(times, [last, *open_words], known.start, clip.end, 0.0)
                times[last] = replace(times[last], probability=known.probability)
            else:
                self._divide(times, open_words, floor, min(clip.end, floor + self._seconds(open_words)), 0.0)
        return times

    def _spread(
        self, times: dict[int, _Heard], words: Sequence[int], floor: Seconds, start: Seconds, end: Seconds
    ) -> None:
        """Times of words that were not recognised, which end at `start`, where the next word does so at `end`."""
        if not words:
            return
        seconds = self._seconds(words)
        before = words[0] - 1
        if start - floor >= seconds * SHORTEST_SHARE:
            self._divide(times, words, max(floor, start - seconds), start, 0.0)
        elif before in times:
            known = times[before]
            self._divide(times, [before, *words], known.start, start, 0.0)
            times[before] = replace(times[before], probability=known.probability)
        else:
            self._divide(times, words, floor, floor + (end - floor) / 2, 0.0)

    def _seconds(self, words: Sequence[int]) -> Seconds:
        return sum(len(self.given[g].form) for g in words) / self.pace

    def _divide(
        self, times: dict[int, _Heard], words: Sequence[int], start: Seconds, end: Seconds, probability: float
    ) -> None:
        """Gives words a stretch of time by their characters."""
        sizes = [len(self.given[g].form) for g in words]
        done = 0
        for g, size in zip(words, sizes, strict=True):
            low, high = (start + (end - start) * count / sum(sizes) for count in (done, done + size))
            times[g] = _Heard(self.given[g].form, low, high, probability, 0)
            done += size

    def _similarity(self, pair: _Pair) -> float:
        given, heard = self._forms(pair.g0, pair.g1), [word.form for word in self.heard[pair.h0 : pair.h1]]
        return float(Levenshtein.normalized_similarity("".join(given), "".join(heard)))

    def _differences(self, clip: RecognisedClip, pairs: Sequence[_Pair]) -> Iterator[TextDifference]:
        """Where the part of a clip and what was recognised are not the same."""
        marked = [(pair, self._similarity(pair)) for pair in pairs]
        for same, group in groupby(marked, key=lambda one: one[1] == 1.0):
            if same:
                continue
            for pair, similarity in group:
                heard = self.heard[pair.h0 : pair.h1]
                start, end = (heard[0].start, heard[-1].end) if heard else self._gap(clip, pair)
                yield TextDifference(
                    kind="changed" if not pair.gap else "added" if heard else "missing",
                    given=" ".join(self._forms(pair.g0, pair.g1)),
                    recognised=" ".join(word.form for word in heard),
                    start=round(start - clip.start, 3),
                    end=round(end - clip.start, 3),
                    similarity=round(similarity, 3),
                    likely=self._is_likely(clip, pair, similarity),
                )

    def _gap(self, clip: RecognisedClip, pair: _Pair) -> tuple[Seconds, Seconds]:
        """Time between the recognised words beside given ones that were not recognised."""
        before = self.heard[pair.h0 - 1] if pair.h0 else None
        after = self.heard[pair.h0] if pair.h0 < len(self.heard) else None
        start = clip.start if before is None or before.start < clip.start else before.end
        end = clip.end if after is None or after.start >= clip.end else after.start
        return start, max(start, end)

    def _is_likely(self, clip: RecognisedClip, pair: _Pair, similarity: float) -> bool:
        """Whether recording and text part here, and not only the recogniser errs."""
        heard = self.heard[pair.h0 : pair.h1]
        sure = bool(heard) and sum(word.probability for word in heard) / len(heard) >= SURE
        if not pair.gap:
            # What the one writes in figures, the other may write in words.
            in_figures = _has_digit(word.form for word in heard) != _has_digit(self._forms(pair.g0, pair.g1))
            return similarity < SAME_WORD and sure and not in_figures
        if heard:
            return sure and sum(len(word.form) for word in heard) >= SHORTEST_ADDED
        before = self.heard[pair.h0 - 1] if pair.h0 else None
        after = self.heard[pair.h0] if pair.h0 < len(self.heard) else None
        forms, start, end = self._forms(pair.g0, pair.g1), clip.start, clip.end
        if before is not None and before.start >= clip.start:
            forms, start = [before.form, *forms], before.start
        if after is not None and after.end <= clip.end:
            forms, end = [*forms, after.form], after.end
        return not self._fits(forms, end - start, 0.8)


def _heard_of(heard: Sequence[_Heard], pairs: Sequence[_Pair]) -> Sequence[_Heard]:
    own = [pair for pair in pairs if pair.h0 < pair.h1]
    return heard[own[0].h0 : own[-1].h1] if own else ()


def _has_digit(forms: Iterable[str]) -> bool:
    return any(char.isdigit() for form in forms for char in form)


def _language(clips: Sequence[RecognisedClip]) -> str:
    """The language that most is said in."""
    seconds: dict[str, float] = {}
    for clip in clips:
        seconds[clip.language] = seconds.get(clip.language, 0.0) + clip.end - clip.start
    return max(seconds, key=lambda code: (seconds[code], code), default="")


def _heard(number: int, clip: RecognisedClip) -> Iterator[_Heard]:
    """The words of a clip as they are compared; one that is several has its time divided by their characters."""
    for word in clip.words:
        spans = token_spans(word.word, clip.language)
        size = sum(len(form) for form, _, _ in spans)
        done = 0
        for form, _, _ in spans:
            low, high = (
                clip.start + word.start + (word.end - word.start) * count / size for count in (done, done + len(form))
            )
            done += len(form)
            yield _Heard(form, low, high, word.probability, number)


def _characters(forms: Sequence[str]) -> list[tuple[str, int]]:
    """Characters of words, a space behind each, with the word's number."""
    return [(char, number) for number, form in enumerate(forms) for char in form + " "]


def _components(linked: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int, int]]:
    """Links between words of two sides, in order, as ranges of both sides that have no link to outside."""
    current: tuple[int, int, int, int] | None = None
    for g, h in linked:
        if current is not None and (g < current[1] or h < current[3]):
            current = current[0], max(current[1], g + 1), min(current[2], h), max(current[3], h + 1)
            continue
        if current is not None:
            yield current
        current = g, g + 1, h, h + 1
    if current is not None:
        yield current


def _joined(runs: Sequence[tuple[int, int, int, int]], given: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Runs of equal words, short ones moved beside their longer neighbour over given words that nobody says.

    Where a stretch of the text is not read, any of its words may be equal to one beside it: which does not matter to
    the number of differences, but the words of one clip belong together.
    """
    result = [list(run) for run in runs]
    for near, far in [(n, n + 1) for n in range(len(result) - 2, -1, -1)] + [(n, n - 1) for n in range(1, len(result))]:
        run, other = result[near], result[far]
        size = run[1] - run[0]
        forwards = far > near
        adjoining = run[3] == other[2] if forwards else other[3] == run[2]
        if not adjoining or size > other[1] - other[0]:
            continue
        target = other[0] - size if forwards else other[1]
        if given[target : target + size] == given[run[0] : run[1]]:
            run[0], run[1] = target, target + size
    return [(g0, g1, h0, h1) for g0, g1, h0, h1 in result]


def _apart(part: GivenPart, clip: RecognisedClip) -> bool:
    """Whether a part has times, and a clip lies outside them."""
    return part.start is not None and part.end is not None and (clip.end <= part.start or part.end <= clip.start)
