"""Shards: sessions whole, sizes bounded, bytes of contents alone, members where their index row names them."""

import hashlib
from pathlib import Path

import pytest

from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.write_shards import divide
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.data.shards import TarWriter, read_member


def clips(*sessions: tuple[str, list[int]]) -> list[CorpusClip]:
    return [made_clip(session=name, size=size) for name, sizes in sessions for size in sizes]


def test_a_session_is_not_torn_where_it_fits() -> None:
    shards = divide(clips(("a", [4, 4]), ("b", [3, 3]), ("c", [1])), 10)
    assert [[clip.session for clip in shard] for shard in shards] == [["a", "a"], ["b", "b", "c"]]


def test_a_session_over_the_limit_is_split_in_order() -> None:
    shards = divide(clips(("a", [6, 6, 6]), ("b", [1])), 10)
    assert [[clip.place.size for clip in shard] for shard in shards] == [[6], [6], [6, 1]]
    assert divide([], 10) == []


def test_a_tar_has_the_same_bytes_and_its_members_where_it_says(tmp_path: Path) -> None:
    places = []
    for folder in ("x", "y"):
        with TarWriter(tmp_path / folder / "clips.tar", named_by_content=True) as tar:
            places.append([tar.add(f"{n}.flac", bytes([n]) * (700 * n)) for n in (1, 2, 3)])
    first, second = (next((tmp_path / folder).glob("*.tar")) for folder in ("x", "y"))
    assert first.name == second.name and first.read_bytes() == second.read_bytes()
    assert hashlib.sha256(first.read_bytes()).hexdigest()[:12] in first.name
    for n, place in zip((1, 2, 3), places[0], strict=True):
        assert read_member(tmp_path / "x", first.name, place.offset, place.size) == bytes([n]) * (700 * n)


def test_a_tar_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), TarWriter(tmp_path / "clips.tar") as tar:
        tar.add("a", b"a")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_member_outside_the_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ValueError, match="leaves"):
        read_member(tmp_path / "out", "../secret", 0, 6)
