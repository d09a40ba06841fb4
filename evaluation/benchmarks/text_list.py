"""A user's own list: JSONL of `text`, `language` and optional `id`, `group`, `reference`, `reference_text`,
`description`, which may be null.
"""

import json
from pathlib import Path

from evaluation.benchmarks.benchmark import Benchmark, Collector, Utterance, lines_of
from voxmill.core.errors import UserError

NAME = "texts"
FIELDS = frozenset({"id", "text", "language", "group", "reference", "reference_text", "description"})


def read_text_list(path: Path) -> Benchmark:
    """Utterances of a JSONL file. Relative references start at its folder; the default group is the language.

    Raises:
        UserError: not a JSONL file, or nothing usable in it.
    """
    if path.suffix != ".jsonl":
        raise UserError(f'{path}: name a .jsonl file with lines such as {{"text": "Hello.", "language": "en"}}')
    collector = Collector()
    for number, line in lines_of(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            collector.fail(path, number, f"not valid JSON ({error})")
            continue
        if not isinstance(record, dict) or not all(isinstance(value, str | None) for value in record.values()):
            collector.fail(path, number, "must be an object whose values are strings or null")
            continue
        # Null is what a table's empty cell becomes: not there.
        record = {key: value for key, value in record.items() if value is not None}
        unknown = sorted(record.keys() - FIELDS)
        missing = [key for key in ("text", "language") if not record.get(key)]
        if unknown or missing:
            problem = f"unknown field {unknown[0]!r}" if unknown else f"no {missing[0]}"
            collector.fail(path, number, f"{problem}; known are {', '.join(sorted(FIELDS))}")
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
        collector.add(utterance, path, number)
    return collector.benchmark(NAME, NAME, path)
