"""Latents out of their shards, many at once: those of one shard that lie side by side are one read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from training.curriculum.shard_cache import ShardCache
from voxmill.core.hashing import sha256_bytes
from voxmill.core.storage import read_nearby
from voxmill.data.shards import path_inside, tensor_of

Latents = Tensor | ValueError | OSError
"""Latent patches [P, patch_size, D], bf16, or why they cannot be read."""


@dataclass(frozen=True, slots=True)
class LatentPlace:
    """Where a clip's latents lie. `checksum`: the first bytes of their sha256."""

    clip: int
    folder: Path
    shard: str
    follow_symlinks: bool
    offset: int
    size: int
    checksum: bytes


def by_shard(places: Sequence[LatentPlace]) -> list[list[LatentPlace]]:
    """The places of each shard, which one call of `read_shard` reads."""
    shards: dict[tuple[Path, str], list[LatentPlace]] = {}
    for place in places:
        shards.setdefault((place.folder, place.shard), []).append(place)
    return list(shards.values())


def read_shard(
    places: Sequence[LatentPlace], *, patch_size: int, cache: ShardCache | None = None
) -> dict[int, Latents]:
    """Latents by clip, or why they cannot be read: they are not what the index states, or not there.

    Args:
        places: of one shard. cache: through which a shard in object storage is read.
    """
    first, found = places[0], dict[int, Latents]()
    try:
        shard = path_inside(first.folder, first.shard, follow_symlinks=first.follow_symlinks)
        spans = [(place.offset, place.size) for place in places]
        path = shard if cache is None else cache.path(shard)
        try:
            contents = read_nearby(path, spans)
        except FileNotFoundError:
            if path is shard:
                raise
            # Another rank made room just now.
            contents = read_nearby(shard, spans)
    except (ValueError, OSError) as error:
        return {place.clip: error for place in places}
    for place, content in zip(places, contents, strict=True):
        try:
            if not bytes.fromhex(sha256_bytes(content)).startswith(place.checksum):
                raise ValueError(
                    f"{place.shard}: the {place.size} bytes at {place.offset} are not those that latents.parquet names"
                )
            latent_LD = tensor_of(content, f"{place.shard} at {place.offset}")
            found[place.clip] = latent_LD.view(-1, patch_size, latent_LD.shape[1])
        except (ValueError, RuntimeError) as error:
            found[place.clip] = ValueError(str(error))
    return found
