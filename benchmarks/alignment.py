"""How true given texts are as the texts of clips, and the times of their words.

    python benchmarks/alignment.py [--minutes 30] [--folder DIR] [--debs FOLDER] [--set KEY=VALUE ...]

A narration of festvox-ru with the times of its phones (samples/narration.py), strung together to long recordings, and
the sample recordings of one language are annotated three times over the same work units: without their text, with it,
and with 5 % of its words deleted, added or changed. Reported are the text of kept clips against the words that the
phones place in them, the words that kept clips have, how far words begin and end from their phones (beside the
recogniser's own words), and how many of the damaged places the marks find. Of the clips without their text is also
reported how much of what each stage of the curriculum may take is in long ones. The last line is one JSON object.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.speech.text_checks import tokens  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from benchmarks.truth_parts.recordings import sample_truth  # noqa: E402
from samples.annotate_process import run_job  # noqa: E402
from samples.narration import SpokenWord, make  # noqa: E402
from samples.turns import SAMPLES  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402
from voxmill.data.layout import read_index  # noqa: E402

DAMAGED_SHARE = 0.05
SEED = 22
SETTINGS = ("voice_attributes.labellers=[]", "corpus_labels.labels=[]")
LENGTHS = ("minutes", "over_30s", "over_60s", "over_180s")
NEAR_SECONDS = 0.1
"""A mark this near to a damaged place has found it."""

Words = dict[str, tuple[SpokenWord, ...]]
"""What is said in recordings, by their path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A difference that a clip has marked, in seconds of the recording."""

    start: float
    end: float
    likely: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TextClip:
    """A clip of a dataset with its words, in seconds of the recording."""

    start: float
    end: float
    text: str
    language: str
    kept: bool
    words: tuple[SpokenWord, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A place of a text where a word was deleted, added or changed, in seconds of the recording."""

    kind: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Errors and words of the text of kept clips, all words that are said, and distances of their edges in seconds."""

    errors: int = 0
    words: int = 0
    said: int = 0
    edges: tuple[float, ...] = ()

    @property
    def wer(self) -> float:
        return self.errors / max(self.words, 1)

    @property
    def kept(self) -> float:
        return self.words / max(self.said, 1)

    def edge_ms(self, percentile: float) -> float | None:
        """Of the distances; None where no word has its true times."""
        return float(np.percentile(self.edges, percentile) * 1000) if self.edges else None


def read_clips(out: Path) -> dict[str, list[TextClip]]:
    """Clips of a dataset by the path of their recording."""
    clips: dict[str, list[TextClip]] = {}
    for index in ("clips.parquet", "rejected.parquet"):
        for row in read_index(out / index).to_pylist():
            first = row["start_sample"] / row["sample_rate"]
            clip = TextClip(
                start=first,
                end=row["end_sample"] / row["sample_rate"],
                text=row["text"],
                language=row["language"],
                kept=index == "clips.parquet",
                words=tuple(
                    SpokenWord(word=word["word"], start=first + word["start"], end=first + word["end"])
                    for word in row["words"]
                ),
                marks=tuple(
                    Mark(start=first + one["start"], end=first + one["end"], likely=one["likely"])
                    for one in row["text_differences"] or ()
                ),
            )
            clips.setdefault(row["path"], []).append(clip)
    return clips


def long_shares(out: Path) -> dict[str, float]:
    """Share of the seconds of a dataset, and of those that each stage may take, in clips over 30, 60 and 180 s."""
    rows = read_index(out / "clips.parquet", ("duration", "stages")).to_pylist()
    shares = {}
    for name, stage in (("all", None), ("stage1", 1), ("stage2", 2), ("stage3", 3)):
        lengths = [row["duration"] for row in rows if stage is None or stage in (row["stages"] or ())]
        for limit in (30, 60, 180):
            over = sum(length for length in lengths if length > limit)
            shares[f"{name}_over_{limit}s"] = over / max(sum(lengths), 1e-9)
        shares[f"{name}_minutes"] = sum(lengths) / 60
    return shares


def measure(said: Words, clips: dict[str, list[TextClip]], *, timed: bool) -> Measured:
    """Kept clips beside what is said in them: the words whose middle lies in them."""
    errors, words, edges = 0, 0, list[float]()
    for path, spoken in said.items():
        for clip in clips.get(path, []):
            own = [word for word in spoken if clip.start <= (word.start + word.end) / 2 < clip.end]
            if clip.kept:
                expected = tokens(" ".join(word.word for word in own), clip.language)
                errors += Levenshtein.distance(expected, tokens(clip.text, clip.language))
                words += len(expected)
                edges += _edges(own, clip) if timed else []
    total = sum(len(tokens(word.word, "en")) for spoken in said.values() for word in spoken)
    return Measured(errors=errors, words=words, said=total, edges=tuple(edges))


def _edges(said: Sequence[SpokenWord], clip: TextClip) -> Iterator[float]:
    """Distances of the starts and ends of words that the clip's text has."""
    true, own = [_form(word, clip) for word in said], [_form(word, clip) for word in clip.words]
    for code in Levenshtein.opcodes(true, own):
        if code.tag == "equal":
            for a, b in zip(said[code.src_start : code.src_end], clip.words[code.dest_start :], strict=False):
                yield abs(a.start - b.start)
                yield abs(a.end - b.end)


def _form(word: SpokenWord, clip: TextClip) -> str:
    return " ".join(tokens(word.word, clip.language))


def damage(words: Sequence[SpokenWord], rng: random.Random) -> tuple[str, list[Damage]]:
    """A text of which some words are deleted, added or changed to others of it, and where."""
    text, places = list[str](), list[Damage]()
    for number, word in enumerate(words):
        if rng.random() >= DAMAGED_SHARE:
            text.append(word.word)
            continue
        kind = rng.choice(("deleted", "added", "changed"))
        other = next(one.word for one in iter(lambda: rng.choice(words), None) if one.word != word.word)
        if kind == "changed":
            text.append(other)
        elif kind == "added":
            text += [word.word, other]
        after = words[number + 1].start if number + 1 < len(words) else word.end
        start, end = (word.end, max(after, word.end)) if kind == "added" else (word.start, word.end)
        places.append(Damage(kind=kind, start=start, end=end))
    return " ".join(text), places


def found(places: Sequence[Damage], clips: Sequence[TextClip], *, likely: bool) -> int:
    """How many damaged places a mark is at."""
    marks = [mark for clip in clips for mark in clip.marks if mark.likely or not likely]
    return sum(
        any(mark.start - NEAR_SECONDS <= place.end and place.start <= mark.end + NEAR_SECONDS for mark in marks)
        for place in places
    )


def sample_words() -> tuple[Words, dict[str, str]]:
    """What is said in the samples, times within a turn by characters, and their languages."""
    said, languages = {}, {}
    for path, turns in sample_truth().items():
        words: list[SpokenWord] = []
        for turn in turns:
            own = turn.text.split()
            ends = np.cumsum([len(word) + 1 for word in own]) / sum(len(word) + 1 for word in own)
            times = [turn.start + (turn.end - turn.start) * share for share in (0.0, *ends)]
            words += [
                SpokenWord(word=word, start=start, end=end)
                for word, start, end in zip(own, times, times[1:], strict=False)
            ]
        said[path], languages[path] = tuple(words), turns[0].language
    return said, languages


def narration_words(folder: Path) -> Words:
    """What is said in the narration, by the phones."""
    rows = map(json.loads, (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["path"]: tuple(SpokenWord(**word) for word in row["words"]) for row in rows}


def write_manifest(file: Path, folder: Path, languages: dict[str, str], texts: dict[str, str]) -> None:
    """A manifest of recordings below `folder`, with those texts that are given."""
    rows = [
        {"path": str(folder / path), "session": path, "language": language}
        | ({"text": texts[path]} if path in texts else {})
        for path, language in languages.items()
    ]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A corpus without its text, with it, and with a damaged one; how many places are damaged and found."""

    recognised: Measured
    given: Measured
    damaged: Measured
    places: int
    found: int
    found_likely: int
    long: dict[str, float]


def run(
    name: str,
    folder: Path,
    recordings: Path,
    said: Words,
    languages: dict[str, str],
    address: str,
    settings: Sequence[str] = (),
) -> Runs:
    """Annotates a corpus three times; the recogniser runs once."""
    rng = random.Random(SEED)
    whole = {path: " ".join(word.word for word in words) for path, words in said.items()}
    damages = {path: damage(words, rng) for path, words in said.items()}
    measured, clips, long = [], dict[str, list[TextClip]](), list[dict[str, float]]()
    for texts in ({}, whole, {path: text for path, (text, _) in damages.items()}):
        manifest, out = folder / f"{name}.jsonl", folder / f"{name}-out"
        write_manifest(manifest, recordings, languages, texts)
        run_job(manifest, out, address, *SETTINGS, *settings)
        clips = {str(Path(path).relative_to(recordings)): own for path, own in read_clips(out).items()}
        measured.append(measure(said, clips, timed=name == "narration"))
        long.append(long_shares(out))
    places = [(path, place) for path, (_, own) in damages.items() for place in own]

    def count(likely: bool) -> int:
        return sum(found([place], clips.get(path, []), likely=likely) for path, place in places)

    return Runs(
        recognised=measured[0],
        given=measured[1],
        damaged=measured[2],
        places=len(places),
        found=count(likely=False),
        found_likely=count(likely=True),
        long=long[0],
    )


def _row(name: str, one: Measured) -> list[str]:
    edges = "-" if not one.edges else f"{one.edge_ms(50):.0f} / {one.edge_ms(90):.0f} ms"
    return [name, f"{one.wer:.4f}", f"{one.kept:.3f}", str(one.said), edges]


def report(runs: dict[str, Runs], console: Console) -> dict[str, float | int | None]:
    """Prints the table; returns the numbers."""
    headings = ["corpus and text", "WER of kept clips", "words kept", "words", "edges: median / 90 %"]
    rows = []
    for name, own in runs.items():
        rows += [_row(f"{name}, recognised", own.recognised), _row(f"{name}, given", own.given)]
        rows.append(_row(f"{name}, given and damaged", own.damaged))
    console.print(table("Given texts", headings, rows))
    marks = [[name, str(own.places), str(own.found), str(own.found_likely)] for name, own in runs.items()]
    console.print(table("Damaged places", ["corpus", "places", "marked", "marked as likely"], marks))
    lengths = [
        [name, stage, *(f"{own.long[f'{stage}_{what}']:.3f}" for what in LENGTHS)]
        for name, own in runs.items()
        for stage in ("all", "stage1", "stage2", "stage3")
    ]
    console.print(table("Share of the seconds in long clips", ["corpus", "for", *LENGTHS], lengths))
    words, said = (sum(getattr(own.given, name) for own in runs.values()) for name in ("words", "said"))
    places = sum(own.places for own in runs.values())
    timed = runs.get("narration")
    return {
        "given_text_wer": sum(own.given.errors for own in runs.values()) / max(words, 1),
        "given_words_kept": words / max(said, 1),
        "boundary_ms_p50": None if timed is None else timed.given.edge_ms(50),
        "boundary_ms_p90": None if timed is None else timed.given.edge_ms(90),
        "recognised_boundary_ms_p50": None if timed is None else timed.recognised.edge_ms(50),
        "recognised_boundary_ms_p90": None if timed is None else timed.recognised.edge_ms(90),
        "damage_marked": sum(own.found for own in runs.values()) / max(places, 1),
        "damage_marked_likely": sum(own.found_likely for own in runs.values()) / max(places, 1),
        "damaged_text_wer": sum(own.damaged.errors for own in runs.values())
        / max(sum(own.damaged.words for own in runs.values()), 1),
        **({} if timed is None else timed.long),
    }


@command("benchmarks/alignment.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of the narration; 0: the samples alone")
    parser.add_argument("--recording-minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=None, help="where the datasets are made (default: temporary)")
    parser.add_argument("--debs", type=Path, default=None, help="folder with festvox-ru already extracted")
    parser.add_argument(
        "--set", nargs="*", default=[], help="settings of the job, such as label.alignment.letters=false"
    )
    parser.add_argument("--no-samples", action="store_true", help="the narration alone")
    arguments = parser.parse_args()
    runs: dict[str, Runs] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with local_ray() as address:
            if arguments.minutes:
                make(folder / "narration", arguments.minutes, arguments.recording_minutes, arguments.debs)
                said = narration_words(folder / "narration")
                languages = dict.fromkeys(said, "ru")
                runs["narration"] = run(
                    "narration", folder, folder / "narration", said, languages, address, arguments.set
                )
            if not arguments.no_samples:
                said, languages = sample_words()
                runs["samples"] = run("samples", folder, SAMPLES, said, languages, address, arguments.set)
        print(json.dumps(report(runs, Console(width=120))))


if __name__ == "__main__":
    main()
