"""Replies of language models on disk, so that a run that was interrupted asks nothing twice.

A key is the hash of all that the answer depends on: model, prompt file, filled-in text, sampling, and the audio. A
reply is a file of its own at once, written whole or not at all, so that several workers may share a folder and may be
killed; `merge` gathers those of a folder in one file when all questions are answered. Unusable replies are kept too:
they are what was paid for.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from voxmill.core.errors import JobError
from voxmill.core.files import list_files, remove_files, write_atomically
from voxmill.core.hashing import sha256_bytes
from voxmill.core.storage import file_names, raise_unavailable
from voxmill.data.schemas import from_table, read_parquet, to_table, write_parquet

Scalar = str | int | float | bool
"""A value of what identifies a model in a key."""

MERGED = "replies.parquet"
DAMAGED = "reply_damaged"
"""Under which `ReplyCache.get` counts."""
_LOG = logging.getLogger(__name__)


def reply_key(**parts: object) -> str:
    """sha256 (hex) of plain data by name (what JSON can hold), such as model, prompt, text and content hash."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """A row of a folder's file. `stored`: as JSON what a reply's own file has: key, text and origin."""

    key: str
    stored: str


class ReplyCache:
    """A folder of replies, for several threads. Without a folder nothing is kept.

    Args:
        older: another folder, in which replies are looked for that have a file each; nothing is written there.
    """

    def __init__(self, folder: Path | None, older: Path | None = None):
        self.folder, self._older = folder, older
        self._merged: dict[str, str] | None = None
        self._with_older: bool | None = None

    def get(self, key: str, counts: Counter[str]) -> str | None:
        """The reply's text; None where there is none, or where its file is damaged, which is said and counted.

        Raises:
            JobError: the file of the whole folder is damaged.
            OSError: storage or disk do not say whether there is one: to ask again would be to pay again.
        """
        if self.folder is None:
            return None
        if self._merged is None:
            self._merged = _read_merged(self.folder / MERGED)
        if key in self._merged:
            return _text(self._merged[key], key)
        text = self._read(_path(self.folder, key), key, counts)
        if text is None and self._older is not None and self._has_older():
            return self._read(_path(self._older, key), key, counts)
        return text

    def put(self, key: str, text: str, origin: Mapping[str, str] | None = None) -> None:
        """Keeps a reply with what helps a person who reads the file (model, prompt's name)."""
        if self.folder is None:
            return
        stored = json.dumps({"key": key, "text": text, **(origin or {})}, ensure_ascii=False)
        write_atomically(_path(self.folder, key), stored.encode("utf-8", "surrogatepass"))

    def merge(self) -> None:
        """Gathers the replies of the folder in one file; damaged ones stay as they are.

        Raises:
            JobError: that file is damaged.
        """
        if self.folder is None:
            return
        files = [file.name for file in list_files(self.folder) if _is_reply(file.name)]
        if not files:
            return
        replies, gathered = _read_merged(self.folder / MERGED), []
        for name in files:
            key = Path(name).stem
            content = (self.folder / name).read_bytes()
            if _text(content, key) is not None:
                # Text of Parquet has no lone surrogates, that of JSON may have.
                replies[key] = json.dumps(json.loads(content.decode("utf-8", "surrogatepass")))
                gathered.append(name)
        rows = [_Reply(key=key, stored=stored) for key, stored in sorted(replies.items())]
        write_parquet(self.folder / MERGED, to_table(rows, _Reply))
        remove_files(self.folder, gathered)
        self._merged = None

    def _read(self, path: Path, key: str, counts: Counter[str]) -> str | None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        text = _text(content, key)
        if text is None:
            counts[DAMAGED] += 1
            _LOG.warning("%s: damaged; it is asked for again", path)
        return text

    def _has_older(self) -> bool:
        if self._with_older is None:
            assert self._older is not None
            self._with_older = any(len(name) == 2 for name in file_names(self._older))
        return self._with_older


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"


def _is_reply(name: str) -> bool:
    folder, _, file = name.partition("/")
    return len(folder) == 2 and file.startswith(folder) and file.endswith(".json")


def _text(content: bytes | str, key: str) -> str | None:
    """The text of a stored reply; None where it is damaged."""
    try:
        whole = content if isinstance(content, str) else content.decode("utf-8", "surrogatepass")
        stored = json.loads(whole)
    except ValueError:
        return None
    text = stored.get("text") if isinstance(stored, dict) and stored.get("key") == key else None
    return text if isinstance(text, str) else None


def _read_merged(path: Path) -> dict[str, str]:
    try:
        return {row.key: row.stored for row in from_table(_Reply, read_parquet(path))}
    except FileNotFoundError:
        return {}
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise_unavailable(error)
        raise JobError(f"{path}: damaged ({error}); remove it, and its replies are asked for again") from None
