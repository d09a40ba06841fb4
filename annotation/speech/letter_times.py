"""Word times by a model of letters that is trained on the very clips that it times.

Whisper's cross-attention tells within a tenth of a second where a word is. From there a hidden Markov model is trained
as speech recognisers are from a flat start: two states a letter with a Gaussian each over cepstra, silence between
words where it is silent, and paths that stay near the words' first times. Two rounds suffice. It needs no other model
and no lexicon, but half a minute of speech of one window and an alphabet.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from scipy.fft import dct

from annotation.speech.text_checks import normalise
from annotation.speech.word_edges import FRAMES, HOP, PAUSE_SECONDS, sounding
from voxmill.core.audio import RATE_16K, runs
from voxmill.data.languages import CHARACTER_BASED, base_language
from voxmill.data.records import Word

ALIGNER = "letters of its window, from whisper cross-attention"
MIN_SECONDS = 30.0
"""Of clips of one window and language; less does not train letters."""
CEPSTRA, STATES, ROUNDS = 13, 2, 2
REACH_SECONDS = 0.35
"""So far from its first times a word may be moved."""
PIECE_SECONDS, LONGEST_PIECE_SECONDS = 20.0, 40.0
"""Of a clip that is aligned at once: up to the next pause, at most."""
OTHERWISE = 30.0
"""Log probability that silence costs where it sounds, and a word where it is silent."""
# Letters that are rare are kept near the mean of all: so many frames of it are added to theirs.
PRIOR_MEAN, PRIOR_VARIANCE = 2.0, 5.0
NEVER = -1e9
SILENCE = 0


@dataclass(frozen=True, slots=True)
class TimedClip:
    """A clip, float32 [samples] at 16 kHz, and its words in seconds of it."""

    audio: np.ndarray
    words: tuple[Word, ...]


@dataclass(slots=True)
class _Piece:
    """A part of a clip between two pauses.

    clip, first: number of the clip and of its first word here. start: its first frame in the clip. times: first ones of
    its words, in seconds of it, [W, 2]. cepstra: [T, 39]. silent: bool [T], of pauses. units, words: of each state,
    [N]: letter and half of it, number of the word or -1.
    path: state of each frame, [T].
    """

    clip: int
    first: int
    start: int
    times: np.ndarray
    cepstra: np.ndarray
    silent: np.ndarray
    units: np.ndarray
    words: np.ndarray
    path: np.ndarray


def letter_times(clips: Sequence[TimedClip], language: str) -> list[tuple[Word, ...]] | None:
    """The words of clips of one window and language at better times; None where these do not suffice for a model."""
    if base_language(language) in CHARACTER_BASED or sum(len(clip.audio) for clip in clips) < MIN_SECONDS * RATE_16K:
        return None
    letters = sorted({char for clip in clips for word in clip.words for char in _letters(word)})
    units = {char: number for number, char in enumerate(letters, start=SILENCE + 1)}
    pieces = [piece for number, clip in enumerate(clips) for piece in _pieces(number, clip, units)]
    if not pieces:
        return None
    for _ in range(ROUNDS):
        means, variances = _gaussians(pieces, (len(units) + 1) * STATES)
        for piece in pieces:
            path = _best_path(piece, means, variances)
            piece.path = piece.path if path is None else path
    words = [list(clip.words) for clip in clips]
    for piece in pieces:
        for number in range(len(piece.times)):
            frames = np.flatnonzero(piece.words[piece.path] == number)
            if len(frames):
                start, end = piece.start + frames[0], piece.start + frames[-1] + 1
                own = words[piece.clip]
                own[piece.first + number] = dataclasses.replace(
                    own[piece.first + number], start=round(float(start) / FRAMES, 3), end=round(float(end) / FRAMES, 3)
                )
    return [tuple(own) for own in words]


def _letters(word: Word) -> str:
    return normalise(word.word).replace(" ", "").replace("'", "")


def _pieces(number: int, clip: TimedClip, units: dict[str, int]) -> Iterator[_Piece]:
    """A clip in pieces with the paths that its first times give."""
    frames = len(clip.audio) // HOP
    if not clip.words or frames < 2:
        return
    cepstra, silent = _cepstra(clip.audio)[:frames], _pauses(sounding(clip.audio)[:frames])
    for first, last in _parts(clip.words):
        own = clip.words[first:last]
        low = 0 if first == 0 else _border(clip.words, first)
        high = frames if last == len(clip.words) else min(_border(clip.words, last), frames)
        if high - low < 2:
            continue
        states, of_word = [SILENCE * STATES], [-1]
        for place, word in enumerate(own):
            inner = [units[char] * STATES + half for char in _letters(word) for half in range(STATES)]
            states += [*inner, SILENCE * STATES]
            of_word += [*[place] * len(inner), -1]
        times = np.array([(word.start - low / FRAMES, word.end - low / FRAMES) for word in own])
        piece = _Piece(
            clip=number,
            first=first,
            start=low,
            times=times,
            cepstra=cepstra[low:high],
            silent=silent[low:high],
            units=np.array(states),
            words=np.array(of_word),
            path=np.zeros(high - low, dtype=np.int64),
        )
        piece.path = _first_path(piece)
        yield piece


def _parts(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """Words that are aligned together, as ranges."""
    first = 0
    for number in range(1, len(words)):
        seconds = words[number].start - words[first].start
        pause = words[number].start - words[number - 1].end >= PAUSE_SECONDS
        if seconds >= LONGEST_PIECE_SECONDS or (pause and seconds >= PIECE_SECONDS):
            yield first, number
            first = number
    yield first, len(words)


def _border(words: Sequence[Word], number: int) -> int:
    """The frame between a word and the one before."""
    return round((words[number - 1].end + words[number].start) / 2 * FRAMES)


def _cepstra(audio: np.ndarray) -> np.ndarray:
    """Normalised cepstra with their first and second differences, [frames, 39]."""
    log_mel = FeatureExtractor()(audio)
    cepstra = dct(log_mel, axis=0, norm="ortho")[:CEPSTRA]
    slopes = np.gradient(cepstra, axis=1)
    both = np.concatenate([cepstra, slopes, np.gradient(slopes, axis=1)]).T.astype(np.float64)
    normal: np.ndarray = (both - both.mean(axis=0)) / (both.std(axis=0) + 1e-6)
    return normal


def _pauses(sounds: np.ndarray) -> np.ndarray:
    """Whether each frame lies in a silence as long as a pause."""
    silent = np.zeros(len(sounds), dtype=bool)
    for start, end in runs(~sounds):
        silent[start:end] = end - start >= PAUSE_SECONDS * FRAMES
    return silent


def _first_path(piece: _Piece) -> np.ndarray:
    """The states of a word in equal parts of its first time, silence between words."""
    path = np.zeros(len(piece.path), dtype=np.int64)
    for number, (start, end) in enumerate(piece.times):
        own = np.flatnonzero(piece.words == number)
        low, high = max(round(start * FRAMES), 0), min(round(end * FRAMES), len(path))
        if len(own) and low < high:
            path[low:high] = own[np.arange(high - low) * len(own) // (high - low)]
            path[high:] = own[-1] + 1
    return path


def _gaussians(pieces: Sequence[_Piece], num: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances [num, 39] of what the paths give each unit."""
    frames = np.concatenate([piece.cepstra for piece in pieces])
    units = np.concatenate([piece.units[piece.path] for piece in pieces])
    mean, variance = frames.mean(axis=0), frames.var(axis=0)
    means, variances = np.tile(mean, (num, 1)), np.tile(variance, (num, 1))
    for unit in np.unique(units):
        own = frames[units == unit]
        means[unit] = (own.sum(axis=0) + PRIOR_MEAN * mean) / (len(own) + PRIOR_MEAN)
        squares = np.square(own - means[unit]).sum(axis=0)
        variances[unit] = (squares + PRIOR_VARIANCE * variance) / (len(own) + PRIOR_VARIANCE)
    return means, variances


def _best_path(piece: _Piece, means: np.ndarray, variances: np.ndarray) -> np.ndarray | None:
    """The likeliest states in their order, silences left out where there are none; None where they do not fit."""
    scores = _scores(piece, means, variances)
    frames, states = scores.shape
    is_silence = piece.words < 0
    may_skip = np.concatenate([[False, False], is_silence[1:-1]])[:states]
    best = np.full(states, NEVER)
    best[:2] = scores[0, :2]
    moves = np.zeros((frames, states), dtype=np.int8)
    for frame in range(1, frames):
        options = np.full((3, states), NEVER)
        options[0], options[1, 1:] = best, best[:-1]
        options[2, 2:] = np.where(may_skip[2:], best[:-2], NEVER)
        moves[frame] = options.argmax(axis=0)
        best = options.max(axis=0) + scores[frame]
    state = states - 1 if best[-1] > best[-2] else states - 2
    if best[state] < NEVER / 2:
        return None
    path = np.zeros(frames, dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= int(moves[frame, state])
    return path


def _scores(piece: _Piece, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Log probabilities of all states in all frames, [T, N]."""
    used, place = np.unique(piece.units, return_inverse=True)
    distances = np.square(piece.cepstra[:, None] - means[used]) / variances[used]
    scores: np.ndarray = (-0.5 * (distances.sum(axis=2) + np.log(variances[used]).sum(axis=1)))[:, place]
    is_silence = piece.words < 0
    scores[np.ix_(piece.silent, ~is_silence)] -= OTHERWISE
    scores[np.ix_(~piece.silent, is_silence)] -= OTHERWISE
    seconds = np.arange(len(scores)) / FRAMES
    first, last = piece.times[:, 0] - REACH_SECONDS, piece.times[:, 1] + REACH_SECONDS
    far = (seconds[:, None] < first) | (seconds[:, None] > last)
    scores[:, ~is_silence] += NEVER / 1e5 * far[:, piece.words[~is_silence]]
    return scores
