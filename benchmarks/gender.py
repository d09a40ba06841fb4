"""How often a voice's gender is right, clip by clip and speaker by speaker: the trees, the network, and both together.

    python benchmarks/gender.py [--labelled MANIFEST.jsonl] [--threads 1]

Without a manifest: the sample voices whose gender follows from the names in their credits. A manifest has a line a clip
with `path`, `speaker` and `gender`. Of a clip both models answer as `voxmill annotate` asks them; of a speaker what
`corpus_labels.traits` decides over all its clips. An abstention is neither right nor wrong. Intervals are Wilson's, of
95 %, over what was answered. The last line is one JSON object.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.corpus.speaker_traits import SpeakerTally, TraitsConfig, Votes, decide_gender  # noqa: E402
from annotation.voice.gender import GenderClassifier, GenderConfig  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from benchmarks.verifiers import Labelled, read_labelled, sample_clips, wilson  # noqa: E402
from voxmill.core.assets import asset_path  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402
from voxmill.data.records import Gender, Label  # noqa: E402

WHO: dict[str, tuple[str, ...]] = {"trees": ("trees",), "cnn": ("cnn",), "both": ("cnn", "trees")}


def clip_answer(label: Label[Gender], models: Sequence[str], min_probability: float) -> str | None:
    """What these models say of a clip; None with an abstention."""
    by_model = {} if label.measured is None else label.measured.by_model
    female = [by_model[name] for name in models if name in by_model]
    if len(models) > 1:
        return None if label.value is None else label.value.label
    if not female or max(female[0], 1 - female[0]) < min_probability:
        return None
    return "female" if female[0] >= 0.5 else "male"


def speaker_tallies(clips: Sequence[Labelled], labels: Sequence[Label[Gender]]) -> dict[str, SpeakerTally]:
    """The votes of all models over each speaker's clips."""
    tallies: dict[str, SpeakerTally] = {}
    for clip, label in zip(clips, labels, strict=True):
        by_model = {} if label.measured is None else label.measured.by_model
        one = SpeakerTally(clips=1, gender={name: Votes.of(female) for name, female in by_model.items()})
        tallies[clip.speaker] = tallies.get(clip.speaker, SpeakerTally()) + one
    return tallies


def counted(truth: Sequence[str], answers: Sequence[str | None]) -> tuple[int, int, int]:
    """(answered, right, all)."""
    pairs = [answer == right for right, answer in zip(truth, answers, strict=True) if answer is not None]
    return len(pairs), sum(pairs), len(truth)


def summary_row(name: str, counts: tuple[int, int, int]) -> list[str]:
    """Cells of a row: right of answered with the interval, and abstentions."""
    answered, right, every = counts
    between = wilson(right, answered)
    share = "-" if between is None else f"{right / answered:.3f} ({between[0]:.3f} to {between[1]:.3f})"
    return [name, f"{right} of {answered}", share, str(every - answered)]


def voice_rows(
    tallies: Mapping[str, SpeakerTally], genders: Mapping[str, str], decided: Mapping[str, Mapping[str, str | None]]
) -> list[list[str]]:
    """A row a voice: its clips, each model's mean probability of a female voice, and what is decided."""
    rows = []
    for speaker, tally in tallies.items():
        shares = [f"{tally.gender[name].share:.3f}" if name in tally.gender else "-" for name in ("trees", "cnn")]
        words = [decided[who][speaker] or "abstains" for who in WHO]
        rows.append([speaker, genders[speaker], str(tally.clips), *shares, *words])
    return rows


@command("benchmarks/gender.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="JSONL of clips of known speakers; the sample voices without it")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    clips = read_labelled(options.labelled) if options.labelled else sample_clips()
    genders = {clip.speaker: clip.labels.get("gender", "") for clip in clips}
    if strange := [speaker for speaker, gender in genders.items() if gender not in ("female", "male")]:
        raise UserError(f"{options.labelled}: the gender of {strange[0]!r} is {genders[strange[0]]!r}; female or male")
    config, traits = GenderConfig(), TraitsConfig()
    paths = {"trees": asset_path("voice2gender"), "cnn": asset_path("gender-cnn")}
    seconds = {}
    for name in ("trees", "cnn"):
        alone = GenderClassifier(config, **{name: paths[name]})  # type: ignore[arg-type]
        started = time.perf_counter()
        alone([clip.audio for clip in clips[:50]])
        seconds[name] = (time.perf_counter() - started) / len(clips[:50])
    labels = GenderClassifier(config, paths["trees"], cnn=paths["cnn"])([clip.audio for clip in clips])
    tallies = speaker_tallies(clips, labels)
    decided: dict[str, dict[str, str | None]] = {}
    numbers: dict[str, float] = {"voices": len(genders), "clips": len(clips)}
    rows = []
    for who, models in WHO.items():
        decided[who] = {
            speaker: decide_gender({m: v for m, v in tally.gender.items() if m in models}, traits)[0]
            for speaker, tally in tallies.items()
        }
        of_clips = counted(
            [clip.labels["gender"] for clip in clips],
            [clip_answer(label, models, config.min_probability) for label in labels],
        )
        of_speakers = counted([*genders.values()], [decided[who][speaker] for speaker in genders])
        rows += [summary_row(f"{who}: clips", of_clips), summary_row(f"{who}: speakers", of_speakers)]
        numbers |= {
            f"{who}_speakers_right": of_speakers[1],
            f"{who}_speakers_answered": of_speakers[0],
            f"{who}_clips_right": of_clips[1],
            f"{who}_clips_answered": of_clips[0],
        }
    numbers |= {f"{name}_seconds_a_clip": round(value, 4) for name, value in seconds.items()}
    console = Console(width=120)
    headings = ["voice", "is", "clips", "trees say", "cnn says", "by trees", "by cnn", "by both"]
    console.print(table("gender of voices", headings, voice_rows(tallies, genders, decided)))
    console.print(table("accuracy", ["", "right", "share (95 %)", "abstained"], rows))
    mean = sum(len(clip.audio) for clip in clips[:50]) / len(clips[:50]) / 16000
    console.print(f"a clip of {mean:.1f} s: trees {seconds['trees']:.3f} s, cnn {seconds['cnn']:.3f} s")
    print(json.dumps(numbers))


if __name__ == "__main__":
    sys.exit(main())
