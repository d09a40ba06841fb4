"""What the descriptions of a finished dataset say, and whether they tell more of the style than the transcript does.

    python benchmarks/descriptions.py [demo-out]

Over the texts of kept clips: how many of the voice-design ones say gender alone, how many different texts there are,
how many facts a text states by granularity, and whether a claim contradicts what was measured: the words of every level
are held against the fact's own distance from the middle of its group, and against each other.

Then two classifiers of the same kind (TF-IDF of letter n-grams, logistic regression) tell whether a clip is of the
upper or the lower levels in rate, energy, intonation and pitch: one from the transcript, one from the style
descriptions in English. Folds are recordings, so that no session is on both sides. Within a language both sides weigh
the same, so that chance is 50 % and to know the language is of no help. The interval is a bootstrap over recordings. A
transcript that told the style would mean that a model may learn it from there. Last, the grammar's seconds a clip. The
last line is one JSON object.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.descriptions.config import DescriptionsConfig  # noqa: E402
from annotation.descriptions.described import DescribedClip  # noqa: E402
from annotation.descriptions.describer import Describer  # noqa: E402
from annotation.descriptions.facts import LEVELS  # noqa: E402
from annotation.descriptions.selection import GRANULARITIES  # noqa: E402
from annotation.descriptions.verification import Evidence  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402
from voxmill.data.dataset import Dataset  # noqa: E402
from voxmill.data.records import DESCRIPTION_AXES, Fact  # noqa: E402

STYLES = ("rate", "energy", "intonation", "pitch")
FOLDS = 5
DRAWS = 1000
Row = dict[str, Any]
Told = tuple[float, float]
"""A clip's weight where it is told rightly, else 0, and its weight."""


def read_clips(folder: Path) -> list[Row]:
    """Kept clips with their descriptions and facts."""
    columns = ("clip_id", "recording_id", "language", "text", "facts", "descriptions")
    return [row for part in Dataset.open(folder).tables(columns) for row in part.to_pylist()]


def say_gender_alone(texts: Sequence[Row]) -> float:
    """Share of the texts that state the gender and nothing else, 0..1."""
    alone = [{fact["attribute"] for fact in text["facts"]} == {"gender"} for text in texts]
    return sum(alone) / max(len(alone), 1)


def contradictions(clip: Row) -> int:
    """Stated levels that the measured z does not bear out, or two words of one attribute in one text."""
    facts = {fact["attribute"]: fact for fact in clip["facts"]}
    wrong = 0
    for text in clip["descriptions"]:
        stated = [(fact["attribute"], fact["word"]) for fact in text["facts"]]
        wrong += len(stated) != len({attribute for attribute, _ in stated})
        for attribute, word in stated:
            measured = facts.get(attribute)
            if measured is None:
                wrong += 1
            elif attribute in LEVELS:
                step = LEVELS[attribute].index(word) - 2
                low, high = (-np.inf if step == -2 else step - 0.5), (np.inf if step == 2 else step + 0.5)
                wrong += not low - 1e-3 <= measured["z"] <= high + 1e-3
            else:
                wrong += measured["word"] != word
    return wrong


def levels(clips: Sequence[Row], attribute: str) -> dict[str, bool]:
    """By clip, whether its word is of the upper levels; they are divided where the halves are most alike in size."""
    words = LEVELS[attribute]
    level_of = {
        clip["clip_id"]: words.index(fact["word"])
        for clip in clips
        for fact in clip["facts"]
        if fact["attribute"] == attribute
    }
    values = np.array([*level_of.values()])
    first = min(range(1, len(words)), key=lambda first: abs(float((values >= first).mean()) - 0.5))
    return {clip_id: level >= first for clip_id, level in level_of.items()}


def weights(clips: Sequence[Row], labels: dict[str, bool]) -> dict[str, float]:
    """By clip, so that within a language both labels weigh the same; languages with one of them are left out."""
    counts = Counter((clip["language"], labels[clip["clip_id"]]) for clip in clips if clip["clip_id"] in labels)
    weight_of = {}
    for clip in clips:
        label, language = labels.get(clip["clip_id"]), clip["language"]
        if label is not None and counts[language, not label]:
            weight_of[clip["clip_id"]] = (
                (counts[language, True] + counts[language, False]) / counts[language, label] / 2
            )
    return weight_of


def told(clips: Sequence[Row], texts: dict[str, list[str]], labels: dict[str, bool]) -> dict[str, list[Told]]:
    """By recording, how its clips are told from their texts, never having seen the recording."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    weight_of = weights(clips, labels)
    known = [clip for clip in clips if clip["clip_id"] in labels and texts.get(clip["clip_id"])]
    recordings = sorted({clip["recording_id"] for clip in known})
    right: dict[str, list[Told]] = defaultdict(list)
    for fold in range(min(FOLDS, len(recordings))):
        held_out = set(recordings[fold::FOLDS])
        seen = [clip for clip in known if clip["recording_id"] not in held_out]
        pairs = [(text, labels[clip["clip_id"]]) for clip in seen for text in texts[clip["clip_id"]]]
        if len({label for _, label in pairs}) < 2:
            continue
        model = make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)),
            LogisticRegression(C=10, max_iter=1000, class_weight="balanced"),
        )
        model.fit([text for text, _ in pairs], [label for _, label in pairs])
        for clip in known:
            if clip["recording_id"] in held_out and clip["clip_id"] in weight_of:
                upper = model.predict_proba(texts[clip["clip_id"]])[:, 1].mean() > 0.5
                weight = weight_of[clip["clip_id"]]
                right[clip["recording_id"]].append((weight * (bool(upper) == labels[clip["clip_id"]]), weight))
    return right


def accuracy(right: dict[str, list[Told]]) -> tuple[float, float, float]:
    """(accuracy, and its 95 % interval by a bootstrap over recordings), 0..1."""
    groups = [tuple(np.sum(values, axis=0)) for values in right.values()]
    if not groups:
        raise UserError("no clip of the dataset has both a measured style and texts; name another one")
    generator = np.random.default_rng(0)
    drawn = np.array(groups)[generator.integers(len(groups), size=(DRAWS, len(groups)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    whole = np.sum(groups, axis=0)
    return float(whole[0] / whole[1]), float(low), float(high)


def seconds_a_clip(clips: Sequence[Row]) -> float:
    """Of the grammar on one core, all axes, granularities, wordings and languages."""
    describer = Describer(DescriptionsConfig())
    made = [
        DescribedClip(clip["clip_id"], clip["language"], Evidence([Fact(**fact) for fact in clip["facts"]]))
        for clip in clips
    ]
    for clip in made:
        describer(clip)
    started = time.perf_counter()
    for clip in made:
        describer(clip)
    return (time.perf_counter() - started) / max(len(made), 1)


@command("benchmarks/descriptions.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path, default=ROOT / "demo-out", help="OUT of voxmill annotate")
    options = parser.parse_args()
    clips = read_clips(options.dataset)
    texts = [text for clip in clips for text in clip["descriptions"]]
    if not texts:
        raise UserError(f"{options.dataset} has no descriptions; run `make demo`, or name another dataset")
    console = Console(width=120)
    counts = {
        granularity: [len(text["facts"]) for text in texts if text["granularity"] == granularity]
        for granularity in GRANULARITIES
    }
    rows = []
    for axis in DESCRIPTION_AXES:
        mine = [text for text in texts if text["axis"] == axis]
        different = len({text["text"] for text in mine}) / max(len(mine), 1)
        gender = f"{say_gender_alone(mine):.1%}" if axis == "design" else "-"
        rows.append([axis, str(len(mine)), f"{different:.2f}", gender])
    console.print(table("descriptions", ["kind", "texts", "distinct", "gender alone"], rows))
    facts = [
        [name, str(len(n)), f"{median(n or [0]):g}", f"{min(n, default=0)}-{max(n, default=0)}"]
        for name, n in counts.items()
    ]
    console.print(table("facts a text states", ["granularity", "texts", "median", "from, to"], facts))
    transcripts = {clip["clip_id"]: [clip["text"]] for clip in clips}
    described = {
        clip["clip_id"]: [
            text["text"] for text in clip["descriptions"] if text["axis"] == "style" and text["language"] == "en"
        ]
        for clip in clips
    }
    told_from: dict[str, dict[str, list[Told]]] = {"transcript": defaultdict(list), "description": defaultdict(list)}
    shown = []
    for attribute in STYLES:
        labels = levels(clips, attribute)
        cells = [attribute, str(len(labels))]
        for source, of_clip in (("transcript", transcripts), ("description", described)):
            right = told(clips, of_clip, labels)
            for recording, values in right.items():
                told_from[source][recording] += values
            cells.append("{:.0%} ({:.0%}-{:.0%})".format(*accuracy(right)))
        shown.append(cells)
    whole = {source: accuracy(right) for source, right in told_from.items()}
    shown.append(["all", "", *("{:.0%} ({:.0%}-{:.0%})".format(*one) for one in whole.values())])
    console.print(table("upper or lower levels of a style, told from text", ["style", "clips", *whole], shown))
    design = [text for text in texts if text["axis"] == "design"]
    numbers = {
        "clips": len(clips),
        "texts": len(texts),
        "kinds": dict(Counter(text["axis"] for text in texts)),
        "gender_alone": round(say_gender_alone(design), 4),
        "distinct": round(len({text["text"] for text in texts}) / len(texts), 4),
        "median_facts": {name: median(n or [0]) for name, n in counts.items()},
        "contradictions": sum(map(contradictions, clips)),
        "told_from_transcript": [round(value, 3) for value in whole["transcript"]],
        "told_from_description": [round(value, 3) for value in whole["description"]],
        "seconds_a_clip": round(seconds_a_clip(clips), 4),
    }
    console.print(f"{numbers['contradictions']} contradictions, {numbers['seconds_a_clip']} s a clip")
    print(json.dumps(numbers))


if __name__ == "__main__":
    sys.exit(main())
