"""How true the labels are, on recordings of which the words are known; writes docs/truth.md.

    python benchmarks/truth.py [--folder DIR]

First the sample recordings as they are, then two of them under real music at 0, 5 and 10 dB, with separation switched
off, on with the separated voice or the recording transcribed, and by the job's default. The text is known by turns:
word times are compared at the first word's start and the last word's end of each turn. The voices are studio prompts,
easier than most speech. The last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.speech.text_checks import tokens  # noqa: E402
from benchmarks.support.tables import markdown, table  # noqa: E402
from samples.annotate_process import run_job  # noqa: E402
from samples.turns import SAMPLES  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402

MIXED = ("en-1", "it-1")
LEVELS_DB = (0, 5, 10)
MODES = {
    "never": ["label.separation.mode=never"],
    "voice": ["label.separation.mode=always", "label.transcription.transcribe_from=separated"],
    "recorded": ["label.separation.mode=always"],
    "default": [],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueTurn:
    """A known turn of a recording, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptClip:
    """A clip of the dataset, in seconds of its recording; `words`: start and end from the clip's start."""

    start: float
    end: float
    text: str
    words: tuple[tuple[float, float], ...]


@dataclass
class Score:
    """Counts that add up over recordings."""

    words: int = 0
    words_kept: float = 0.0
    errors: int = 0
    compared: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def __iadd__(self, other: "Score") -> "Score":
        self.words += other.words
        self.words_kept += other.words_kept
        self.errors += other.errors
        self.compared += other.compared
        self.starts += other.starts
        self.ends += other.ends
        return self

    @property
    def wer(self) -> float | None:
        return self.errors / self.compared if self.compared else None

    def row(self, name: str) -> list[str]:
        edges = [_spread(self.starts), _spread(self.ends)]
        wer = "-" if self.wer is None else f"{self.wer:.1%}"
        return [name, str(self.words), f"{self.words_kept / max(self.words, 1):.1%}", wer, *edges]


HEADINGS = ["recording", "true words", "in kept clips", "WER", "word start error", "word end error"]


def _spread(seconds: list[float]) -> str:
    """Median and 90th percentile of absolute errors, in milliseconds."""
    if not seconds:
        return "-"
    return f"{np.median(seconds) * 1000:.0f} / {np.percentile(seconds, 90) * 1000:.0f} ms"


def score(turns: list[TrueTurn], clips: list[KeptClip], language: str) -> Score:
    """Compares one recording's kept clips with its true turns."""
    import jiwer

    result = Score()
    words = [(clip.start + start, clip.start + end) for clip in clips for start, end in clip.words]
    truth: list[str] = []
    for turn in turns:
        spoken = tokens(turn.text, language)
        inside = sum(max(min(clip.end, turn.end) - max(clip.start, turn.start), 0.0) for clip in clips)
        share = min(inside / (turn.end - turn.start), 1.0)
        result.words += len(spoken)
        result.words_kept += len(spoken) * (1.0 if share > 0.98 else share)
        if share < 0.5:
            continue
        truth += spoken
        mine = [(a, b) for a, b in words if turn.start - 0.4 <= (a + b) / 2 <= turn.end + 0.4]
        if share > 0.9 and mine:
            result.starts.append(abs(mine[0][0] - turn.start))
            result.ends.append(abs(mine[-1][1] - turn.end))
    recognised = [word for clip in clips for word in tokens(clip.text, language)]
    if truth:
        counts = jiwer.process_words(" ".join(truth), " ".join(recognised))
        result.errors = counts.substitutions + counts.deletions + counts.insertions
        result.compared = len(truth)
    return result


def kept_clips(out: Path) -> dict[str, list[KeptClip]]:
    """Kept clips by the recording's name, in order of time."""
    names = {row["recording_id"]: row["path"] for row in pq.read_table(out / "recordings.parquet").to_pylist()}
    clips: dict[str, list[KeptClip]] = {}
    for row in pq.read_table(out / "clips.parquet").to_pylist():
        rate, words = row["sample_rate"], tuple((word["start"], word["end"]) for word in row["words"])
        clip = KeptClip(start=row["start_sample"] / rate, end=row["end_sample"] / rate, text=row["text"], words=words)
        clips.setdefault(names[row["recording_id"]], []).append(clip)
    return {name: sorted(of_name, key=lambda clip: clip.start) for name, of_name in clips.items()}


def read_truth() -> dict[str, list[TrueTurn]]:
    """True turns by the recording's path."""
    records = map(json.loads, (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    return {
        record["path"]: [TrueTurn(start=t["start"], end=t["end"], text=t["text"]) for t in record["turns"]]
        for record in records
    }


def samples_table(folder: Path, address: str) -> list[list[str]]:
    """One row a sample recording of one voice, and one for all without music."""
    out = folder / "samples-out"
    run_job(SAMPLES / "manifest.jsonl", out, address)
    clips, rows, total = kept_clips(out), [], Score()
    for path, turns in read_truth().items():
        name = Path(path).stem
        if not turns or name == "two-at-once":
            continue
        result = score(turns, clips.get(path, []), name[:2])
        rows.append(result.row(name))
        if "music" not in name:
            total += result
    return [*rows, total.row("all without music")]


def mix(folder: Path) -> Path:
    """Writes speech under looped music at every level and a manifest of it."""
    music, rate = soundfile.read(SAMPLES / "recordings" / "music.flac")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in MIXED:
        speech, _ = soundfile.read(SAMPLES / "recordings" / f"{name}.flac")
        under = np.resize(music, len(speech))
        loud = speech[np.abs(speech) > 1e-3]
        for level in LEVELS_DB:
            gain = np.sqrt(np.mean(loud**2) / np.mean(under**2) / 10 ** (level / 10))
            mixed = speech + gain * under
            path = f"{name} {level} dB.flac"
            soundfile.write(folder / path, mixed / max(np.abs(mixed).max(), 1.0), rate)
            rows.append({"path": path, "language": name[:2]})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def separation_table(folder: Path, address: str) -> tuple[list[list[str]], dict[str, float | None]]:
    """WER of all words, for each level: without separation, with it, and by the job's own rule."""
    manifest = mix(folder / "mixed")
    truth, results = read_truth(), {}
    # Selection is off: clips that a threshold drops would hide what separation does to the words.
    open_doors = [f"select.{key}=null" for key in _thresholds()]
    for mode, settings in MODES.items():
        out = folder / f"mixed-{mode}"
        run_job(manifest, out, address, *settings, *open_doors)
        clips = kept_clips(out)
        for level in LEVELS_DB:
            total = Score()
            for name in MIXED:
                total += score(truth[f"recordings/{name}.flac"], clips.get(f"{name} {level} dB.flac", []), name[:2])
            results[mode, level] = total
    rows, numbers = [], {}
    for level in LEVELS_DB:
        cells = []
        for mode in MODES:
            total = results[mode, level]
            cells += ["-" if total.wer is None else f"{total.wer:.1%}", f"{total.words_kept / total.words:.0%}"]
            numbers[f"wer_{mode}_{level}_db"] = total.wer
        rows.append([f"{level} dB", *cells])
    return rows, numbers


def _thresholds() -> list[str]:
    from pipelines.config import SelectConfig

    return [name for name, value in SelectConfig() if isinstance(value, float)]


@command("benchmarks/truth.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where the datasets are made (default: temporary)")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="voxmill-truth-"))
    with local_ray() as address:
        samples = samples_table(folder, address)
        mixed, numbers = separation_table(folder, address)
    modes = ["not separated", "separated, voice transcribed", "separated, recording transcribed", "the default"]
    levels = ["speech to music", *[cell for name in modes for cell in (f"{name}: WER", "words")]]
    console = Console(width=120)
    console.print(table("sample recordings", HEADINGS, samples))
    console.print(table("separation", levels, mixed))
    parts = ["# How true the labels are", "", "Written by `python benchmarks/truth.py`; whisper base, int8.", ""]
    parts += ["Errors of word times are absolute, median / 90th percentile, at the edges of known turns.", ""]
    parts += [markdown(HEADINGS, samples), "", "Two recordings under real music, selection switched off:", ""]
    parts += [markdown(levels, mixed), ""]
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "truth.md").write_text("\n".join(parts), encoding="utf-8")
    print(json.dumps({"wer": samples[-1][3], "words_kept": samples[-1][2], **numbers}))


if __name__ == "__main__":
    sys.exit(main())
