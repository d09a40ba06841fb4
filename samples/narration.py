"""Makes long recordings of a narration with known words and their times, for benchmarks/alignment.py.

    python samples/narration.py FOLDER [--minutes 99] [--recording-minutes 10] [--debs FOLDER]

The Debian package festvox-ru has a book's sentences as read by one voice, with their text and the times of their
phones. They are strung together in their order with pauses, and the phones tell where each word begins and ends:
letters are aligned with phones, and sentences whose letters do not fit are left out. Writes `recordings/`, each
recording's text beside it, `manifest.jsonl` and `truth.jsonl`. The package's licence is its own: nothing of it is kept
here.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from samples.known_text import NARRATION, RATE, SEED

PACKAGE = "festvox-ru"
PAUSE = "pau"
MARGIN_SECONDS = 0.1
"""Silence that is left on both sides of a sentence."""
MAX_COST = 0.08
"""Of the alignment of letters and phones, a letter."""

_VOWELS = {
    "а": "a aa ae ay",
    "о": "o oo a aa ae ay",
    "у": "u uu ur",
    "ы": "y yy i",
    "э": "e ee i y",
    "и": "i ii y yy ay",
    "е": "e ee ay i y ae",
    "ё": "oo ay",
    "ю": "u uu ur",
    "я": "a aa ae ay i",
}
_CONSONANTS = {
    "б": "b bb p pp",
    "в": "v vv f ff",
    "г": "g gg k kk v vv h hh",
    "д": "d dd t tt c",
    "ж": "zh sh",
    "з": "z zz s ss zh sh",
    "й": "j",
    "к": "k kk g gg h",
    "л": "l ll",
    "м": "m mm",
    "н": "n nn",
    "п": "p pp b bb",
    "р": "r rr",
    "с": "s ss z zz sh zh sch",
    "т": "t tt d dd c",
    "ф": "f ff v",
    "х": "h hh",
    "ц": "c s",
    "ч": "ch sh sch",
    "ш": "sh zh",
    "щ": "sch sh",
}
_PHONES = {letter: set(phones.split()) for letter, phones in (_VOWELS | _CONSONANTS).items()}
_SILENT = "ьъ"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenWord:
    """A word with its punctuation, in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence of the narration; its words are in seconds of its file."""

    path: Path
    words: tuple[SpokenWord, ...]


def sentences(root: Path) -> Iterator[Sentence]:
    """The sentences of the extracted package whose letters and phones fit, in the order of the book."""
    folder = root / NARRATION
    for line in (folder / "etc" / "txt.done.data").read_text(encoding="utf-8").splitlines():
        match = re.match(r'\( (\w+) "(.*)" \)', line)
        if match is None:
            continue
        text = re.sub(r"\s+-\s+", " ", match[2].replace("+", ""))
        words = place_words(text.split(), read_phones(folder / "lab" / f"{match[1]}.lab"))
        if words is not None:
            yield Sentence(path=folder / "wav" / f"{match[1]}.wav", words=words)


def read_phones(path: Path) -> list[tuple[str, float, float]]:
    """(phone, start, end) of a festival label file, pauses left out."""
    phones, start = [], 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) == 3:
            end = float(fields[0])
            if fields[2] != PAUSE:
                phones.append((fields[2], start, end))
            start = end
    return phones


def place_words(words: Sequence[str], phones: Sequence[tuple[str, float, float]]) -> tuple[SpokenWord, ...] | None:
    """Words with the times of their phones; None where letters and phones do not fit."""
    letters = [(letter, number) for number, word in enumerate(words) for letter in word.lower() if letter.isalpha()]
    if not letters or not phones or any(letter not in _PHONES and letter not in _SILENT for letter, _ in letters):
        return None
    word_of, cost = _align([letter for letter, _ in letters], [phone for phone, _, _ in phones])
    if cost / len(letters) > MAX_COST:
        return None
    bounds: dict[int, tuple[float, float]] = {}
    for place, (_, start, end) in zip(word_of, phones, strict=True):
        number = letters[place][1]
        bounds[number] = (bounds.get(number, (start, end))[0], end)
    if len(bounds) != len(words):
        return None
    return tuple(SpokenWord(word=word, start=bounds[n][0], end=bounds[n][1]) for n, word in enumerate(words))


def _align(letters: Sequence[str], phones: Sequence[str]) -> tuple[list[int], float]:
    """The letter that each phone belongs to, and the cost of that: 0 for what is pronounced as it is written."""
    rows, columns = len(letters), len(phones)
    costs = np.full((rows + 1, columns + 1), np.inf)
    moves = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    costs[0, 0] = 0.0
    for i in range(rows + 1):
        for j in range(columns + 1):
            options = [
                (costs[i - 1, j - 1] + _mismatch(letters[i - 1], phones[j - 1]) if i and j else np.inf, 0),
                (costs[i - 1, j] + (0.0 if letters[i - 1] in _SILENT else 0.7) if i else np.inf, 1),
                (costs[i, j - 1] + (0.05 if phones[j - 1] == "j" else 0.7) if j else np.inf, 2),
            ]
            if i or j:
                costs[i, j], moves[i, j] = min(options)
    word_of, i, j = [0] * columns, rows, columns
    while i or j:
        move = moves[i, j]
        if move != 1:
            j -= 1
            # A phone that no letter is written for is the glide before the next vowel.
            word_of[j] = i - 1 if move == 0 else min(i, rows - 1)
        if move != 2:
            i -= 1
    return word_of, float(costs[rows, columns])


def _mismatch(letter: str, phone: str) -> float:
    if letter in _SILENT:
        return 2.0
    if phone in _PHONES[letter]:
        return 0.0
    return 0.6 if (letter in _VOWELS) == (phone[0] in "aeiouy") else 2.0


def write(root: Path, out: Path, minutes: float, recording_minutes: float) -> None:
    """Writes recordings, their texts, manifest and truth."""
    (out / "recordings").mkdir(parents=True, exist_ok=True)
    rng, noise = random.Random(SEED), np.random.default_rng(SEED)
    manifest: list[dict[str, str]] = []
    truth: list[dict[str, object]] = []
    pieces, words, seconds = list[np.ndarray](), list[dict[str, object]](), 0.0

    def close() -> None:
        name = f"recordings/book-{len(truth):02d}.flac"
        sound = np.concatenate(pieces)
        sound = sound + noise.standard_normal(len(sound)).astype(np.float32) * 10 ** (-75 / 20)
        soundfile.write(out / name, sound, RATE, subtype="PCM_16")
        (out / name).with_suffix(".txt").write_text(" ".join(str(word["word"]) for word in words), encoding="utf-8")
        manifest.append({"path": name, "session": Path(name).stem, "speaker": "narrator", "language": "ru"})
        truth.append({"path": name, "words": words[:]})

    for sentence in sentences(root):
        if seconds >= minutes * 60:
            break
        if not pieces:
            pieces.append(np.zeros(RATE // 2, np.float32))
        samples, rate = soundfile.read(sentence.path, dtype="float32")
        assert rate == RATE and samples.ndim == 1
        first = max(sentence.words[0].start - MARGIN_SECONDS, 0.0)
        audio = samples[round(first * RATE) : round((sentence.words[-1].end + MARGIN_SECONDS) * RATE)]
        offset = sum(map(len, pieces)) / RATE - round(first * RATE) / RATE
        words += [
            {"word": word.word, "start": round(word.start + offset, 4), "end": round(word.end + offset, 4)}
            for word in sentence.words
        ]
        pieces += [audio, np.zeros(round(rng.uniform(0.3, 0.9) * RATE), np.float32)]
        seconds += (len(pieces[-1]) + len(audio)) / RATE
        if sum(map(len, pieces)) / RATE >= recording_minutes * 60:
            close()
            pieces, words = [], []
    if pieces:
        close()
    for file, rows in (("manifest.jsonl", manifest), ("truth.jsonl", truth)):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (out / file).write_text("".join(lines), encoding="utf-8")


def make(out: Path, minutes: float, recording_minutes: float, debs: Path | None) -> None:
    """The same from Debian's archive, or from the package where it is already extracted."""
    if debs is not None:
        write(debs, out, minutes, recording_minutes)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", PACKAGE], check=True, cwd=folder)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), folder], check=True)
        write(Path(folder), out, minutes, recording_minutes)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--minutes", type=float, default=99.0)
    parser.add_argument("--recording-minutes", type=float, default=10.0)
    parser.add_argument("--debs", type=Path, help="folder with the Debian package already extracted")
    arguments = parser.parse_args()
    make(arguments.out, arguments.minutes, arguments.recording_minutes, arguments.debs)


if __name__ == "__main__":
    main()
