"""How well a speaker encoder separates the sample voices, and what a cosine of 0.7 means for it.

    python benchmarks/speakers.py [--model embedded|PATH|HUB_ID] [--cosine 0.7] [--resamples 500] [--picture FILE.png]

Clips are the known turns of the sample recordings without music: four voices, one of them in two languages. All pairs
of clips are scored. The interval is over clips; four studio voices do not stand for voices in general, so calibrate on
your own recordings with known speakers before a real corpus. The last line is one JSON object.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.corpus.references import ReferencesConfig, SessionClips, find_references  # noqa: E402
from annotation.corpus.speaker_clusters import (  # noqa: E402
    ClusterConfig,
    EqualError,
    bootstrap_equal_error,
    cluster,
    equal_error,
    name_speakers,
    pair_scores,
    purity,
)
from annotation.voice.speaker import SpeakerConfig, SpeakerEncoder  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.turns import RATE, Turn, sample_turns  # noqa: E402
from voxmill.core.assets import asset_path  # noqa: E402
from voxmill.core.errors import command  # noqa: E402


def curve_rows(error: EqualError, cosine: float) -> list[list[str]]:
    """The error curve at a few thresholds, with the equal-error point and the cosine in question."""
    rows = []
    for threshold in sorted({0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, cosine, round(error.at, 3)}):
        accept, reject = error.rates_at(threshold)
        mark = "equal error" if threshold == round(error.at, 3) else ""
        rows.append([f"{threshold:.3f}", f"{accept:.1%}", f"{reject:.1%}", mark])
    return rows


def group_rows(turns: list[Turn], vectors: np.ndarray, cosine: float) -> list[list[str]]:
    """How the cosines of pairs lie, by what the two clips share."""
    scores = vectors @ vectors.T
    one, two = np.triu_indices(len(turns), k=1)
    kinds: dict[str, list[float]] = {}
    for i, j in zip(one.tolist(), two.tolist(), strict=True):
        a, b = turns[i], turns[j]
        if a.speaker != b.speaker:
            kind = "another voice"
        elif a.recording == b.recording:
            kind = "one voice, one recording"
        else:
            kind = "one voice, two recordings" if a.language == b.language else "one voice, two languages"
        kinds.setdefault(kind, []).append(float(scores[i, j]))
    rows = []
    for kind, values in sorted(kinds.items(), reverse=True):
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        above = float(np.mean(np.array(values) > cosine))
        rows.append([kind, str(len(values)), f"{low:.2f}", f"{middle:.2f}", f"{high:.2f}", f"{above:.1%}"])
    return rows


def with_reference(turns: list[Turn], vectors: np.ndarray, cosine: float) -> float:
    """Share of turns that find a reference in their own recording at this cosine, all other rules being on."""
    config = ReferencesConfig(min_similarity=cosine, min_quality=None, min_seconds=1.5)
    with_one = 0
    for recording in dict.fromkeys(turn.recording for turn in turns):
        rows = [i for i, turn in enumerate(turns) if turn.recording == recording]
        mine = [turns[i] for i in rows]
        clips = SessionClips(
            clip_id=[str(i) for i in rows],
            recording_id=[recording] * len(rows),
            position=list(range(len(rows))),
            start=[turn.start for turn in mine],
            end=[turn.end for turn in mine],
            text=[turn.text for turn in mine],
            quality=[0.0] * len(rows),
            speaker=[""] * len(rows),
            speaker_is_sure=[False] * len(rows),
            embedding=vectors[rows],
        )
        with_one += sum(reason is None for reason in find_references(clips, config).reason)
    return with_one / len(turns)


def draw(path: Path, error: EqualError, vectors: np.ndarray, speakers: list[str], cosine: float) -> None:
    """The error curve over the cosines that it comes from, as PNG or SVG by the path's ending."""
    from matplotlib.figure import Figure

    same, different = pair_scores(vectors, speakers)
    figure = Figure(figsize=(7, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot(error.threshold, 100 * error.false_accept, label="strangers in")
    top.plot(error.threshold, 100 * error.false_reject, label="own voice out")
    top.plot(error.at, 100 * error.eer, "ko", label=f"equal error {error.eer:.1%} at {error.at:.2f}")
    bottom.hist(
        [different, same], bins=60, density=True, histtype="stepfilled", alpha=0.6, label=["two voices", "one voice"]
    )
    for axes in (top, bottom):
        axes.axvline(cosine, color="grey", linestyle="--", label=f"--cosine {cosine}")
        axes.legend()
    top.set_ylabel("% of pairs")
    bottom.set(xlabel="cosine of two clips", ylabel="density")
    figure.savefig(path, dpi=120)


@command("benchmarks/speakers.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="embedded, a path or a hub id")
    parser.add_argument("--cosine", type=float, default=0.7, help="the cosine to explain")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--picture", type=Path, help="where the error curve is drawn (png or svg)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    weights = asset_path("speaker-campplus") if options.model == "embedded" else None
    encoder = SpeakerEncoder(SpeakerConfig(model=options.model), weights)
    turns = sample_turns()
    started = time.perf_counter()
    vectors = np.stack([label.value for label in encoder([turn.audio for turn in turns]) if label.value is not None])
    seconds = (time.perf_counter() - started) / len(turns)
    speakers = [turn.speaker for turn in turns]
    error = equal_error(*pair_scores(vectors, speakers))
    low, high = bootstrap_equal_error(vectors, speakers, options.resamples)
    config = ClusterConfig(threshold=error.at, across_sessions=True)
    mixed = cluster(vectors, config.threshold).tolist()
    joined = name_speakers(vectors, [turn.recording for turn in turns], config).speaker
    mixed_purity, joined_purity = purity(mixed, speakers), purity(joined, speakers)
    accept, reject = error.rates_at(options.cosine)

    console = Console(width=110)
    audio_seconds = sum(len(turn.audio) for turn in turns) / RATE
    summary = [
        ["clips, voices", f"{len(turns)}, {len(set(speakers))}"],
        ["equal-error rate (95 % interval over clips)", f"{error.eer:.1%} ({low:.1%} to {high:.1%})"],
        ["equal-error threshold", f"{error.at:.3f}"],
        ["all clips as one session: clusters", str(len(set(mixed)))],
        ["... cluster purity, speaker purity", " , ".join(f"{value:.1%}" for value in mixed_purity)],
        [f"sessions apart, then joined at {config.threshold_across}: clusters", str(len(set(joined)))],
        ["... cluster purity, speaker purity", " , ".join(f"{value:.1%}" for value in joined_purity)],
        [f"a cosine of {options.cosine} accepts strangers", f"{accept:.2%}"],
        [f"a cosine of {options.cosine} rejects the own voice", f"{reject:.1%}"],
        [f"clips with a reference at {options.cosine}", f"{with_reference(turns, vectors, options.cosine):.1%}"],
        ["seconds a clip, one thread", f"{seconds:.4f} (a clip is {audio_seconds / len(turns):.1f} s)"],
    ]
    console.print(table(f"speaker encoder {options.model}", ["", "value"], summary))
    console.print(
        table("error curve", ["cosine", "strangers in", "own voice out", ""], curve_rows(error, options.cosine))
    )
    headings = ["pairs of clips", "pairs", "5 %", "median", "95 %", f"above {options.cosine}"]
    console.print(table("cosines", headings, group_rows(turns, vectors, options.cosine)))
    if options.picture is not None:
        draw(options.picture, error, vectors, speakers, options.cosine)
    print(
        json.dumps(
            {
                "eer": round(error.eer, 5),
                "threshold": round(error.at, 4),
                "purity": round(mixed_purity[0], 4),
                "seconds_per_clip": round(seconds, 5),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
