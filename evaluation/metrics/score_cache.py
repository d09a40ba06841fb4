"""Scores on disk by what they depend on, so that a second run computes nothing.

One SQLite file with one writer, the process that leads the run; workers only compute. A run that is killed keeps every
score that it had computed.
"""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from pydantic import JsonValue

from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_text


def text_hash(*parts: str) -> str:
    """sha256 (hex) of texts, kept apart."""
    return sha256_text(json.dumps(parts, ensure_ascii=False))


def score_key(*, audio: str, text: str, metric: str, model: str, normaliser: str) -> str:
    """Key of a score.

    Args:
        audio: hash of the wav file. text: hash of the text, or of whatever else the metric compares the audio with.
        model: identity of the model and its settings. normaliser: version of the text normaliser, "" where unused.
    """
    return text_hash(audio, text, metric, model, normaliser)


class ScoreCache:
    """Plain JSON values by key.

    Raises:
        UserError: the file exists and is not a cache of scores.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._database.commit()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: not a cache of scores ({error}); delete it or name another folder") from None
        self.hits = 0
        self.misses = 0

    def get(self, key: str) -> tuple[bool, JsonValue]:
        """(whether it is known, its value)."""
        row = self._database.execute("SELECT value FROM scores WHERE key = ?", (key,)).fetchone()
        if row is None:
            self.misses += 1
            return False, None
        self.hits += 1
        return True, json.loads(row[0])

    def put(self, items: Iterable[tuple[str, JsonValue]]) -> None:
        """Keeps values; they are on disk when this returns."""
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in items]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)

    def close(self) -> None:
        """Ends the connection."""
        self._database.close()
