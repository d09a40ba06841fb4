"""Replies come back from their own files, from the file of their folder, and from where older versions kept them."""

import logging
from pathlib import Path

import pytest

from voxmill.core.errors import JobError
from voxmill.llm.reply_cache import MERGED, ReplyCache, reply_key

KEYS = [reply_key(number=number) for number in range(5)]


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_a_damaged_reply_is_named_and_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, key = ReplyCache(tmp_path), reply_key(a=1)
    assert cache.get(key) is None
    cache.put(key, "\u65e9")
    assert cache.get(key) == "\u65e9" and reply_key(a=1) != reply_key(a="1")
    file = next(tmp_path.glob("*/*.json"))
    for damage in ('{"key": "another", "text": "x"}', "{", "\udcff"):
        file.write_bytes(damage.encode("utf-8", "surrogateescape"))
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert cache.get(key) is None
        assert file.name in caplog.text
    cache.merge()
    assert file.exists()
    ReplyCache(None).put(key, "x")
    assert ReplyCache(None).get(key) is None


def test_merged_replies_are_one_file_and_more_of_them_join(tmp_path: Path) -> None:
    texts = dict(zip(KEYS, ("plain", "\u65e9", "lone \udce9", "", "{}"), strict=True))
    first = ReplyCache(tmp_path)
    for key in KEYS[:3]:
        first.put(key, texts[key], {"model": "m"})
    first.merge()
    assert files(tmp_path) == [Path(MERGED)]
    assert [first.get(key) for key in KEYS] == [*map(texts.get, KEYS[:3]), None, None]
    second = ReplyCache(tmp_path)
    for key in KEYS[3:]:
        second.put(key, texts[key])
    # Before they are merged they are there as well, also for who has read the file already.
    assert [first.get(key) for key in KEYS] == [texts[key] for key in KEYS]
    second.merge()
    content = (tmp_path / MERGED).read_bytes()
    assert files(tmp_path) == [Path(MERGED)] and [ReplyCache(tmp_path).get(key) for key in KEYS] == list(texts.values())
    # A merge that was ended before it removed the files: the next one removes them.
    second.put(KEYS[3], texts[KEYS[3]])
    second.merge()
    assert files(tmp_path) == [Path(MERGED)] and (tmp_path / MERGED).read_bytes() == content


def test_replies_of_older_versions_are_found(tmp_path: Path) -> None:
    ReplyCache(tmp_path).put(KEYS[0], "paid for")
    cache = ReplyCache(tmp_path / "0000", older=tmp_path)
    assert cache.get(KEYS[0]) == "paid for" and cache.get(KEYS[1]) is None
    cache.put(KEYS[1], "new")
    cache.merge()
    assert cache.get(KEYS[0]) == "paid for" and cache.get(KEYS[1]) == "new"


def test_a_damaged_file_of_the_folder_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / MERGED).write_bytes(b"torn")
    with pytest.raises(JobError, match=r"replies\.parquet: damaged"):
        ReplyCache(tmp_path).get(KEYS[0])
