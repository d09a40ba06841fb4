"""Hashes that name contents, configurations and random choices. Units and shards are named by them: bytes are fixed."""

import hashlib
import json
import os
from typing import Any

from pydantic import BaseModel


def sha256_file(path: str | os.PathLike[str]) -> str:
    """sha256 (hex) of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """sha256 (hex) of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_text(text: str) -> str:
    """sha256 (hex) of `text` as UTF-8."""
    return sha256_bytes(text.encode())


def short_hash(text: str, num_bytes: int, *, signed: bool = False) -> int:
    """A number of so many bytes that depends on `text` alone, evenly spread; names may have bytes that are no text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=num_bytes).digest()
    return int.from_bytes(digest, "big", signed=signed)


def fingerprint(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of a pydantic model or of plain data."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return sha256_text(json.dumps(plain, sort_keys=True, separators=(",", ":")))


def stable_fraction(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone, evenly spread: for shares that stay the same in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
