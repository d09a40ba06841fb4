"""The clips of a recipe's datasets: `clips.parquet` joined with `latents.parquet`, as columns, not as objects.

A clip is a number, `clip`, over all datasets in the recipe's order. Which clips enter is decided once, from labels
alone, and every clip that does not is counted under its reason.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import Tensor

from training.curriculum.recipe import Recipe, ValidationConfig
from voxmill.core.errors import UserError
from voxmill.core.hashing import stable_fraction
from voxmill.data.dataset import Dataset
from voxmill.data.records import MODES, Mode
from voxmill.data.shards import read_latent

_COLUMNS = (
    "clip_id",
    "recording_id",
    "session",
    "duration",
    "text",
    "language",
    "origin",
    "quality",
    "descriptions",
    "references",
    "modes",
    "stage_modes",
)
_LATER_COLUMNS = ("dialect", "style")
"""Datasets of older versions lack these."""
_AXIS: dict[str, str] = {"design": "design", "controllable": "style"}


class VerdictRow(TypedDict):
    """Of the column `descriptions`: whether a labeller confirmed a claim."""

    verdict: str


class DescriptionRow(TypedDict):
    """An element of the column `descriptions`."""

    axis: str
    text: str
    verdicts: list[VerdictRow] | None


class StageModesRow(TypedDict):
    """An element of the column `stage_modes`."""

    stage: int | str
    modes: list[Mode] | None


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of the recipe: its name there, its folder, and its table (a row a clip)."""

    name: str
    path: Path
    table: pa.Table
    weight: float


@dataclass
class Corpus:
    """All clips of a recipe. Arrays have one entry a clip; `modes_CM`: the modes that each is trained in."""

    datasets: list[Source]
    latent_space: str
    patch_size: int
    starts: list[int]
    seconds: NDArray[np.float64]
    patches: NDArray[np.int64]
    dataset: NDArray[np.int64]
    language: NDArray[np.int64]
    languages: list[str]
    """Codes of the languages, and of the dialects that are known."""
    style: NDArray[np.int64]
    styles: list[str]
    """Names of the styles; "" for none."""
    modes_CM: NDArray[np.bool_]
    held_out_CM: NDArray[np.bool_]
    """Modes of the clips held out for validation; such a clip has no mode in `modes_CM` and is no reference."""
    verified_only: bool
    references: list[NDArray[np.int64]]
    """By dataset: clip numbers of all references, one clip's after another's."""
    reference_starts: list[NDArray[np.int64]]
    left_out: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.seconds)

    def value(self, clip: int, column: str) -> Any:
        """One value of a clip's row; of any type, by its column."""
        number = int(self.dataset[clip])
        return self.datasets[number].table.column(column)[clip - self.starts[number]].as_py()

    def clip_id(self, clip: int) -> str:
        """Id of a clip in its dataset."""
        clip_id: str = self.value(clip, "clip_id")
        return clip_id

    def text(self, clip: int) -> str:
        """Transcript of a clip; "" without one."""
        text: str | None = self.value(clip, "text")
        return text or ""

    def descriptions(self, clip: int, mode: Mode) -> list[str]:
        """Descriptions for the clip in this mode, `design` or `controllable`."""
        axis = _AXIS[mode]
        descriptions: list[DescriptionRow] = self.value(clip, "descriptions") or []
        return [
            description["text"]
            for description in descriptions
            if description["axis"] == axis and (not self.verified_only or _verified(description))
        ]

    def candidates(self, clip: int) -> list[int]:
        """Clips that can be its reference, most similar first."""
        number = int(self.dataset[clip])
        start, stop = self.reference_starts[number][clip - self.starts[number] :][:2]
        return [int(other) for other in self.references[number][start:stop] if other >= 0]

    def read(self, clip: int) -> Tensor:
        """Latent patches [P, patch_size, D] of a clip, bf16.

        Raises:
            ValueError, OSError: the shard does not match the index, or cannot be read.
        """
        folder = self.datasets[int(self.dataset[clip])].path
        place = {name: self.value(clip, f"latent_{name}") for name in ("shard", "offset", "size", "sha256")}
        latent_LD = read_latent(folder, **place)
        return latent_LD.view(-1, self.patch_size, latent_LD.shape[1])


def read_corpus(recipe: Recipe, *, latent_space: str | None = None) -> Corpus:
    """Reads the indexes of all datasets and applies the recipe's rules.

    Args:
        latent_space: of the checkpoint that is trained; None: whatever the datasets have.

    Raises:
        UserError: a dataset is missing, has no latents, or its latents are of another AudioVAE; the message names the
            dataset and the command to run.
    """
    sources, spaces = [], {}
    for name, config in recipe.datasets.items():
        try:
            dataset = Dataset.open(config.path)
            spaces[name] = dataset.latent_space()
            own = spaces[name].latent_space
            table = dataset.table_with_latents(_COLUMNS, latent_space=own, optional=_LATER_COLUMNS)
        except UserError as error:
            raise UserError(f"datasets.{name}: {error}") from None
        sources.append(Source(name, config.path, table, config.weight))
    first, *_ = spaces
    wanted = latent_space or spaces[first].latent_space
    for name, space in spaces.items():
        if space.latent_space != wanted:
            whose = f"the AudioVAE of {recipe.init}" if latent_space else f"that of {first}"
            raise UserError(
                f"datasets.{name}: latents of another AudioVAE ({space.latent_space[:12]}) than {whose} "
                f"({wanted[:12]}); run: voxmill encode {recipe.datasets[name].path} --vae {recipe.init} replace=true"
            )
    patch_sizes = {name: space.patch_size for name, space in spaces.items()}
    if len(set(patch_sizes.values())) > 1:
        raise UserError(f"datasets: patch sizes differ ({patch_sizes}); encode them with one checkpoint")
    return _select(sources, recipe, wanted, patch_sizes[first])


def _select(datasets: list[Source], recipe: Recipe, space: str, patch_size: int) -> Corpus:
    starts = [0, *np.cumsum([dataset.table.num_rows for dataset in datasets]).tolist()]
    whole = pa.concat_tables([dataset.table for dataset in datasets])
    left_out: Counter[str] = Counter()
    usable = np.ones(len(whole), dtype=bool)

    def rule(reason: str, keep: NDArray[np.bool_]) -> None:
        nonlocal usable
        kept = usable & np.asarray(keep, dtype=bool)
        if kept.sum() < usable.sum():
            left_out[reason] = int(usable.sum() - kept.sum())
        usable = kept

    clips = recipe.clips
    seconds = whole["duration"].to_numpy()
    # Clips of a known dialect are drawn as a language of their own.
    spoken = pc.coalesce(pc.struct_field(whole["dialect"], "label"), whole["language"])
    rule("no_latents", whole["latent_num_frames"].is_valid().to_numpy())
    rule("too_short", seconds >= clips.min_seconds)
    rule("too_long", seconds <= clips.max_seconds)
    for origin in pc.unique(whole["origin"]).to_pylist():
        if origin not in clips.origins:
            rule(f"origin_{origin}", pc.not_equal(whole["origin"], origin).fill_null(False).to_numpy())
    if clips.languages is not None:
        wanted = pa.array(clips.languages, pa.string())
        rule("language", pc.or_(pc.is_in(whole["language"], wanted), pc.is_in(spoken, wanted)).to_numpy())
    styles = pc.struct_field(whole["style"], "label")
    if clips.styles is not None:
        rule("style", pc.is_in(styles, pa.array(clips.styles, pa.string())).to_numpy())
    if clips.min_quality is not None:
        quality = pc.struct_field(whole["quality"], "dnsmos_ovr")
        rule("quality", pc.greater_equal(quality, clips.min_quality).fill_null(False).to_numpy())
    entries: list[list[StageModesRow] | None]
    if recipe.stage == "finetune":
        entries = [[{"stage": recipe.stage, "modes": modes}] for modes in whole["modes"].to_pylist()]
    else:
        entries = whole["stage_modes"].to_pylist()
    modes_CM = _modes(entries, recipe.stage)
    rule(
        f"not_for_stage_{recipe.stage}" if recipe.stage != "finetune" else "teaches_nothing",
        np.asarray(modes_CM.any(axis=1)),
    )
    modes_CM[~usable] = False
    held_out = _held_out(whole, recipe.validation, usable)
    encoded = pc.dictionary_encode(spoken.combine_chunks().fill_null(""))
    encoded_styles = pc.dictionary_encode(styles.combine_chunks().fill_null(""))
    references, reference_starts = _references(datasets, starts, held_out)
    corpus = Corpus(
        datasets=datasets,
        latent_space=space,
        patch_size=patch_size,
        starts=starts,
        seconds=seconds,
        patches=whole["latent_num_frames"].fill_null(0).to_numpy() // patch_size,
        dataset=np.repeat(np.arange(len(datasets)), [dataset.table.num_rows for dataset in datasets]),
        language=encoded.indices.to_numpy(),
        languages=encoded.dictionary.to_pylist(),
        style=encoded_styles.indices.to_numpy(),
        styles=encoded_styles.dictionary.to_pylist(),
        modes_CM=modes_CM,
        held_out_CM=np.zeros_like(modes_CM),
        verified_only=clips.verified_only,
        references=references,
        reference_starts=reference_starts,
        left_out=left_out,
    )
    _drop_unteachable(corpus)
    if held_out.any():
        corpus.held_out_CM[held_out] = modes_CM[held_out]
        modes_CM[held_out] = False
        left_out["held_out"] = int(held_out.sum())
    return corpus


def held_out_fraction(clip_id: str) -> float:
    """A number in [0, 1) that belongs to the clip, in every dataset and recipe that it is in."""
    return stable_fraction(f"held out/{clip_id}")


def _held_out(whole: pa.Table, config: ValidationConfig | None, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the usable clips are held out.

    Raises:
        UserError: a name in `validation.clips` is no clip and no recording of the clips that enter.
    """
    if config is None or not usable.any():
        return np.zeros(len(whole), dtype=bool)
    if config.share is not None:
        hashes = np.array([held_out_fraction(clip_id) for clip_id in whole["clip_id"].to_pylist()])
        return usable & (hashes <= max(config.share, float(hashes[usable].min())))
    held = np.zeros(len(whole), dtype=bool)
    for name in config.clips:
        named = pc.or_(pc.equal(whole["clip_id"], name), pc.equal(whole["recording_id"], name)).fill_null(False)
        if not (usable & named.to_numpy()).any():
            raise UserError(f"validation.clips: {name} is no clip and no recording of the clips that enter; correct it")
        held |= usable & named.to_numpy()
    return held


def _modes(stage_modes: Sequence[list[StageModesRow] | None], stage: int | str) -> NDArray[np.bool_]:
    """Modes that each clip is trained in at this stage, [clips, modes]."""
    modes_CM = np.zeros((len(stage_modes), len(MODES)), dtype=bool)
    for clip, entries in enumerate(stage_modes):
        for entry in entries or []:
            if entry["stage"] == stage:
                modes_CM[clip, [MODES.index(mode) for mode in entry["modes"] or []]] = True
    return modes_CM


def _references(
    datasets: list[Source], starts: list[int], held_out: NDArray[np.bool_]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """(clip numbers of all references by dataset, -1 for one held out or without latents; where each clip's begin)."""
    references, begins = [], []
    for dataset, start in zip(datasets, starts, strict=False):
        lists = dataset.table["references"]
        # By chunk: all ids in one would pass the 2^31 bytes of Arrow's `string` at some ten million clips.
        ids = [pc.struct_field(chunk.flatten(), "clip_id").cast(pa.large_string()) for chunk in lists.chunks]
        known_ids = dataset.table["clip_id"].cast(pa.large_string())
        rows = pc.index_in(pa.chunked_array(ids, pa.large_string()), value_set=known_ids)
        usable = dataset.table["latent_num_frames"].is_valid().to_numpy()
        usable = usable & ~held_out[start : start + len(usable)]
        numbers = rows.fill_null(-1).to_numpy().astype(np.int64)
        known = (numbers >= 0) & usable[np.maximum(numbers, 0)]
        references.append(np.where(known, numbers + start, -1))
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
        begins.append(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return references, begins


def _drop_unteachable(corpus: Corpus) -> None:
    """Removes modes whose description or reference a clip lacks after all: a reference may have no latents."""
    needs_reference = [MODES.index("reference"), MODES.index("controllable")]
    for clip in np.flatnonzero(corpus.modes_CM[:, needs_reference].any(axis=1)):
        if not corpus.candidates(int(clip)):
            corpus.modes_CM[clip, needs_reference] = False
            corpus.left_out["mode_without_reference"] += 1
    described: tuple[Mode, ...] = ("design", "controllable")
    for mode in described:
        column = MODES.index(mode)
        for clip in np.flatnonzero(corpus.modes_CM[:, column]):
            if not corpus.descriptions(int(clip), mode):
                corpus.modes_CM[clip, column] = False
                corpus.left_out[f"mode_{mode}_without_description"] += 1


def _verified(description: DescriptionRow) -> bool:
    return all(verdict["verdict"] == "pass" for verdict in description["verdicts"] or [])
