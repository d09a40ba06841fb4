"""The clips of a recipe's datasets as columns that are mapped from an index (`training.curriculum.index`).

A clip is a number, `clip`, over all datasets in the recipe's order. Which clips enter is decided once, when the index
is made, from labels alone, and every clip that does not is counted under its reason. Planning takes columns only; texts
and latents are read for the clips that a rank shows.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.index.build import build_index
from training.curriculum.index.columns import (
    FILE,
    TEXTS,
    Column,
    Group,
    map_columns,
    map_texts,
    read_facts,
)
from training.curriculum.index.origin import origin_of
from training.curriculum.index.rules import BITS, held_out_fraction
from training.curriculum.latent_reading import LatentPlace, Latents, by_shard, read_shard
from training.curriculum.recipe import DatasetConfig, Recipe
from training.curriculum.references import across_languages, base_languages
from voxmill.core.config import differences
from voxmill.core.errors import UserError
from voxmill.core.files import remove_folder
from voxmill.core.hashing import fingerprint
from voxmill.core.progress import Progress
from voxmill.core.storage import file_names, read_nearby, scratch_folder
from voxmill.data.dataset import Dataset, LatentSpace
from voxmill.data.records import DESCRIPTION_AXES, MODES, Axis, Mode

__all__ = ["ClipTexts", "Corpus", "Source", "held_out_fraction", "read_corpus"]
SEEN_AFTER = 90.0
"""Seconds after which a file that another machine wrote has to be seen here; NFS remembers for up to a minute."""
OWN = "index"
"""Folder of `run.out` with the index that a run makes for itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of the recipe: its name there, its folder, its weight, and whether shards may lie behind links."""

    name: str
    path: Path
    weight: float
    follow_symlinks: bool = False


@dataclass(frozen=True, slots=True)
class ClipTexts:
    """What is written of a clip. `descriptions`: the usable ones, in the order of `Corpus.description_tokens`."""

    clip_id: str
    text: str
    descriptions: tuple[str, ...]


class Corpus:
    """All clips of a recipe. Columns have one entry a clip, and those of `description_*` and `references` more.

    A column gives int64 or float64 for whatever is taken out of it, `corpus.tokens[clips]`; never take a whole one
    where the corpus may be large.

    Args:
        folder: of the index; a local path or one in object storage.
        sources: of the recipe, in its order.
        kept: a temporary folder that the index lies in, removed with the corpus.

    Raises:
        UserError: `folder` holds no whole index. OSError: it cannot be read.
    """

    def __init__(self, folder: Path, sources: Sequence[Source], kept: "TemporaryDirectory[str] | None" = None) -> None:
        self.folder, self.datasets, self._kept = folder, list(sources), kept
        facts = self.facts = read_facts(folder)
        columns = map_columns(folder, facts)
        self._texts = map_texts(folder)
        self.latent_space, self.patch_size = facts.latent_space, facts.patch_size
        self.starts = [*facts.starts, facts.clips]
        """First clips of the datasets, and the number of all."""
        self.left_out: Counter[str] = Counter(facts.left_out)
        self.languages, self.styles = list(facts.languages), list(facts.styles)
        """Codes of the languages, and of the dialects that are known; names of the styles; "" for none."""
        self.seconds = Column(columns["seconds"], np.float64)
        self.patches, self.tokens = (Column(columns[name], np.int64) for name in ("patches", "tokens"))
        """Tokens of the text alone; 0 without a text, and for a clip that does not enter."""
        self.quality = Column(columns["quality"], np.float64)
        """DNSMOS overall, 1..5, to 0.004; NaN where it was not measured."""
        self.base_language = base_languages(self.languages)
        """By `languages`: numbers of the languages that they are, or are dialects of; -1 where it is not known."""
        self.language, self.style = (Column(columns[name], np.int64) for name in ("language", "style"))
        self.modes, self.held_out = (Column(columns[name], np.int64) for name in ("modes", "held_out"))
        """Bit masks of the modes (bit n: `MODES[n]`) that a clip is trained in, and is held out in; never both."""
        self.description_starts = Column(columns["description_starts"], np.int64)
        self.description_axis = Column(columns["description_axis"], np.int64)
        """Numbers of `DESCRIPTION_AXES`: 0 of the voice, 1 of the style, 2 of both; older indexes have no 2."""
        self.description_tokens = Column(columns["description_tokens"], np.int64)
        """Of the whole `(description)text`."""
        self.reference_starts = Column(columns["reference_starts"], np.int64)
        self.references = Column(columns["references"], np.int64)
        """Clips that can be a reference, a clip's most similar first; of clips that may need one."""
        self.group_clips = columns["group_clips"]
        """Training clips by `groups`, within one in their order. As stored, for slices of it."""
        self._text_starts = columns["text_starts"]
        self._places = {name: columns[f"latent_{name}"] for name in ("shard", "offset", "size", "sha256")}

    def __len__(self) -> int:
        return self.facts.clips

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the same files; sent by value, the columns would be copied.
        return Corpus, (self.folder, self.datasets)

    @property
    def groups(self) -> tuple[Group, ...]:
        """Of `group_clips`."""
        return self.facts.groups

    def dataset_of(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """The datasets that clips are of."""
        return np.searchsorted(self.starts, clips, side="right") - 1

    @property
    def dataset(self) -> "_Datasets":
        """The dataset of each clip, as a column."""
        return _Datasets(self)

    @property
    def modes_CM(self) -> NDArray[np.bool_]:
        """Whether a clip is trained in each mode; of all clips, so for small corpora alone."""
        return _flags(self.modes[:])

    @property
    def held_out_CM(self) -> NDArray[np.bool_]:
        """The same of clips that are held out."""
        return _flags(self.held_out[:])

    def held_out_in(self, mode: Mode) -> NDArray[np.int64]:
        """Clips that are held out in a mode."""
        return np.flatnonzero(np.asarray(self.held_out[:]) & BITS[mode])

    def candidates(self, clip: int) -> list[int]:
        """Clips that can be its reference, most similar first."""
        found: list[int] = self.references[self.reference_starts[clip] : self.reference_starts[clip + 1]].tolist()
        return found

    def clip_id(self, clip: int) -> str:
        """Id of a clip in its dataset."""
        return self.read_texts([clip])[0].clip_id

    def text(self, clip: int) -> str:
        """Transcript of a clip; "" without one."""
        return self.read_texts([clip])[0].text

    def descriptions(self, clip: int, axis: Axis) -> list[str]:
        """Usable descriptions of a clip on this axis."""
        axes = self.description_axis[self.description_starts[clip] : self.description_starts[clip + 1]]
        texts = self.read_texts([clip])[0].descriptions
        return [text for own, text in zip(axes, texts, strict=True) if DESCRIPTION_AXES[own] == axis]

    def read_texts(self, clips: Sequence[int]) -> list[ClipTexts]:
        """What is written of these clips, in their order; near-by ones by one read.

        Raises:
            OSError: the index cannot be read.
        """
        chosen = np.asarray(clips, dtype=np.int64)
        spans = list(zip(self._text_starts[chosen].tolist(), self._text_starts[chosen + 1].tolist(), strict=True))
        if self._texts is not None:
            lines = [self._texts[start:stop] for start, stop in spans]
        else:
            lines = read_nearby(self.folder / TEXTS, [(start, stop - start) for start, stop in spans])
        rows = [json.loads(line.decode("utf-8", "surrogatepass")) for line in lines]
        return [ClipTexts(clip_id, text, tuple(descriptions)) for clip_id, text, descriptions in rows]

    def is_across(self, clip: int, others: Sequence[int]) -> NDArray[np.bool_]:
        """Which of the other clips are in another language than this one, bool [others]."""
        base = self.base_language[self.language[np.array([clip, *others])]]
        return across_languages(base[:1], base[1:])

    def read(self, clip: int) -> Tensor:
        """Latent patches [P, patch_size, D] of a clip, bf16.

        Raises:
            ValueError, OSError: the shard does not match the index, or cannot be read.
        """
        return self.read_latents([clip])[0]

    def read_latents(self, clips: Sequence[int]) -> list[Tensor]:
        """Latent patches [P, patch_size, D] of each clip, bf16.

        Raises:
            ValueError, OSError: of one of them a shard does not match the index, or cannot be read.
        """
        found: dict[int, Latents] = {}
        for places in by_shard(self.latent_places(clips)):
            found |= read_shard(places, patch_size=self.patch_size)
        latents = [found[clip] for clip in clips]
        for one in latents:
            if not isinstance(one, Tensor):
                raise one
        return [one for one in latents if isinstance(one, Tensor)]

    def latent_places(self, clips: Sequence[int]) -> list[LatentPlace]:
        """Where the latents of these clips lie, in their order."""
        chosen = np.asarray(clips, dtype=np.int64)
        columns = (self._places[name][chosen].tolist() for name in ("shard", "offset", "size"))
        sums = [checksum.tobytes() for checksum in self._places["sha256"][chosen]]
        places = []
        for clip, dataset, shard, offset, size, checksum in zip(
            chosen.tolist(), self.dataset_of(chosen).tolist(), *columns, sums, strict=True
        ):
            source = self.datasets[dataset]
            places.append(
                LatentPlace(clip, source.path, self.facts.shards[shard], source.follow_symlinks, offset, size, checksum)
            )
        return places


class _Datasets:
    """`Corpus.dataset`: computed, since clips of a dataset stand together."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, clips: Any) -> Any:
        return self._corpus.dataset_of(clips)


def _flags(masks_C: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (masks_C[:, None] >> np.arange(len(MODES)) & 1).astype(bool)


def read_corpus(
    recipe: Recipe,
    *,
    latent_space: str | None = None,
    index: Literal["keep", "forget", "expect"] = "forget",
    progress: Progress | None = None,
) -> Corpus:
    """The corpus of a recipe from `run.index`, or else from the index in `run.out`.

    Args:
        latent_space: of the checkpoint that is trained; None: whatever the datasets have.
        index: where there is none in `run.out`, it is made there (`keep`), made for this corpus alone (`forget`), or
            another rank has just made it (`expect`).

    Raises:
        UserError: a dataset is missing, has no latents, or its latents are of another AudioVAE (the message names the
            dataset and the command to run), or `run.index` is not of this recipe.
        OSError: an index cannot be read or written.
    """
    space = space_of(recipe, latent_space)
    origin = origin_of(recipe, space.latent_space)
    if recipe.run.index is not None:
        corpus = Corpus(recipe.run.index, sources_of(recipe))
        # An index of an older version says nothing of the kinds that it has; planning shows those there are.
        made_from = {name: value for name, value in origin.items() if name == "descriptions"} | corpus.facts.made_from
        changed = differences(made_from, origin)
        if changed:
            raise UserError(
                f"run.index: {recipe.run.index} was made for something else ({'; '.join(changed[:3])}); "
                "make it again: voxmill index RECIPE"
            )
        return corpus
    own = own_index(recipe, origin)
    until = time.monotonic() + (SEEN_AFTER if index == "expect" else 0.0)
    while not (is_there := (own / FILE).is_file()) and time.monotonic() < until:
        time.sleep(1.0)
    if is_there:
        return Corpus(own, sources_of(recipe))
    if index == "expect":
        raise UserError(
            f"run.out: {own}, which the first rank has made, is not on this machine; name a run.out that all ranks see"
        )
    if index == "keep":
        make_index(recipe, own, space, origin, progress=progress)
        for name in file_names(own.parent) - {own.name}:
            remove_folder(own.parent / name)
        return Corpus(own, sources_of(recipe))
    kept = TemporaryDirectory(prefix="voxmill-index-", dir=scratch_folder())
    make_index(recipe, Path(kept.name) / OWN, space, origin, progress=progress)
    return Corpus(Path(kept.name) / OWN, sources_of(recipe), kept)


def make_index(
    recipe: Recipe, folder: Path, space: LatentSpace, origin: dict[str, Any], *, progress: Progress | None = None
) -> None:
    """Writes the index of a recipe, which comes from `space_of` and `origin_of` it.

    Raises:
        UserError, OSError: as `build_index`.
    """
    build_index(
        recipe,
        folder,
        made_from=origin,
        latent_space=space.latent_space,
        patch_size=space.patch_size,
        tokenizer=TextTokenizer.from_folder(recipe.init),
        progress=progress,
    )


def own_index(recipe: Recipe, origin: dict[str, Any]) -> Path:
    """Where a run keeps the index that it makes for itself: another one has another name."""
    return recipe.run.out / OWN / fingerprint(origin)[:16]


def sources_of(recipe: Recipe) -> list[Source]:
    """The datasets of a recipe."""

    def source(name: str, config: DatasetConfig) -> Source:
        return Source(name, config.path, config.weight, config.follow_symlinks)

    return [source(name, config) for name, config in recipe.datasets.items()]


def space_of(recipe: Recipe, latent_space: str | None) -> LatentSpace:
    """The space that the latents of all datasets share.

    Args:
        latent_space: that they have to be of; None: that of the first dataset.

    Raises:
        UserError: a dataset is missing, has no latents, or its latents are of another AudioVAE.
    """
    spaces: dict[str, LatentSpace] = {}
    for name, config in recipe.datasets.items():
        try:
            spaces[name] = Dataset.open(config.path).latent_space()
        except UserError as error:
            raise UserError(f"datasets.{name}: {error}") from None
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
    return LatentSpace(wanted, patch_sizes[first])
