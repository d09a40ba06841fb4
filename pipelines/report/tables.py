"""What a run left in its output folder: the indexes as columns, run.json, and figures that several pages share."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.report.formatting import number, percent, visible
from pipelines.report.run_record import Run, read_run

FLOAT_KINDS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in its output folder, with structs flattened to dotted column names."""

    out: Path
    clips: pa.Table
    rejected: pa.Table
    recordings: pa.Table
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageRow:
    """Kept clips of one language. `survived`: percent of its candidates; `share`: percent of the largest language."""

    language: str
    clips: int
    seconds: float
    ovr: str
    snr: str
    probability: str
    survived: float
    share: float


def load_outcome(out: Path) -> Outcome:
    """Reads the three indexes and the run's record; word times are left out, nothing here shows them."""

    def table(name: str) -> pa.Table:
        names = [column for column in pq.read_schema(out / name).names if column != "words"]
        return pq.read_table(out / name, columns=names).flatten()

    clips, rejected, recordings = map(table, ("clips.parquet", "rejected.parquet", "recordings.parquet"))
    return Outcome(out, clips, rejected, recordings, read_run(out))


def floats(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64 with NaN for null; an absent or untyped (all-null) column is all NaN."""
    if name in table.column_names and any(kind(table.schema.field(name).type) for kind in FLOAT_KINDS):
        return np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
    return np.full(table.num_rows, np.nan)


def strings(table: pa.Table, name: str) -> list[str]:
    """A column as text with '' for null or absent."""
    if name not in table.column_names:
        return [""] * table.num_rows
    return ["" if value is None else str(value) for value in table[name].to_pylist()]


def total(values: np.ndarray) -> float:
    return float(np.nansum(values)) if values.size else 0.0


def median(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def groups(keys: Iterable[Key]) -> dict[Key, np.ndarray]:
    """Row numbers by key, in order of first appearance."""
    rows_of: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    return {key: np.asarray(rows) for key, rows in rows_of.items()}


def languages(outcome: Outcome) -> list[LanguageRow]:
    """Kept clips by language, most audio first; also what share of that language's clips survived."""
    clips = outcome.clips
    duration, ovr, snr, sure = (
        floats(clips, name) for name in ("duration", "quality.dnsmos_ovr", "quality.snr_db", "language_probability")
    )
    lost = Counter(strings(outcome.rejected, "language"))
    rows_of = groups(strings(clips, "language"))
    most = max((total(duration[at]) for at in rows_of.values()), default=0.0)
    rows = [
        LanguageRow(
            language=visible(language or "unknown"),
            clips=len(at),
            seconds=total(duration[at]),
            ovr=number(median(ovr[at])),
            snr=number(median(snr[at])),
            probability=number(mean(sure[at])),
            survived=percent(len(at), len(at) + lost[language]),
            share=percent(total(duration[at]), most),
        )
        for language, at in rows_of.items()
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def leaves(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every single setting of a nested config with its dotted name."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
