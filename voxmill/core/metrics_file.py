"""`metrics.jsonl`: a line a step, and what MLflow takes of it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from voxmill.core.files import atomic_file

Metrics = list[tuple[str, float, int, int]]
"""(name, value, milliseconds, step) each."""


def numbers_of(line: Mapping[str, Any]) -> Metrics:
    """What is a number in a line of the file; `{"a": {"b": 1}}` is `a/b`."""
    step, stamp = line["step"], int(line["time"] * 1000)
    named = flat({key: value for key, value in line.items() if key not in ("step", "time")}, "/")
    return [
        (re.sub(r"[^\w\-. :/]", "_", key), float(value), stamp, step)
        for key, value in named
        if isinstance(value, (int, float))
    ]


def flat(values: Mapping[str, Any], between: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of nested mappings; keys are joined with `between`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, between, f"{prefix}{key}{between}")
        else:
            yield f"{prefix}{key}", value


def forget_after(path: Path, step: int, sent: int | None) -> tuple[int, tuple[int, int]]:
    """Drops the lines after this step, line by line: the file may be larger than memory.

    Args:
        sent: lines that MLflow has; None: all.

    Returns:
        (lines that are left, (of them, those that MLflow has, their bytes)).
    """
    count = size = sent_count = sent_size = 0
    if not path.exists():
        return 0, (0, 0)
    with path.open("rb") as old, atomic_file(path) as new:
        for text in old:
            try:
                is_kept = json.loads(text)["step"] <= step
            except ValueError:
                continue  # the last line of a run that was killed while it wrote
            if is_kept:
                whole = text.rstrip(b"\n") + b"\n"
                new.write(whole)
                count, size = count + 1, size + len(whole)
                if sent is None or count <= sent:
                    sent_count, sent_size = count, size
    return count, (sent_count, sent_size)
