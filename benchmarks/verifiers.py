"""How often the classifiers that verify descriptions are right, on speech whose labels are known.

    python benchmarks/verifiers.py [--labelled MANIFEST.jsonl] [--gender-model ...] [--emotion-model ...]

Without a manifest: the sample voices whose gender follows from the names in their credits (not checked by listening). A
manifest has a line a clip with `path`, `speaker` and any of `gender` and `emotion`. Clips of one speaker err together,
so there are two intervals: Wilson's over clips, and a bootstrap over speakers, which is the one that applies to other
voices; it is left out below three speakers, and where all answers are right. An abstention is neither right nor wrong
and is counted by itself. The last line is one JSON object.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.voice.emotion import EmotionClassifier, EmotionConfig  # noqa: E402
from annotation.voice.gender import GenderClassifier, GenderConfig  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.turns import RATE, sample_turns  # noqa: E402
from voxmill.core.assets import asset_path  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402

SAMPLE_GENDERS = {"allison-smith": "female", "june-wallack": "female", "carlo-flora": "male"}


@dataclass(frozen=True)
class Labelled:
    """One clip, float32 [samples] at 16 kHz, with what is known of it."""

    speaker: str
    audio: np.ndarray
    labels: dict[str, str]


@dataclass(frozen=True)
class Accuracy:
    """Counts of one attribute, with 95 % intervals of right over answered, 0..1; None where there are none."""

    clips: int
    answered: int
    right: int
    over_clips: tuple[float, float] | None
    over_speakers: tuple[float, float] | None


def sample_clips() -> list[Labelled]:
    """The sample turns of voices whose gender is known."""
    return [
        Labelled(turn.speaker, turn.audio, {"gender": SAMPLE_GENDERS[turn.speaker]})
        for turn in sample_turns()
        if turn.speaker in SAMPLE_GENDERS
    ]


def read_labelled(manifest: Path) -> list[Labelled]:
    """Reads a manifest; relative paths are beside it.

    Raises:
        UserError: a line is not JSON or lacks `path` or `speaker`, or an audio file cannot be read.
    """
    import soxr

    clips = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            audio, rate = soundfile.read(manifest.parent / row["path"], dtype="float32", always_2d=True)
            labels = {name: str(row[name]) for name in ("gender", "emotion") if row.get(name)}
            mono = soxr.resample(audio.mean(axis=1), rate, RATE).astype(np.float32)
            clips.append(Labelled(str(row["speaker"]), mono, labels))
        except (ValueError, KeyError, TypeError, soundfile.LibsndfileError) as error:
            raise UserError(
                f"{manifest}:{number}: {type(error).__name__} {error}; a line needs path, speaker"
            ) from error
    return clips


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float] | None:
    """Wilson's interval of a share, 0..1; None without any trial."""
    if not total:
        return None
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * float(np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def over_speakers(
    speakers: Sequence[str], right: Sequence[bool], resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the share of right answers over resampled speakers; None below three speakers.

    None, too, where all answers are alike: no speaker differs, and the bootstrap would claim to be certain.
    """
    names = sorted(set(speakers))
    if len(names) < 3 or len(set(right)) < 2:
        return None
    counts = np.array([[sum(s == name for s in speakers), 0] for name in names])
    for speaker, is_right in zip(speakers, right, strict=True):
        counts[names.index(speaker), 1] += is_right
    drawn = counts[np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 1] / drawn[:, 0], [0.025, 0.975])
    return float(low), float(high)


def accuracy(speakers: Sequence[str], truth: Sequence[str], answers: Sequence[str | None]) -> Accuracy:
    """Counts and intervals of answers; None is an abstention."""
    given = [(s, answer == label) for s, label, answer in zip(speakers, truth, answers, strict=True) if answer]
    right = sum(is_right for _, is_right in given)
    spread = over_speakers([s for s, _ in given], [is_right for _, is_right in given])
    return Accuracy(len(truth), len(given), right, wilson(right, len(given)), spread)


def _cells(name: str, measured: Accuracy, seconds: float | None) -> list[str]:
    def interval(bounds: tuple[float, float] | None) -> str:
        return "-" if bounds is None else f"{bounds[0]:.0%} to {bounds[1]:.0%}"

    share = f"{measured.right}/{measured.answered}" if measured.answered else "-"
    return [
        name,
        str(measured.clips),
        str(measured.clips - measured.answered),
        share,
        f"{measured.right / measured.answered:.0%}" if measured.answered else "-",
        interval(measured.over_clips),
        interval(measured.over_speakers),
        "-" if seconds is None else f"{seconds:.3f}",
    ]


@command("benchmarks/verifiers.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="JSONL of labelled clips; the sample voices without it")
    parser.add_argument("--gender-model", default="embedded")
    parser.add_argument("--emotion-model", default=None)
    options = parser.parse_args()
    clips = read_labelled(options.labelled) if options.labelled else sample_clips()
    weights = asset_path("voice2gender") if options.gender_model == "embedded" else None
    gender = GenderClassifier(GenderConfig(model=options.gender_model), weights)
    emotion = EmotionClassifier(EmotionConfig(model=options.emotion_model))
    rows: list[list[str]] = []
    numbers: dict[str, float | int | None] = {}
    for name, classify in (("gender", gender), ("emotion", emotion)):
        known = [clip for clip in clips if name in clip.labels]
        started = time.perf_counter()
        answers = [label.value.label if label.value else None for label in classify([clip.audio for clip in known])]
        seconds = (time.perf_counter() - started) / len(known) if known else None
        truth = [clip.labels[name] for clip in known]
        whole = accuracy([clip.speaker for clip in known], truth, answers)
        rows.append(_cells(name, whole, seconds))
        numbers |= {f"{name}_answered": whole.answered, f"{name}_right": whole.right}
        for label in sorted(set(truth)):
            part = [i for i, value in enumerate(truth) if value == label]
            one = accuracy([known[i].speaker for i in part], [label] * len(part), [answers[i] for i in part])
            rows.append(_cells(f"  {label}", one, None))
    headings = ["", "clips", "abstained", "right", "", "95 % over clips", "over speakers", "s a clip"]
    Console(width=110).print(table("verifiers", headings, rows))
    print(json.dumps(numbers))


if __name__ == "__main__":
    sys.exit(main())
