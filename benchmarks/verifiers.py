"""How often the classifiers that verify descriptions are right, on speech whose labels are known.

    python benchmarks/verifiers.py [--labelled MANIFEST.jsonl] [--gender-model ...] [--emotion-model ...]

Without a manifest: the sample voices whose gender follows from the names in their credits (not checked by listening). A
manifest has a line a clip with `path`, `speaker` and any of `gender` and `emotion`. Clips of one speaker err together,
so there are two intervals: Wilson's over clips, and a bootstrap over speakers, which is the one that applies to other
voices; it is left out below three speakers, and where all answers are right. An abstention is neither right nor wrong
and is counted by itself.

Then captions with planted claims about the sample turns as they were measured, 200 a language, half with one to four
false claims (`support/planted.py`): which shares of false ones are kept as verified, of true ones dropped, and of all
not read. The templates are by the same author as the reader's words. Those of `held_out.yaml`, the default, were
written before the words and not looked at while these grew; `--clauses open` takes the others. The last line is one
JSON object.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.descriptions.facts import FactsConfig, Norms, describe_clip  # noqa: E402
from annotation.descriptions.verification import Answer, Evidence  # noqa: E402
from annotation.voice.emotion import EmotionClassifier, EmotionConfig  # noqa: E402
from annotation.voice.gender import GenderClassifier, GenderConfig  # noqa: E402
from annotation.voice.prosody import ProsodyConfig, ProsodyMeter  # noqa: E402
from benchmarks.support.planted import LANGUAGES, plant, read_clauses, score  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.turns import RATE, sample_turns  # noqa: E402
from voxmill.core.assets import asset_path  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402
from voxmill.data.records import Word  # noqa: E402

CAPTIONS_A_LANGUAGE = 200
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


def measured_clips() -> list[tuple[Evidence, str | None]]:
    """The sample turns with what was measured of them, and the speaker's gender where its name tells.

    The classifiers of gender did not write the captions, so that they judge them.
    """
    turns = sample_turns()
    meter = ProsodyMeter(ProsodyConfig())
    classifier = GenderClassifier(GenderConfig(), asset_path("voice2gender"), cnn=asset_path("gender-cnn"))
    genders = [label.value for label in classifier([turn.audio for turn in turns])]
    # A turn has no word times here: rate is over all of it, and pauses are unknown.
    measured = [
        meter(turn.audio, [Word(turn.text, 0.0, len(turn.audio) / RATE, 1.0)], turn.text, turn.language)
        for turn in turns
    ]
    labels, languages = [gender.label if gender else None for gender in genders], [turn.language for turn in turns]
    norms = Norms.fit(FactsConfig(), measured, [turn.speaker for turn in turns], labels, languages)
    clips, of_speaker = [], {turn.speaker: Counter[str]() for turn in turns}
    hertz: dict[str, list[float]] = {turn.speaker: [] for turn in turns}
    for turn, gender, prosody in zip(turns, genders, measured, strict=True):
        of_speaker[turn.speaker].update([gender.label] if gender else [])
        hertz[turn.speaker] += [prosody.f0_median_hz] if prosody.f0_median_hz else []
    for turn, gender, prosody in zip(turns, genders, measured, strict=True):
        known = (gender.label, gender.probability) if gender else None
        facts = [fact for fact in describe_clip(prosody, norms, turn.language, known) if fact.attribute != "pauses"]
        # As the pipeline has it, the speaker's clips decide together about gender and median pitch.
        (label, votes), *_ = of_speaker[turn.speaker].most_common()
        said = {"gender": [Answer("classifier", label, votes / of_speaker[turn.speaker].total())]}
        middle = float(np.median(hertz[turn.speaker]))
        facts = [
            replace(fact, value=middle) if fact.attribute == "register" else fact
            for fact in facts
            if fact.attribute != "gender"
        ]
        clips.append((Evidence(facts, {}, said), SAMPLE_GENDERS.get(turn.speaker)))
    return clips


def planted_figures(
    clips: Sequence[tuple[Evidence, str | None]], name: str, console: Console, *, show: bool
) -> dict[str, dict[str, float]]:
    """Prints tables about planted captions; returns figures by language."""
    rows, attributes, numbers = [], [], {}
    for language in LANGUAGES:
        captions = plant(clips, read_clauses(name, language), language, CAPTIONS_A_LANGUAGE)
        result, wrong = score(captions)
        if show:
            print("\n".join(wrong))
        figures = {
            "false_kept": result.share(True, "kept"),
            "true_dropped": result.share(False, "dropped"),
            "unread": result.unread,
            "open": result.share(False, "open"),
        }
        numbers[language] = {key: round(value, 4) for key, value in figures.items()}
        rows.append(
            [language, *(f"{value:.1%}" for value in figures.values()), f"{len(captions) / result.seconds:.0f}"]
        )
        for attribute in sorted(result.planted | result.wrongly):
            caught, planted = result.caught[attribute], result.planted[attribute]
            failed = caught + result.wrongly[attribute]
            precision, recall = (f"{caught}/{total}" if total else "-" for total in (failed, planted))
            attributes.append([language, attribute, precision, recall])
    headings = ["language", "false kept", "true dropped", "unread", "true left open", "captions a second"]
    console.print(table(f"planted captions, {name} clauses", headings, rows))
    console.print(table("false claims", ["language", "attribute", "precision", "recall"], attributes))
    return numbers


@command("benchmarks/verifiers.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="JSONL of labelled clips; the sample voices without it")
    parser.add_argument("--gender-model", default="embedded")
    parser.add_argument("--emotion-model", default=None)
    parser.add_argument("--clauses", choices=("open", "held_out"), default="held_out", help="of planted captions")
    parser.add_argument("--show", action="store_true", help="print planted captions that are judged wrong or not read")
    options = parser.parse_args()
    clips = read_labelled(options.labelled) if options.labelled else sample_clips()
    trees, cnn = map(asset_path, ("voice2gender", "gender-cnn")) if options.gender_model == "embedded" else (None, None)
    gender = GenderClassifier(GenderConfig(model=options.gender_model), trees, cnn=cnn)
    emotion = EmotionClassifier(EmotionConfig(model=options.emotion_model))
    rows: list[list[str]] = []
    numbers: dict[str, float | int | dict[str, float] | None] = {}
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
    console = Console(width=110)
    console.print(table("verifiers", headings, rows))
    planted = planted_figures(measured_clips(), options.clauses, console, show=options.show)
    for figure in ("false_kept", "true_dropped", "unread", "open"):
        numbers[figure] = {language: figures[figure] for language, figures in planted.items()}
    print(json.dumps(numbers))


if __name__ == "__main__":
    sys.exit(main())
