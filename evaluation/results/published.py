"""The report's published rows, to stand beside what was measured."""

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml
from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One system's row of a table of the report, in percent; None: not in the table."""

    source: str
    system: str
    group: str
    official: float | None = None
    similarity: float | None = None
    followed: float | None = None


@cache
def _tables() -> dict[str, list[PublishedRow]]:
    text = resources.files("evaluation.results").joinpath("published.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, list[PublishedRow]]).validate_python(yaml.safe_load(text))


def published(benchmark: str, groups: list[str]) -> list[PublishedRow]:
    """The report's rows of a benchmark for these groups."""
    return [row for row in _tables().get(benchmark, []) if row.group in groups]
