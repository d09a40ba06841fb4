"""Replies of language models on disk, so that a run that was interrupted asks nothing twice.

A key is the hash of all that the answer depends on: model, prompt file, filled-in text, sampling, and the audio.
One file a reply, written whole or not at all, so that several workers may share a folder and may be killed. Unusable
replies are kept too: they are what was paid for.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from voxmill.core.files import write_atomically
from voxmill.core.hashing import sha256_bytes

Scalar = str | int | float | bool
"""A value of what identifies a model in a key."""


def reply_key(**parts: object) -> str:
    """sha256 (hex) of plain data by name (what JSON can hold), such as model, prompt, text and content hash."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


class ReplyCache:
    """A folder of replies. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None):
        self._folder = folder

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> str | None:
        """The reply's text; None where there is none, or where the file is damaged."""
        if self._folder is None:
            return None
        try:
            stored = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError):
            return None
        text = stored.get("text") if isinstance(stored, dict) and stored.get("key") == key else None
        return text if isinstance(text, str) else None

    def put(self, key: str, text: str, origin: Mapping[str, str] | None = None) -> None:
        """Keeps a reply with what helps a person who reads the file (model, prompt's name)."""
        if self._folder is None:
            return
        stored = json.dumps({"key": key, "text": text, **(origin or {})}, ensure_ascii=False)
        write_atomically(self._path(key), stored.encode("utf-8", "surrogatepass"))
