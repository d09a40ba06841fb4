"""Which given words stand for which recognised ones, over a whole recording. Uses no model and no audio."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median

from rapidfuzz.distance import Levenshtein

from annotation.speech.text_checks import token_spans
from voxmill.data.records import GivenPart, Seconds, Word
from voxmill.data.scripts import letters_a_character

SAME_WORD = 0.5
"""Similarity of a given and a recognised word from which on the recogniser is taken to have misspelt the same word."""
SHORTEST_SHARE = 0.45
"""Words that have less than this share of the time that they usually take are taken not to be said."""
PASSAGE_SECONDS = 0.3
"""So much more time than there is do words need that are a passage which was not read."""
SLACK_SECONDS = 2.0
"""So far outside its own times a part with times may be recognised."""
DEFAULT_PACE = 14.0
"""Letters of an alphabet a second, where too few words were recognised to measure it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognisedClip:
    """A clip of a recording in seconds of the recording; its words are in seconds of the clip."""

    start: Seconds
    end: Seconds
    words: tuple[Word, ...]
    language: str


@dataclass(frozen=True, slots=True)
class GivenWord:
    """A word of the given text as it is compared, where it stands, and the number of its part."""

    form: str
    start: int
    end: int
    part: int


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A recognised word as it is compared, in seconds of the recording, and the number of its clip."""

    form: str
    start: Seconds
    end: Seconds
    probability: float
    clip: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Given words [g0, g1) that stand for the recognised words [h0, h1); either may be none."""

    g0: int
    g1: int
    h0: int
    h1: int

    @property
    def gap(self) -> bool:
        """Whether one of the sides is empty."""
        return self.g0 == self.g1 or self.h0 == self.h1


class WordAlignment:
    """Given and recognised words of one recording, and which stand for which.

    Attributes:
        text: all parts. given, heard: words of both sides, in order. pairs: all of them, in order, none over two clips.
        language: the one that most is said in. pace: characters a second.

    Args:
        whole: all of the text is said in the clip, of which there is one, however little of it was recognised.
    """

    def __init__(self, parts: Sequence[GivenPart], clips: Sequence[RecognisedClip], *, whole: bool = False) -> None:
        self.parts, self.clips, self.whole = parts, clips, whole
        self.language = most_spoken(clips)
        self.text = "\n".join(part.text for part in parts)
        self.given: list[GivenWord] = []
        offset = 0
        for number, part in enumerate(parts):
            spans = token_spans(part.text, self.language)
            self.given += [GivenWord(form, start + offset, end + offset, number) for form, start, end in spans]
            offset += len(part.text) + 1
        self.heard = [word for number, clip in enumerate(clips) for word in _heard(number, clip)]
        seconds = [(len(word.form), word.end - word.start) for word in self.heard if word.end > word.start]
        usual = DEFAULT_PACE / letters_a_character("".join(word.form for word in self.given))
        self.pace = usual if len(seconds) < 5 else median(size / length for size, length in seconds)
        self.pairs = list(self._as_passages(self._within_clips(self._within_times(self._pairs()))))

    def _pairs(self) -> Iterator[Pair]:
        """All words of both sides in order: equal ones by themselves, what lies between as its characters fit."""
        h = 0
        for g0, g1, h0, h1 in self._stretches():
            if h < h0:
                yield Pair(g0, g0, h, h0)
            yield from self._by_words(g0, g1, h0, h1)
            h = h1
        if h < len(self.heard):
            yield Pair(len(self.given), len(self.given), h, len(self.heard))

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

    def _by_words(self, first: int, last: int, h_first: int, h_last: int) -> Iterator[Pair]:
        given, heard = self.forms(first, last), [word.form for word in self.heard[h_first:h_last]]
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
                yield Pair(g, g + 1, h, h + 1)
            g, h = first + a1, h_first + b1

    def _by_characters(self, g0: int, g1: int, h0: int, h1: int) -> Iterator[Pair]:
        """Words between two anchors: those with most of their characters in common stand for each other."""
        if g0 == g1 and h0 == h1:
            return
        if g0 == g1 or h0 == h1:
            yield Pair(g0, g1, h0, h1)
            return
        given, heard = _characters(self.forms(g0, g1)), _characters([word.form for word in self.heard[h0:h1]])
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

    def _that_fit(self, g0: int, g1: int, h0: int, h1: int) -> Iterator[Pair]:
        """Words that stand for each other, unless more are given than could be said there."""
        if g0 == g1 and h0 == h1:
            return
        by_clip = [[*own] for _, own in groupby(self.heard[h0:h1], key=lambda word: word.clip)]
        seconds = sum(own[-1].end - own[0].start for own in by_clip)
        if g0 < g1 and h0 < h1 and not self.fits(self.forms(g0, g1), seconds + PASSAGE_SECONDS, SHORTEST_SHARE):
            yield Pair(g0, g1, h0, h0)
            yield Pair(g1, g1, h0, h1)
        else:
            yield Pair(g0, g1, h0, h1)

    def _within_times(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The same, pairs that lie far outside the times of their part taken apart."""
        for pair in pairs:
            if pair.gap or all(self._may_lie(self.given[g].part, pair) for g in (pair.g0, pair.g1 - 1)):
                yield pair
            else:
                yield Pair(pair.g0, pair.g1, pair.h0, pair.h0)
                yield Pair(pair.g1, pair.g1, pair.h0, pair.h1)

    def _may_lie(self, number: int, pair: Pair) -> bool:
        part = self.parts[number]
        if part.start is None or part.end is None:
            return True
        start, end = self.heard[pair.h0].start, self.heard[pair.h1 - 1].end
        return part.start - SLACK_SECONDS <= end and start <= part.end + SLACK_SECONDS

    def _within_clips(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
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
                yield Pair(g, last, h, border)
                g, h = last, border

    def _as_passages(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
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
                yield Pair(g0, g0, pair.h0, pair.h1)
            yield Pair(g0, g1, place, place)
            for pair in added[len(before) :]:
                yield Pair(g1, g1, pair.h0, pair.h1)

    def places(self, number: int) -> Iterator[tuple[int, Pair]]:
        """Where words that were not recognised belong: between two words of a clip, or where two clips have room."""
        pair = self.pairs[number]
        before, after = self.beside(pair)
        if self.whole:
            yield 0, pair
            return
        if before is not None and after is not None and before.clip == after.clip:
            yield before.clip, pair
            return
        first, last = pair.g0, pair.g1
        if before is not None:
            room = self.clips[before.clip].end - before.start
            while first < last and self.fits([before.form, *self.forms(pair.g0, first + 1)], room):
                first += 1
        if after is not None:
            room = after.end - self.clips[after.clip].start
            while first < last and self.fits([after.form, *self.forms(last - 1, pair.g1)], room):
                last -= 1
        if first < last:
            # There is more of it than could be said there: a passage that was not read.
            return
        if before is not None and pair.g0 < first:
            yield before.clip, Pair(pair.g0, first, pair.h0, pair.h0)
        if after is not None and last < pair.g1:
            yield after.clip, Pair(last, pair.g1, pair.h0, pair.h0)

    def beside(self, pair: Pair) -> tuple[HeardWord | None, HeardWord | None]:
        """The recognised words before and behind given ones that were not recognised."""
        before = self.heard[pair.h0 - 1] if pair.h0 else None
        return before, self.heard[pair.h0] if pair.h0 < len(self.heard) else None

    def forms(self, first: int, last: int) -> list[str]:
        """Given words as they are compared."""
        return [word.form for word in self.given[first:last]]

    def fits(self, forms: Sequence[str], seconds: Seconds, share: float = 1.0) -> bool:
        """Whether words can be said in so much time."""
        return sum(map(len, forms)) / self.pace * share <= seconds


def most_spoken(clips: Sequence[RecognisedClip]) -> str:
    """The language that most is said in."""
    seconds: dict[str, float] = {}
    for clip in clips:
        seconds[clip.language] = seconds.get(clip.language, 0.0) + clip.end - clip.start
    return max(seconds, key=lambda code: (seconds[code], code), default="")


def by_characters(start: Seconds, seconds: Seconds, sizes: Sequence[int]) -> Iterator[tuple[Seconds, Seconds]]:
    """A stretch of time as words of these numbers of characters share it."""
    total, done = sum(sizes), 0
    for size in sizes:
        yield start + seconds * done / total, start + seconds * (done + size) / total
        done += size


def _heard(number: int, clip: RecognisedClip) -> Iterator[HeardWord]:
    """The words of a clip as they are compared; one that is several has its time divided by their characters.

    A recogniser that tells no probabilities is believed.
    """
    for word in clip.words:
        probability = 1.0 if word.probability is None else word.probability
        forms = [form for form, _, _ in token_spans(word.word, clip.language)]
        times = by_characters(clip.start + word.start, word.end - word.start, [len(form) for form in forms])
        for form, (low, high) in zip(forms, times, strict=True):
            yield HeardWord(form, low, high, probability, number)


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
