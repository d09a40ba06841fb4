"""Making an index: part after part of the datasets, so that memory does not grow with the corpus."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import JsonValue

from model.sequence.layouts import compose_text
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.index.columns import CAP, FILE, TEXTS, WIDTHS, IndexFacts
from training.curriculum.index.groups import group_clips
from training.curriculum.index.rules import (
    BITS,
    LATER_COLUMNS,
    REFERENCED,
    Selection,
    quality_of,
    small_columns,
    spoken_language,
    usable_descriptions,
    usable_references,
)
from training.curriculum.recipe import Recipe
from voxmill.core.errors import UserError
from voxmill.core.files import atomic_folder
from voxmill.core.progress import Bar, Progress
from voxmill.data.dataset import Dataset
from voxmill.data.description_kinds import DESCRIBED_MODES, kinds_of
from voxmill.data.records import DESCRIPTION_AXES, to_json_text
from voxmill.data.transcript import plain_text

BATCH = 2048
"""Clips whose texts are in memory at once."""
_GROUPS = "group_clips"
"""The column that is made from the others."""
_line = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass
class Names:
    """Texts that a column numbers, in the order of their first appearance."""

    numbers: dict[str, int]

    def encode(self, values: pa.ChunkedArray) -> NDArray[np.int64]:
        """The number of each; null is ""."""
        encoded = pc.dictionary_encode(values.combine_chunks().fill_null(""))
        mapped = [self.numbers.setdefault(name, len(self.numbers)) for name in encoded.dictionary.to_pylist()]
        numbers: NDArray[np.int64] = np.array(mapped, dtype=np.int64)[encoded.indices.to_numpy()]
        return numbers

    def all(self, what: str, limit: int) -> tuple[str, ...]:
        """Raises:
        UserError: there are more than fit into the column.
        """
        if len(self.numbers) > limit:
            raise UserError(f"{what}: {len(self.numbers)} of them, and an index holds {limit}; divide the recipe")
        return tuple(self.numbers)


def build_index(
    recipe: Recipe,
    folder: Path,
    *,
    made_from: dict[str, JsonValue],
    latent_space: str,
    patch_size: int,
    tokenizer: TextTokenizer,
    progress: Progress | None = None,
) -> None:
    """Writes the index of a recipe's clips; `folder` appears whole or not at all, in place of an older one.

    Args:
        folder: a local path or one in object storage.
        made_from: what decides the content; kept in it.

    Raises:
        UserError: a dataset cannot be read or has no latents, or a name in `validation.clips` is unknown.
        OSError: the index cannot be written.
    """
    with atomic_folder(folder, replace=True, last=FILE) as inside:
        (inside / TEXTS).parent.mkdir()
        selection, shown = Selection(recipe), progress or Progress(False)
        writer = _Writer(inside, selection, patch_size, tokenizer, shown)
        writer.write(latent_space)
        if corrected := selection.corrected():
            # One clip at least is held out: the first by its fraction, which is known now. There are few clips.
            selection = corrected
            writer = _Writer(inside, selection, patch_size, tokenizer, shown)
            writer.write(latent_space)
        groups = group_clips(inside, writer.starts, sorted(recipe.mixture.lengths))
        facts = IndexFacts(
            made_from=made_from,
            latent_space=latent_space,
            patch_size=patch_size,
            clips=writer.starts[-1],
            datasets=tuple(recipe.datasets),
            starts=tuple(writer.starts[:-1]),
            languages=writer.languages.all("languages", CAP),
            styles=writer.styles.all("styles", CAP),
            shards=writer.shards.all("latent shards", 2**32 - 1),
            left_out=dict(selection.left_out),
            groups=groups,
            sizes={name: (inside / name).stat().st_size for name in (*(f"{name}.bin" for name in WIDTHS), TEXTS)},
        )
        (inside / FILE).write_text(to_json_text(facts) + "\n", encoding="utf-8")


class _Writer:
    """Appends the columns of one part after another."""

    def __init__(
        self, folder: Path, selection: Selection, patch_size: int, tokenizer: TextTokenizer, progress: Progress
    ) -> None:
        self._folder, self._recipe, self._selection = folder, selection.recipe, selection
        self._patch_size, self._tokenizer, self._progress = patch_size, tokenizer, progress
        self.languages, self.styles, self.shards = Names({}), Names({}), Names({})
        self.starts = [0]
        """First clips of the datasets so far, and the number of all."""
        self._ends = dict.fromkeys(("text_starts", "description_starts", "reference_starts"), 0)
        self._files: dict[str, BinaryIO] = {}

    def write(self, latent_space: str) -> None:
        """Writes all columns but those of the groups."""
        with ExitStack() as open_files:
            for name in (name for name in WIDTHS if name != _GROUPS):
                self._files[name] = open_files.enter_context(open(self._folder / f"{name}.bin", "wb"))
            self._files[TEXTS] = open_files.enter_context(open(self._folder / TEXTS, "wb"))
            for name in self._ends:
                self._append(name, np.zeros(1, np.int64))
            datasets = {name: _open(name, config.path) for name, config in self._recipe.datasets.items()}
            total = sum(dataset.num_clips() for dataset in datasets.values())
            with self._progress.stage("index", total, "clips") as bar:
                for name, dataset in datasets.items():
                    self.starts.append(self.starts[-1])
                    try:
                        for part in self._parts(dataset, latent_space):
                            self._part(name, *part, bar)
                    except UserError as error:
                        if str(error).startswith("validation."):
                            raise
                        raise UserError(f"datasets.{name}: {error}") from None
        self._selection.refuse_unknown()

    def _parts(self, dataset: Dataset, latent_space: str) -> Iterator[tuple[pa.Table, Iterator[pa.Table]]]:
        """(small columns with the place of latents, the large columns by the piece) of each part."""
        small = dataset.tables_with_latents(
            small_columns(self._recipe), latent_space=latent_space, optional=LATER_COLUMNS
        )
        large = dataset.streams(("text", "descriptions"), rows=BATCH)
        yield from zip(small, large, strict=True)

    def _part(self, dataset: str, table: pa.Table, pieces: Iterator[pa.Table], bar: Bar) -> None:
        """Appends one part; returns the number of clips held out."""
        base = self.starts[-1]
        if base + table.num_rows > 2**32 - 1:
            raise UserError("more than 4,294,967,295 clips; divide the recipe")
        modes_C, held_out_C = self._selection.modes(table, dataset)
        # A dataset that is only validated is not trained on: its clips may be each other's references.
        is_trained = self._recipe.datasets[dataset].role != "validate"
        references = usable_references(table, modes_C, held_out_C & is_trained, self._recipe.references)
        without = (modes_C & REFERENCED > 0) & (references.counts_C == 0)
        self._count("mode_without_reference", without)
        modes_C[without] &= ~np.uint8(REFERENCED)
        self._ragged("reference_starts", references.counts_C)
        self._append("references", references.rows + base)
        self._places(table)
        self._append("seconds", table["duration"].fill_null(0).to_numpy())
        self._append("quality", quality_of(table))
        self._append("language", self.languages.encode(spoken_language(table)))
        self._append("style", self.styles.encode(pc.struct_field(table["style"], "label")))
        first = 0
        for piece in pieces:
            stop = first + piece.num_rows
            self._texts(piece, table["clip_id"][first:stop].to_pylist(), modes_C[first:stop])
            bar.advance(piece.num_rows)
            first = stop
        self._append("held_out", np.where(held_out_C, modes_C, 0))
        self._append("modes", np.where(held_out_C, 0, modes_C))
        self.starts[-1] += table.num_rows

    def _places(self, table: pa.Table) -> None:
        frames = table["latent_num_frames"].fill_null(0).to_numpy()
        self._append("patches", np.minimum(frames // self._patch_size, CAP))
        self._append("latent_shard", self.shards.encode(table["latent_shard"]))
        for name, limit in (("offset", 2**63 - 1), ("size", 2**32 - 1)):
            values = table[f"latent_{name}"].fill_null(0).to_numpy()
            if len(values) and not 0 <= values.min() <= values.max() <= limit:
                raise UserError(f"latents.parquet: a clip's {name} is no place in a shard; run `voxmill encode` again")
            self._append(f"latent_{name}", values)
        try:
            sums = b"".join(bytes.fromhex(text) for text in table["latent_sha256"].fill_null("0" * 64).to_pylist())
            self._append("latent_sha256", np.frombuffer(sums, dtype="V32")[: table.num_rows].view("V8")[::4])
        except ValueError:
            raise UserError("latents.parquet: a clip's sha256 is none; run `voxmill encode` again") from None

    def _texts(self, piece: pa.Table, clip_ids: list[str], modes_C: NDArray[np.uint8]) -> None:
        """Appends texts, descriptions and their tokens of some clips; takes away modes that lack a description."""
        texts, shares = piece["text"].fill_null("").to_pylist(), self._recipe.mixture.descriptions
        found = usable_descriptions(
            piece["descriptions"].combine_chunks(),
            modes_C,
            shares=shares,
            rule=self._recipe.clips.verified,
        )
        for mode in DESCRIBED_MODES:
            shown = [DESCRIPTION_AXES.index(axis) for axis in kinds_of(mode, shares)]
            has_one = np.bincount(found.rows[np.isin(found.axes, shown)], minlength=len(texts)) > 0
            without = (modes_C & BITS[mode] > 0) & ~has_one
            self._count(f"mode_{mode}_without_description", without)
            modes_C[without] &= ~np.uint8(BITS[mode])
        plain = [plain_text(text) if modes_C[row] else "" for row, text in enumerate(texts)]
        rows = [row for row, text in enumerate(plain) if text]
        described_rows = [place for place, row in enumerate(found.rows.tolist()) if plain[row]]
        # What stands before a text does not depend on it, and few words describe many clips.
        before = {text: compose_text("x", description=text)[:-1] for text in dict.fromkeys(found.texts)}
        alone = {row: compose_text(plain[row]) for row in rows}
        described = [before[found.texts[place]] + alone[found.rows[place]] for place in described_rows]
        counts = np.minimum(self._tokenizer.count([*alone.values(), *described]), CAP)
        tokens_C, tokens_D = np.zeros(len(texts), np.int64), np.zeros(len(found.texts), np.int64)
        tokens_C[rows] = counts[: len(rows)]
        tokens_D[described_rows] = counts[len(rows) :]
        self._append("tokens", tokens_C)
        self._append("description_axis", found.axes)
        self._append("description_tokens", tokens_D)
        of_each = np.bincount(found.rows, minlength=len(texts))
        self._ragged("description_starts", of_each)
        spoken = iter(found.texts)
        lines = [
            f"{_line([clip_id, text, [next(spoken) for _ in range(count)]])}\n".encode("utf-8", "surrogatepass")
            for clip_id, text, count in zip(clip_ids, texts, of_each.tolist(), strict=True)
        ]
        self._files[TEXTS].write(b"".join(lines))
        self._ragged("text_starts", np.array([len(line) for line in lines], np.int64))

    def _count(self, reason: str, flags: NDArray[np.bool_]) -> None:
        if flags.any():
            self._selection.left_out[reason] += int(flags.sum())

    def _ragged(self, name: str, counts: NDArray[np.int64]) -> None:
        """Appends where the entries of each of some clips end."""
        ends = self._ends[name] + np.cumsum(counts)
        self._append(name, ends)
        if len(ends):
            self._ends[name] = int(ends[-1])

    def _append(self, name: str, values: NDArray[Any]) -> None:
        self._files[name].write(np.ascontiguousarray(values, dtype=WIDTHS[name]).tobytes())


def _open(name: str, path: Path) -> Dataset:
    try:
        return Dataset.open(path)
    except UserError as error:
        raise UserError(f"datasets.{name}: {error}") from None
