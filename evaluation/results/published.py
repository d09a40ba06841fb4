"""The report's published rows, to stand beside what was measured."""

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("evaluation.results").joinpath("published.yaml").read_text(encoding="utf-8")
    tables: dict[str, list[dict[str, Any]]] = yaml.safe_load(text)
    return tables


def published(benchmark: str, groups: list[str]) -> list[dict[str, Any]]:
    """Rows `source, system, group` and `official`, `similarity` or `followed` in percent, for these groups."""
    return [row for row in _tables().get(benchmark, []) if row["group"] in groups]
