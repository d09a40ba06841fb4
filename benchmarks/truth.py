"""How true the labels are, on recordings of which the words are known; writes docs/truth.md.

    python benchmarks/truth.py [--folder DIR] [--parts samples trust languages cut_short separation]
    python benchmarks/truth.py --recordings FOLDER --truth FILE

samples: the sample recordings as the manifest gives them. trust: the word error rates of kept clips, and whether those
that were predicted come true. languages: recordings made from the samples in which the language changes, without a
manifest. cut_short: transcripts that lack their end, over both and over every sentence decoded
beside random neighbours. separation: two recordings under real music at 0, 5 and 10 dB, with separation switched off,
on with the separated voice or the recording transcribed, and by the job's default. The text is known by turns: word
times are compared at the first word's start and the last word's end of each turn. The voices are studio prompts, easier
than most speech.

With `--recordings`, the same of a folder of one's own; a line of FILE has `path`, `language` and `text`, or `turns`
with `start`, `end`, `language` and `text`. docs/truth.md stays as it is. The last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.speech.transcription import TranscriptionConfig  # noqa: E402
from annotation.speech.whisper import WhisperRecogniser  # noqa: E402
from benchmarks.support.tables import markdown, table  # noqa: E402
from benchmarks.truth_parts import languages, trust, words  # noqa: E402
from benchmarks.truth_parts.cut_short import beside_neighbours, cut_short_of  # noqa: E402
from benchmarks.truth_parts.recordings import Truth, dataset_clips, read_truth, sample_truth  # noqa: E402
from samples.annotate_process import run_job  # noqa: E402
from samples.turns import SAMPLES  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402

PARTS = ("samples", "trust", "languages", "cut_short", "separation")
SECTIONS = {
    "samples": "Errors of word times are absolute, median / 90th percentile, at the edges of known turns.",
    "trust": "Word error rates of clips, over the words that were said in them; digits are left out.",
    "reliability": "All of these clips, kept or rejected, in fifths by predicted word error rate:",
    "languages": "Recordings in which the language changes; a turn is dropped where less than half of it is kept.",
    "cut_short": "Clips that lack their end, and sentences decoded beside random neighbours:",
    "separation": "Two recordings under real music, selection switched off:",
}

Number = float | int | None


class Figures:
    """Tables and numbers as they come: shown at once, kept for the page."""

    def __init__(self) -> None:
        self.console = Console(width=120)
        self.numbers: dict[str, Number] = {}
        self.page = [
            "# How true the labels are",
            "",
            "Written by `python benchmarks/truth.py`; whisper base, int8.",
            "",
        ]

    def add(self, part: str, headings: list[str], rows: list[list[str]], numbers: dict[str, Number]) -> None:
        self.console.print(table(part, headings, rows))
        self.page += [SECTIONS[part], "", markdown(headings, rows), ""]
        self.numbers |= numbers


def measure_languages(figures: Figures, truth: Truth, out: Path) -> None:
    rows, counts = languages.languages_table(truth, dataset_clips(out))
    numbers: dict[str, Number] = {"kept_in_wrong_language": counts.wrong, "right_clips_dropped": counts.share_dropped}
    figures.add("languages", languages.HEADINGS, rows, numbers)


def measure_trust(figures: Figures, datasets: list[tuple[Truth, Path]]) -> None:
    judged = [row for truth, out in datasets for row in trust.judged_clips(truth, dataset_clips(out))]
    figures.add("trust", trust.HEADINGS, *trust.kept_table(judged))
    figures.add("reliability", trust.FIFTH_HEADINGS, *trust.reliability_table(judged))


def measure_cut_short(figures: Figures, datasets: list[tuple[Truth, Path]], neighbours: bool) -> None:
    lacking = [found for truth, out in datasets for found in cut_short_of(truth, dataset_clips(out))]
    rows = [[path, f"{clip.start:.1f} s", clip.text[-60:]] for path, clip in lacking]
    numbers: dict[str, Number] = {"cut_short": len(lacking)}
    if neighbours:
        num, beside = beside_neighbours(_recogniser())
        rows += [[f"{turn.recording}, beside others", f"{turn.start:.1f} s", text[-60:]] for turn, text in beside]
        numbers |= {"cut_short_beside_neighbours": len(beside), "sentences_beside_neighbours": num}
    figures.add("cut_short", ["recording", "at", "text ends"], rows or [["none", "-", "-"]], numbers)


def _recogniser() -> WhisperRecogniser:
    from voxmill.core.assets import asset_path

    return WhisperRecogniser(TranscriptionConfig(), asset_path("whisper-base"))


def measure_samples(folder: Path, address: str, parts: list[str]) -> Figures:
    """The parts that are asked for, on recordings that the samples give."""
    figures, datasets = Figures(), []
    if {"samples", "trust", "cut_short"} & {*parts}:
        truth, out = sample_truth(), folder / "samples-out"
        run_job(SAMPLES / "manifest.jsonl", out, address)
        datasets.append((truth, out))
        rows, total = words.samples_table(truth, out)
        figures.add("samples", words.HEADINGS, rows, {"wer": total.wer, "words_kept": total.share_kept})
    if "languages" in parts:
        truth, out = languages.make_mixed(folder / "mixed"), folder / "mixed-out"
        run_job(folder / "mixed", out, address)
        datasets.append((truth, out))
        measure_languages(figures, truth, out)
    if "trust" in parts:
        measure_trust(figures, datasets)
    if "cut_short" in parts:
        measure_cut_short(figures, datasets, neighbours=True)
    if "separation" in parts:
        rows, numbers = words.separation_table(folder, address)
        modes = ["not separated", "separated, voice transcribed", "separated, recording transcribed", "the default"]
        headings = ["speech to music", *[cell for name in modes for cell in (f"{name}: WER", "words")]]
        figures.add("separation", headings, rows, dict(numbers))
    return figures


def measure_recordings(folder: Path, address: str, recordings: Path, truth: Truth) -> Figures:
    """What is known of a folder of one's own."""
    figures, out = Figures(), folder / "recordings-out"
    run_job(recordings, out, address)
    measure_languages(figures, truth, out)
    measure_trust(figures, [(truth, out)])
    measure_cut_short(figures, [(truth, out)], neighbours=False)
    return figures


@command("benchmarks/truth.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where the datasets are made (default: temporary)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which parts (default: all)")
    parser.add_argument("--recordings", type=Path, default=None, help="a folder of recordings of one's own")
    parser.add_argument("--truth", type=Path, default=None, help="what is said in them, a line a recording")
    args = parser.parse_args()
    if (args.recordings is None) != (args.truth is None):
        parser.error("--recordings and --truth belong together")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="voxmill-truth-"))
    with local_ray() as address:
        if args.recordings is None:
            figures = measure_samples(folder, address, args.parts)
        else:
            truth = read_truth(args.truth, args.recordings)
            figures = measure_recordings(folder, address, args.recordings, truth)
    if args.recordings is None and set(args.parts) == set(PARTS):
        (ROOT / "docs" / "truth.md").write_text("\n".join(figures.page), encoding="utf-8")
    print(json.dumps(figures.numbers))


if __name__ == "__main__":
    sys.exit(main())
