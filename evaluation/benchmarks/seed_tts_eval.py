"""Seed-TTS-Eval: `meta.lst` files of 2 to 5 fields split by `|`, the hard set included (arXiv:2406.02430).

    2: id|text      3: id|text|reference      4: id|reference text|reference|text      5: the same and a recording

References are relative to the list's folder. In lists of 3 fields ids may end in `.wav`, as in the official scripts.
"""

from pathlib import Path

from evaluation.benchmarks.benchmark import Benchmark, Collector, Utterance, lines_of
from voxmill.core.errors import UserError

NAME = "seed-tts-eval"


def read_seed_tts_eval(path: Path) -> Benchmark:
    """Utterances of a list. Its language is the folder's name, `en` or `zh`, or else what most of its texts are in.

    Raises:
        UserError: a folder instead of a list, unreadable, or no usable line.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a list in it, such as {path / 'meta.lst'}")
    rows = list(lines_of(path))
    language = path.parent.name if path.parent.name in ("en", "zh") else _language([line for _, line in rows])
    group = f"test-{language}" + ("-hard" if "hard" in path.stem else "")
    collector = Collector()
    for number, line in rows:
        fields = [field.strip() for field in line.strip().split("|")]
        id_, text, reference, reference_text = fields[0], fields[-1], "", ""
        if len(fields) == 2:
            pass
        elif len(fields) == 3:
            id_, text, reference = fields
            id_ = id_.removesuffix(".wav")
        elif len(fields) in (4, 5):
            id_, reference_text, reference, text = fields[:4]
        else:
            collector.fail(path, number, f"{len(fields)} fields split by '|'; 2 to 5 are known")
            continue
        place = path.parent / reference if reference else None
        collector.add(Utterance(id_, text, language, group, place, reference_text or None), path, number)
    return collector.benchmark(NAME, NAME, path)


def _language(lines: list[str]) -> str:
    han = sum(any("\u4e00" <= character <= "\u9fff" for character in line) for line in lines)
    return "zh" if 2 * han > len(lines) else "en"
