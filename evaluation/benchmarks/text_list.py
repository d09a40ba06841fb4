"""A list of one's own: JSONL of `text`, `language` and optional `id`, `reference`, `reference_text`, `description`, `group`."""

import json
from pathlib import Path

from evaluation.benchmarks.benchmark import Benchmark, Collector, Utterance, lines_of
from voxmill.core.errors import UserError

NAME = "texts"
FIELDS = frozenset({"id", "text", "language", "group", "reference", "reference_text", "description"})


def read_text_list(path: Path) -> Benchmark:
    """Utterances of a JSONL file. Relative references start at its folder; the group is the language unless said.

    Raises:
        UserError: not a JSONL file, or nothing usable in it.
    """
    if path.suffix != ".jsonl":
        raise UserError(f'{path}: name a .jsonl file with lines such as {{"text": "Hello.", "language": "en"}}')
    found = Collector()
    for number, line in lines_of(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            found.fail(path, number, f"not valid JSON ({error})")
            continue
        if not isinstance(record, dict) or not all(isinstance(value, str) for value in record.values()):
            found.fail(path, number, "must be an object whose values are strings")
            continue
        unknown = sorted(record.keys() - FIELDS)
        missing = [key for key in ("text", "language") if not record.get(key)]
        if unknown or missing:
            what = f"unknown field {unknown[0]!r}" if unknown else f"no {missing[0]}"
            found.fail(path, number, f"{what}; known are {', '.join(sorted(FIELDS))}")
            continue
        reference = path.parent / record["reference"] if record.get("reference") else None
        utterance = Utterance(
            record.get("id", f"{number:06d}"),
            record["text"],
            record["language"],
            record.get("group") or record["language"],
            reference,
            record.get("reference_text"),
            record.get("description"),
        )
        found.add(utterance, path, number)
    return found.benchmark(NAME, NAME, path)
