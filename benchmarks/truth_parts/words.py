"""Words and their times: in the sample recordings as they are, and in two of them under real music."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from annotation.speech.text_checks import tokens
from benchmarks.truth_parts.recordings import DatasetClip, TrueTurn, Truth, dataset_clips, kept, sample_truth
from samples.annotate_process import run_job
from samples.turns import SAMPLES

MIXED = ("en-1", "it-1")
LEVELS_DB = (0, 5, 10)
MODES = {
    "never": ["label.separation.mode=never"],
    "voice": ["label.separation.mode=always", "label.transcription.transcribe_from=separated"],
    "recorded": ["label.separation.mode=always"],
    "default": [],
}


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

    @property
    def share_kept(self) -> float:
        return self.words_kept / max(self.words, 1)

    def row(self, name: str) -> list[str]:
        edges = [_spread(self.starts), _spread(self.ends)]
        return [name, str(self.words), f"{self.share_kept:.1%}", percent(self.wer), *edges]


HEADINGS = ["recording", "true words", "in kept clips", "WER", "word start error", "word end error"]


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _spread(seconds: list[float]) -> str:
    """Median and 90th percentile of absolute errors, in milliseconds."""
    if not seconds:
        return "-"
    return f"{np.median(seconds) * 1000:.0f} / {np.percentile(seconds, 90) * 1000:.0f} ms"


def score(turns: Sequence[TrueTurn], clips: Sequence[DatasetClip]) -> Score:
    """Compares one recording's kept clips with its true turns, which are in one language."""
    import jiwer

    result, language = Score(), turns[0].language
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


def samples_table(truth: Truth, out: Path) -> tuple[list[list[str]], Score]:
    """One row a sample recording of one voice, and one for all without music, from the dataset at `out`."""
    clips, rows, total = dataset_clips(out), [], Score()
    for path, turns in truth.items():
        result = score(turns, kept(clips.get(path, [])))
        rows.append(result.row(Path(path).stem))
        if "music" not in path:
            total += result
    return [*rows, total.row("all without music")], total


def _mix(folder: Path) -> Path:
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
    manifest = _mix(folder / "with-music")
    truth, results = sample_truth(), {}
    # Selection is off: clips that a threshold drops would hide what separation does to the words.
    open_doors = [f"select.{key}=null" for key in _thresholds()]
    for mode, settings in MODES.items():
        out = folder / f"with-music-{mode}"
        run_job(manifest, out, address, *settings, *open_doors)
        clips = dataset_clips(out)
        for level in LEVELS_DB:
            total = Score()
            for name in MIXED:
                total += score(truth[f"recordings/{name}.flac"], kept(clips.get(f"{name} {level} dB.flac", [])))
            results[mode, level] = total
    rows, numbers = [], {}
    for level in LEVELS_DB:
        cells = []
        for mode in MODES:
            total = results[mode, level]
            cells += [percent(total.wer), f"{total.share_kept:.0%}"]
            numbers[f"wer_{mode}_{level}_db"] = total.wer
        rows.append([f"{level} dB", *cells])
    return rows, numbers


def _thresholds() -> list[str]:
    from pipelines.config import SelectConfig

    return [name for name, value in SelectConfig() if isinstance(value, float)]
