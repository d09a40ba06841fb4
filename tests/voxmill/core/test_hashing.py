"""Hashes name units and shards: their values are fixed."""

import hashlib
from pathlib import Path

from voxmill.core.config import Config
from voxmill.core.hashing import fingerprint, sha256_bytes, sha256_file, sha256_text, stable_fraction


class Section(Config):
    seconds: float = 2.0
    name: str = "é"


def test_contents_are_hashed_alike_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("déjà vu", encoding="utf-8")
    expected = hashlib.sha256("déjà vu".encode()).hexdigest()
    assert sha256_file(tmp_path / "a") == sha256_text("déjà vu") == sha256_bytes("déjà vu".encode()) == expected


def test_a_fingerprint_is_of_canonical_json_with_escaped_characters() -> None:
    expected = sha256_text('{"name":"\\u00e9","seconds":2.0}')
    assert fingerprint(Section()) == fingerprint({"seconds": 2.0, "name": "é"}) == expected


def test_fractions_are_spread_evenly_and_stay_the_same() -> None:
    fractions = [stable_fraction(f"clip {number}") for number in range(2000)]
    assert all(0 <= fraction < 1 for fraction in fractions)
    assert abs(sum(fraction < 0.25 for fraction in fractions) / 2000 - 0.25) < 0.03
    digest = hashlib.sha256(b"clip 0").hexdigest()
    assert fractions[0] == int(digest[:16], 16) / 2**64
