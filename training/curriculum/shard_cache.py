"""Latent shards of object storage on a disk of the machine, which its ranks share."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from training.curriculum.recipe import FeedConfig
from voxmill.core.errors import UserError, first_line
from voxmill.core.hashing import fingerprint
from voxmill.core.local_copies import copy_file, copy_lock
from voxmill.core.storage import is_remote, stamp_of, uri

log = logging.getLogger("voxmill")
SUFFIX = ".shard"


class ShardCache:
    """Copies of whole shards; those that were read longest ago make room for others.

    A shard's copy pays where it is read again before it goes: where the corpus, or what the mixture draws most, fits.

    Args:
        folder: on this machine; may hold copies from before. num_bytes: of all copies together, at most.
    """

    def __init__(self, folder: Path, num_bytes: float) -> None:
        self.folder, self.num_bytes = folder, num_bytes
        self._copies: dict[Path, Path | None] = {}
        self._is_reported = False

    def path(self, shard: Path) -> Path:
        """The copy of a shard, made where there is none yet; the shard itself where it is on this machine, larger than
        the cache, or cannot be copied, which is reported once.

        Raises:
            OSError: its storage cannot be read.
        """
        if not is_remote(shard):
            return shard
        if shard not in self._copies:
            self._copies[shard] = self._named(shard)
        copy = self._copies[shard]
        if copy is None:
            return shard
        try:
            # Read now: the last one to go.
            os.utime(copy)
            return copy
        except FileNotFoundError:
            pass
        try:
            self._make(shard, copy)
        except OSError as error:
            if not self._is_reported:
                log.warning("feed.cache: %s; shards are read from their storage", first_line(error))
            self._is_reported = True
            return shard
        return copy

    def _named(self, shard: Path) -> Path | None:
        """Where its copy lies, by its content's version; None for a shard that is too large."""
        stated: dict[str, Any] = shard.fs.info(shard.path)  # type: ignore[attr-defined]
        size = int(stated["size"])
        if size > self.num_bytes:
            return None
        return self.folder / f"{fingerprint([uri(shard), size, stamp_of(stated)])[:32]}-{size}{SUFFIX}"

    def _make(self, shard: Path, copy: Path) -> None:
        size = int(copy.stem.rpartition("-")[2])
        # One process at a time makes room and copies; another may have made it meanwhile.
        with copy_lock(self.folder / "cache"):
            if copy.exists():
                return
            self._make_room(size)
            copy_file(shard, copy, size)

    def _make_room(self, size: int) -> None:
        copies = []
        for path in self.folder.iterdir():
            # What a process that was killed left behind goes first; others copy only under the lock.
            is_part = path.name.endswith(f"{SUFFIX}.part")
            if is_part or path.suffix == SUFFIX:
                status = path.stat()
                copies.append((0.0 if is_part else status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in copies)
        for _, of_copy, path in sorted(copies):
            if total + size <= self.num_bytes and not path.name.endswith(".part"):
                break
            # A rank that has it open reads on.
            path.unlink()
            total -= of_copy


def cache_of(config: FeedConfig) -> ShardCache | None:
    """The cache that a recipe names; None where it names none.

    Raises:
        UserError: its folder cannot be written.
    """
    if config.cache is None:
        return None
    try:
        config.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.cache):
            return ShardCache(config.cache, config.cache_gigabytes * 1e9)
    except OSError as error:
        raise UserError(
            f"feed.cache: {config.cache} cannot be written ({first_line(error)}); "
            "name a folder on a disk of this machine"
        ) from None
