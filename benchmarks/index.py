"""What an index costs: seconds and memory of a rank that opens it, bytes a clip on disk, seconds and memory to make it.

    python benchmarks/index.py [--clips 1e5 1e6 1e7] [--built 1e6] [--folder DIR]

Clips are fabricated (`support/fabricated_clips.py`): texts of some 18 words, two to four descriptions, three to seven
references, five modes. Making and opening are processes of their own. `open_seconds` is from the recipe to the streams
of its mixture, the check that the index is that of the datasets included; then columns of 100,000 random clips and the
texts of 1,000 are read. `mb_a_rank` is by how much the process' own memory (RssAnon) has grown after all that;
`mapped_mb` by how much its view of files (RssFile) has, which is the page cache and one for all ranks of a machine.
Equal texts are counted once while it is made, because real ones are hardly ever equal: what their tokens take is
`token_seconds_a_million`, measured on one part's, and comes on top of `build_seconds`. An index of more than `--built`
clips is one of 1e5 whose columns are repeated, clips' numbers moved and groups sorted anew: what opening takes does not
depend on how it came about. Last line: JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.fabricated_clips import A_PART, RememberingTokenizer, write_clips  # noqa: E402
from benchmarks.support.sample_model import write_tokenizer  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from training.curriculum import corpus as corpora  # noqa: E402
from training.curriculum.index.columns import FILE, TEXTS, WIDTHS, read_facts  # noqa: E402
from training.curriculum.index.groups import group_clips  # noqa: E402
from training.curriculum.index.origin import origin_of  # noqa: E402
from training.curriculum.mixture import streams_of  # noqa: E402
from training.curriculum.recipe import Recipe, load_recipe  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402
from voxmill.core.progress import Progress  # noqa: E402
from voxmill.data.dataset import Dataset  # noqa: E402
from voxmill.data.records import to_json_text  # noqa: E402

LOOKED_AT, READ = 100_000, 1_000
GOALS = {"open_seconds": 2.0, "mb_a_rank": 50.0, "bytes_a_clip": 100.0}


def recipe_of(folder: Path, index: Path | None) -> Recipe:
    """Stage 2 over the fabricated clips, with shares by length."""
    own = [] if index is None else [f"run.index={index}"]
    paths = [f"init={folder / 'tokenizer'}", f"datasets.main.path={folder / 'dataset'}", f"run.out={folder / 'run'}"]
    return load_recipe("stage2", [*paths, "mixture.lengths={6: 0.3, 20: 0.5, 180: 0.2}", *own])


def memory(name: str) -> float:
    """RssAnon or RssFile of this process, in 1e6 bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{name}:")[1].split()[0]) * 1024 / 1e6


def make(folder: Path) -> dict[str, float]:
    """Makes the index in this process."""
    recipe, peak, done = recipe_of(folder, None), [memory("RssAnon")], threading.Event()
    before = peak[0]

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], memory("RssAnon"))

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    space = corpora.space_of(recipe, None)
    corpora.TextTokenizer = RememberingTokenizer  # type: ignore[attr-defined]
    corpora.make_index(
        recipe, folder / "index", space, origin_of(recipe, space.latent_space), progress=Progress(file=sys.stderr)
    )
    seconds = time.perf_counter() - began
    done.set()
    watching.join()
    return {"build_seconds": seconds, "build_mb": peak[0] - before, "build_peak_rss_mb": peak_rss()}


def peak_rss() -> float:
    """Of this process, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def open_one(folder: Path) -> dict[str, float]:
    """Opens the index in this process, as a rank does."""
    recipe = recipe_of(folder, folder / "index")
    before, files = memory("RssAnon"), memory("RssFile")
    began = time.perf_counter()
    corpus = corpora.read_corpus(recipe)
    streams = streams_of(corpus, recipe)
    seconds = time.perf_counter() - began
    clips = np.random.default_rng(0).integers(0, len(corpus), LOOKED_AT)
    total = sum(float(column[clips].sum()) for column in (corpus.seconds, corpus.patches, corpus.tokens, corpus.modes))
    starts = corpus.description_starts[clips]
    total += float(corpus.description_tokens[starts].sum() + corpus.references[corpus.reference_starts[clips]].sum())
    total += sum(float(stream.clips[np.arange(min(1000, len(stream.clips)))].sum()) for stream in streams)
    began = time.perf_counter()
    total += sum(len(texts.text) for texts in corpus.read_texts(clips[:READ].tolist()))
    read = time.perf_counter() - began
    return {
        "open_seconds": seconds,
        "mb_a_rank": memory("RssAnon") - before,
        "mapped_mb": memory("RssFile") - files,
        "us_a_text": read / READ * 1e6,
        "streams": len(streams),
        "checksum": total,
    }


def token_seconds(folder: Path) -> float:
    """Seconds to count the tokens of a million clips' texts, with and without each description, on all cores."""
    part = next(Dataset(folder / "dataset").tables(("text", "descriptions"))).to_pylist()
    texts = [row["text"] for row in part]
    texts += [f"({described['text']}){row['text']}" for row in part for described in row["descriptions"]]
    began = time.perf_counter()
    TextTokenizer.from_folder(folder / "tokenizer").count(texts)
    return (time.perf_counter() - began) / A_PART * 1e6


def in_process(what: str, folder: Path) -> dict[str, float]:
    """`make` or `open_one` in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "index.py"), "--only", what, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise JobError(f"{what} ended with status {done.returncode}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def repeat(folder: Path, times: int) -> None:
    """Makes an index that many times as long, in place."""
    facts = read_facts(folder)
    entries = {name: np.fromfile(folder / f"{name}.bin", width) for name, width in WIDTHS.items()}
    texts = (folder / TEXTS).read_bytes()
    for name, column in entries.items():
        with open(folder / f"{name}.bin", "wb") as file:
            if name.endswith("_starts"):
                file.write(column[:1].tobytes())
            for number in range(times):
                moved = column[1:] + number * column[-1] if name.endswith("_starts") else column
                file.write((moved + number * facts.clips if name == "references" else moved).tobytes())
    with open(folder / TEXTS, "wb") as file:
        for _ in range(times):
            file.write(texts)
    clips = facts.clips * times
    groups = group_clips(folder, [0, clips], [6.0, 20.0, 180.0])
    sizes = {name: (folder / name).stat().st_size for name in facts.sizes}
    (folder / FILE).write_text(to_json_text(replace(facts, clips=clips, groups=groups, sizes=sizes)), encoding="utf-8")


def measure(folder: Path, count: int, opens: int, built: int) -> dict[str, Any]:
    """Everything for one size."""
    began = time.perf_counter()
    write_tokenizer(folder / "tokenizer")
    write_clips(folder / "dataset", count if count <= built else 100_000)
    result: dict[str, Any] = {"fabricate_seconds": time.perf_counter() - began, **in_process("make", folder)}
    if count > built:
        result = {}
        repeat(folder / "index", round(count / read_facts(folder / "index").clips))
    for trial in (in_process("open_one", folder) for _ in range(opens)):
        result |= {name: max(value, result.get(name, 0.0)) for name, value in trial.items()}
    facts = read_facts(folder / "index")
    columns = sum(size for name, size in facts.sizes.items() if name != TEXTS)
    return result | {
        "clips": facts.clips,
        "bytes_a_clip": columns / facts.clips,
        "text_bytes_a_clip": facts.sizes[TEXTS] / facts.clips,
        "token_seconds_a_million": token_seconds(folder),
    }


@command("index")
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--built", type=float, default=1e6, help="the most clips whose index is made, not repeated")
    parser.add_argument("--opens", type=int, default=3, help="processes that open it; the worst counts")
    parser.add_argument("--folder", type=Path, help="where fabricated datasets lie; default: a temporary folder")
    parser.add_argument("--only", choices=("make", "open_one"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps({"make": make, "open_one": open_one}[options.only](options.folder)))
        return
    sizes: dict[str, dict[str, Any]] = {}
    for count in options.clips:
        with tempfile.TemporaryDirectory(prefix="voxmill-index-", dir=options.folder) as folder:
            sizes[f"{count:g}"] = measure(Path(folder), round(count), options.opens, round(options.built))
    shown = (*GOALS, "mapped_mb", "text_bytes_a_clip", "us_a_text", "build_seconds", "build_mb")
    shown = (*shown, "token_seconds_a_million")
    rows = [[name, *(f"{size[name]:.3g}" if name in size else "-" for size in sizes.values())] for name in shown]
    Console().print(table("index", ["", *(f"{size['clips']:,} clips" for size in sizes.values())], rows))
    worst = {name: max(size[name] for size in sizes.values()) for name in GOALS}
    print(json.dumps({**worst, "ok": all(worst[name] <= goal for name, goal in GOALS.items()), "sizes": sizes}))


if __name__ == "__main__":
    sys.exit(main())
