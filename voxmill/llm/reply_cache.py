"""Replies of language models on disk, so that a run that was interrupted asks nothing twice.

A key is the hash of all that the answer depends on: model, prompt file, filled-in text, sampling, and what was heard.
One file a reply, written under a temporary name and renamed, so that several workers may share a folder and a killed
one leaves nothing half-written. Unusable replies are kept too: they are what was paid for.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def reply_key(**parts: Any) -> str:
    """sha256 (hex) of plain data by name, such as model, prompt, text and content hash."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


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
            stored = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        text = stored.get("text") if isinstance(stored, dict) and stored.get("key") == key else None
        return text if isinstance(text, str) else None

    def put(self, key: str, text: str, origin: Mapping[str, Any] | None = None) -> None:
        """Keeps a reply with what helps a person who reads the file (model, prompt's name)."""
        if self._folder is None:
            return
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{key}.{os.getpid()}.{uuid.uuid4().hex}")
        temporary.write_text(
            json.dumps({"key": key, "text": text, **(origin or {})}, ensure_ascii=False), encoding="utf-8"
        )
        os.replace(temporary, path)
