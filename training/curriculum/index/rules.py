"""Which clips enter and what each can teach, by the recipe and by labels alone: Arrow and NumPy over a dataset's part.

Modes are bit masks: bit `n` is `MODES[n]`. Every clip that does not enter is counted under its reason.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.curriculum.recipe import Recipe, ReferencesConfig
from training.curriculum.references import good_enough
from voxmill.core.errors import UserError
from voxmill.core.hashing import stable_fraction
from voxmill.data.description_kinds import DESCRIBED_MODES, DescriptionShares, kinds_of
from voxmill.data.records import DESCRIPTION_AXES, MODES, Axis, Mode
from voxmill.data.verified import UNREAD, VerifiedRule, admitted

BITS: dict[Mode, int] = {mode: 1 << number for number, mode in enumerate(MODES)}
REFERENCED = BITS["reference"] | BITS["controllable"]
SMALL_COLUMNS = ("clip_id", "recording_id", "duration", "language", "origin", "quality", "references")
LATER_COLUMNS = ("dialect", "style")
"""Datasets of older versions lack these."""


def small_columns(recipe: Recipe) -> tuple[str, ...]:
    """Columns of `clips.parquet` by which clips enter; a part's are in memory together."""
    return (*SMALL_COLUMNS, "modes" if recipe.stage == "finetune" else "stage_modes")


def held_out_fraction(clip_id: str) -> float:
    """A number in [0, 1) that belongs to the clip, in every dataset and recipe that it is in."""
    return stable_fraction(f"held out/{clip_id}")


Watched = tuple[str, str]
"""Dataset and language of clips of which one at least is held out, where one is held out at all; ("", ""): of all."""


@dataclass
class Selection:
    """The rules of a recipe, and what they have come across so far.

    fractions: of some `Watched`, clips up to which held-out fraction are held out, instead of the recipe's share.
    left_out: clips by reason.
    """

    recipe: Recipe
    fractions: dict[Watched, float] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    _named: set[str] = field(default_factory=set)
    _lowest: dict[Watched, float] = field(default_factory=dict)
    _counts: Counter[Watched] = field(default_factory=Counter)
    _entered: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float | None:
        """Of the clips that is held out; None where none is by share."""
        return None if self.recipe.validation is None else self.recipe.validation.share

    @property
    def is_watched(self) -> bool:
        """Whether each dataset and language is validated for itself, because forgetting is measured."""
        return any(config.role != "train" for config in self.recipe.datasets.values())

    def modes(self, table: pa.Table, dataset: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(modes of each clip, none where it does not enter; whether it is held out) of one part.

        Args:
            table: `small_columns` with the place of latents. dataset: its name in the recipe.
        """
        usable = self._enters(table)
        if self.recipe.stage == "finetune":
            modes_C = mode_bits(table["modes"].combine_chunks())
        else:
            modes_C = _modes_of_stage(table["stage_modes"].combine_chunks(), self.recipe.stage)
        reason = "teaches_nothing" if self.recipe.stage == "finetune" else f"not_for_stage_{self.recipe.stage}"
        usable = self._rule(usable, reason, modes_C > 0)
        modes_C[~usable] = 0
        self._entered[dataset] += int(usable.sum())
        held_out_C = self._held_out(table, usable, dataset)
        if held_out_C.any():
            self.left_out["held_out"] += int(held_out_C.sum())
        return modes_C, held_out_C

    def _rule(self, usable: NDArray[np.bool_], reason: str, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        kept = usable & keep
        lost = int(usable.sum() - kept.sum())
        if lost:
            self.left_out[reason] += lost
        return kept

    def _enters(self, table: pa.Table) -> NDArray[np.bool_]:
        clips = self.recipe.clips
        usable = np.ones(table.num_rows, dtype=bool)
        seconds = table["duration"].to_numpy()
        usable = self._rule(usable, "no_latents", table["latent_num_frames"].is_valid().to_numpy())
        usable = self._rule(usable, "too_short", seconds >= clips.min_seconds)
        usable = self._rule(usable, "too_long", seconds <= clips.max_seconds)
        for origin in pc.unique(table["origin"]).to_pylist():
            if origin not in clips.origins:
                of_it = table["origin"].is_null() if origin is None else pc.equal(table["origin"], origin)
                usable = self._rule(usable, f"origin_{origin}", ~of_it.fill_null(False).to_numpy())
        if clips.languages is not None:
            wanted = pa.array(clips.languages, pa.string())
            named = pc.or_(pc.is_in(table["language"], wanted), pc.is_in(spoken_language(table), wanted))
            usable = self._rule(usable, "language", named.to_numpy())
        if clips.styles is not None:
            styles = pc.is_in(pc.struct_field(table["style"], "label"), pa.array(clips.styles, pa.string()))
            usable = self._rule(usable, "style", styles.to_numpy())
        if clips.min_quality is not None:
            usable = self._rule(usable, "quality", quality_of(table) >= clips.min_quality)
        return usable

    def _held_out(self, table: pa.Table, usable: NDArray[np.bool_], dataset: str) -> NDArray[np.bool_]:
        held: NDArray[np.bool_] = np.zeros(table.num_rows, dtype=bool)
        config = self.recipe.validation
        if config is None or not usable.any():
            return held
        if self.recipe.datasets[dataset].role == "validate":
            return usable.copy()
        if config.share is not None:
            rows = np.flatnonzero(usable)
            chosen = table.select(["clip_id", "language"]).take(pa.array(rows))
            fractions = np.array([held_out_fraction(name) for name in chosen["clip_id"].to_pylist()])
            languages = np.array(chosen["language"].fill_null("").to_pylist() if self.is_watched else [""] * len(rows))
            for language in np.unique(languages).tolist():
                kind = (dataset, language) if self.is_watched else ("", "")
                mine = languages == language
                held[rows[mine]] = fractions[mine] <= self.fractions.get(kind, config.share)
                self._counts[kind] += int(mine.sum())
                self._lowest[kind] = min(self._lowest.get(kind, 1.0), float(fractions[mine].min()))
            return held
        for name in config.clips:
            named = pc.or_(pc.equal(table["clip_id"], name), pc.equal(table["recording_id"], name)).fill_null(False)
            mine = usable & named.to_numpy()
            if mine.any():
                self._named.add(name)
            held |= mine
        return held

    def corrected(self) -> "Selection | None":
        """Once all parts were gone through: the rules that hold out one clip of each kind at least; None: these do.

        Where forgetting is measured a kind of a single clip is trained on and not held out.
        """
        share = self.share
        if share is None:
            return None
        fractions: dict[Watched, float] = {}
        for kind, lowest in self._lowest.items():
            if self.is_watched and self._counts[kind] == 1:
                fractions[kind] = -1.0
            elif lowest > share:
                fractions[kind] = lowest
        changes = any((self._lowest[kind] <= share) == (fraction < 0) for kind, fraction in fractions.items())
        return Selection(self.recipe, fractions) if changes else None

    def refuse_unknown(self) -> None:
        """Once all parts were gone through.

        Raises:
            UserError: a name in `validation.clips` is no clip and no recording of the clips that enter, or a dataset
                that is only validated has no clip that enters.
        """
        config = self.recipe.validation
        for name in () if config is None else config.clips:
            if name not in self._named:
                raise UserError(
                    f"validation.clips: {name} is no clip and no recording of the clips that enter; correct it"
                )
        for name, dataset in self.recipe.datasets.items():
            if dataset.role == "validate" and not self._entered[name]:
                raise UserError(f"datasets.{name}: none of its clips enters; drop it or change clips.*")


def quality_of(table: pa.Table) -> NDArray[np.float64]:
    """DNSMOS overall of each clip, 1..5; NaN where it was not measured."""
    quality: NDArray[np.float64] = (
        pc.struct_field(table["quality"], "dnsmos_ovr").cast(pa.float64()).fill_null(np.nan).to_numpy()
    )
    return quality


def spoken_language(table: pa.Table) -> pa.ChunkedArray:
    """Clips of a known dialect are drawn as a language of their own."""
    return pc.coalesce(pc.struct_field(table["dialect"], "label"), table["language"])


def mode_bits(lists: pa.ListArray) -> NDArray[np.uint8]:
    """The mask of each list of modes."""
    bits_C: NDArray[np.uint8] = np.zeros(len(lists), dtype=np.uint8)
    places = pc.index_in(pc.list_flatten(lists), pa.array(MODES, pa.string()))
    rows = pc.list_parent_indices(lists).to_numpy()
    known = places.is_valid().to_numpy(zero_copy_only=False)
    values = np.left_shift(1, places.fill_null(0).to_numpy()).astype(np.uint8)
    np.bitwise_or.at(bits_C, rows[known], values[known])
    return bits_C


def _modes_of_stage(entries: pa.ListArray, stage: int) -> NDArray[np.uint8]:
    flat = pc.list_flatten(entries)
    mine = pc.equal(pc.struct_field(flat, "stage"), stage).fill_null(False)
    rows = pc.list_parent_indices(entries).filter(mine).to_numpy()
    bits_C: NDArray[np.uint8] = np.zeros(len(entries), dtype=np.uint8)
    np.bitwise_or.at(bits_C, rows, mode_bits(pc.struct_field(flat, "modes").filter(mine)))
    return bits_C


@dataclass(frozen=True, slots=True)
class References:
    """Rows of a part's usable references, one clip's after another's; `counts_C`: of each clip."""

    rows: NDArray[np.int64]
    counts_C: NDArray[np.int64]


def usable_references(
    table: pa.Table, modes_C: NDArray[np.uint8], barred_C: NDArray[np.bool_], config: ReferencesConfig
) -> References:
    """References of the clips that may need one: other clips of the part that have latents and are good enough.

    A clip's references are of its session, and a session lies in one part.

    Args:
        barred_C: clips that are no reference, because they are held out.
    """
    quality_C = quality_of(table)
    ids = table["clip_id"].cast(pa.large_string())
    usable = table["latent_num_frames"].is_valid().to_numpy() & ~barred_C
    wanted = modes_C & REFERENCED > 0
    rows, parents, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    # By chunk: all ids in one would pass the 2^31 bytes of Arrow's `string` at some ten million clips.
    for chunk in table["references"].chunks:
        names = pc.struct_field(pc.list_flatten(chunk), "clip_id").cast(pa.large_string())
        found = pc.index_in(names, value_set=ids).fill_null(-1).to_numpy().astype(np.int64)
        owners = pc.list_parent_indices(chunk).to_numpy().astype(np.int64) + first
        good = (found >= 0) & wanted[owners]
        good &= usable[np.maximum(found, 0)]
        good &= good_enough(quality_C[owners], quality_C[np.maximum(found, 0)], config)
        rows.append(found[good])
        parents.append(owners[good])
        first += len(chunk)
    counts = np.bincount(np.concatenate(parents), minlength=table.num_rows)
    return References(np.concatenate(rows), counts)


@dataclass(frozen=True, slots=True)
class Descriptions:
    """Usable descriptions of some clips: of which of them, on which of `DESCRIPTION_AXES`, and what they say."""

    rows: NDArray[np.int64]
    axes: NDArray[np.uint8]
    texts: list[str]


def usable_descriptions(
    column: pa.ListArray, modes_C: NDArray[np.uint8], *, shares: DescriptionShares, rule: VerifiedRule | None
) -> Descriptions:
    """Descriptions that the modes of the clips show, and that the rule admits; None admits all."""
    flat = pc.list_flatten(column)
    rows = pc.list_parent_indices(column).to_numpy().astype(np.int64)
    axes = pc.index_in(pc.struct_field(flat, "axis"), pa.array(DESCRIPTION_AXES, pa.string()))
    axes = axes.fill_null(len(DESCRIPTION_AXES)).to_numpy()
    needed = np.array([*(_modes_that_show(axis, shares) for axis in DESCRIPTION_AXES), 0], dtype=np.uint8)[axes]
    keep = (modes_C[rows] & needed) > 0
    keep &= pc.struct_field(flat, "text").is_valid().to_numpy(zero_copy_only=False)
    if rule is not None:
        keep[_refused(flat, rule)] = False
    texts = pc.struct_field(flat, "text").filter(pa.array(keep)).to_pylist()
    return Descriptions(rows[keep], axes[keep].astype(np.uint8), texts)


def _refused(flat: pa.StructArray, rule: VerifiedRule) -> NDArray[np.int64]:
    """Places of the descriptions that a rule does not admit; in older datasets no part of a text is unread."""
    verdicts = pc.struct_field(flat, "verdicts")
    claims, owners = pc.list_flatten(verdicts), pc.list_parent_indices(verdicts)
    attribute = pc.struct_field(claims, "attribute").fill_null("")
    verdict = pc.struct_field(claims, "verdict").fill_null("fail")
    taken: NDArray[np.bool_] = np.zeros(len(claims), dtype=bool)
    for name in pc.unique(attribute).to_pylist():
        of_it = pc.and_(pc.equal(attribute, name), pc.is_in(verdict, pa.array(admitted(rule, name), pa.string())))
        taken |= of_it.to_numpy(zero_copy_only=False)
    refused = [owners.to_numpy()[~taken]]
    if UNREAD not in rule and flat.type.get_field_index("unread") >= 0:
        unread = pc.list_value_length(pc.struct_field(flat, "unread")).fill_null(0)
        refused.append(np.flatnonzero(unread.to_numpy(zero_copy_only=False) > 0))
    places: NDArray[np.int64] = np.concatenate(refused).astype(np.int64)
    return places


def _modes_that_show(axis: Axis, shares: DescriptionShares) -> int:
    """The bits of the modes that show descriptions of an axis."""
    return sum(BITS[mode] for mode in DESCRIBED_MODES if axis in kinds_of(mode, shares))
