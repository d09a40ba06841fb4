"""Replies come back from their own files, from the file of their folder, and from where older versions kept them."""

import logging
from collections import Counter
from pathlib import Path

import pytest

from samples.s3_proxy import error_answer, s3_proxy
from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.errors import JobError, UserError
from voxmill.core.storage import storage_failure, to_path
from voxmill.llm.reply_cache import DAMAGED, MERGED, ReplyCache, reply_key

COUNTS: Counter[str] = Counter()
KEYS = [reply_key(number=number) for number in range(5)]


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_a_damaged_reply_is_named_and_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, key = ReplyCache(tmp_path), reply_key(a=1)
    assert cache.get(key, COUNTS) is None
    cache.put(key, "\u65e9")
    assert cache.get(key, COUNTS) == "\u65e9" and reply_key(a=1) != reply_key(a="1")
    file = next(tmp_path.glob("*/*.json"))
    for damage in ('{"key": "another", "text": "x"}', "{", "\udcff"):
        file.write_bytes(damage.encode("utf-8", "surrogateescape"))
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            counts: Counter[str] = Counter()
            assert cache.get(key, counts) is None and counts == {DAMAGED: 1}
        assert file.name in caplog.text
    cache.merge()
    assert file.exists()
    ReplyCache(None).put(key, "x")
    assert ReplyCache(None).get(key, COUNTS) is None


def test_merged_replies_are_one_file_and_more_of_them_join(tmp_path: Path) -> None:
    texts = dict(zip(KEYS, ("plain", "\u65e9", "lone \udce9", "", "{}"), strict=True))
    first = ReplyCache(tmp_path)
    for key in KEYS[:3]:
        first.put(key, texts[key], {"model": "m"})
    first.merge()
    assert files(tmp_path) == [Path(MERGED)]
    assert [first.get(key, COUNTS) for key in KEYS] == [*map(texts.get, KEYS[:3]), None, None]
    second = ReplyCache(tmp_path)
    for key in KEYS[3:]:
        second.put(key, texts[key])
    # Before they are merged they are there as well, also for who has read the file already.
    assert [first.get(key, COUNTS) for key in KEYS] == [texts[key] for key in KEYS]
    second.merge()
    content = (tmp_path / MERGED).read_bytes()
    assert files(tmp_path) == [Path(MERGED)] and [ReplyCache(tmp_path).get(key, COUNTS) for key in KEYS] == list(
        texts.values()
    )
    # A merge that was ended before it removed the files: the next one removes them.
    second.put(KEYS[3], texts[KEYS[3]])
    second.merge()
    assert files(tmp_path) == [Path(MERGED)] and (tmp_path / MERGED).read_bytes() == content


def test_replies_of_older_versions_are_found(tmp_path: Path) -> None:
    ReplyCache(tmp_path).put(KEYS[0], "paid for")
    cache = ReplyCache(tmp_path / "0000", older=tmp_path)
    assert cache.get(KEYS[0], COUNTS) == "paid for" and cache.get(KEYS[1], COUNTS) is None
    cache.put(KEYS[1], "new")
    cache.merge()
    assert cache.get(KEYS[0], COUNTS) == "paid for" and cache.get(KEYS[1], COUNTS) == "new"


def test_a_damaged_file_of_the_folder_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / MERGED).write_bytes(b"torn")
    with pytest.raises(JobError, match=r"replies\.parquet: damaged"):
        ReplyCache(tmp_path).get(KEYS[0], COUNTS)


def test_what_storage_does_not_say_is_not_taken_for_no_reply(tmp_path: Path) -> None:
    refusal = error_answer(403, "ExpiredToken")  # to HEAD there is no code, only the status
    with s3_server():
        for merged in (False, True):
            cache = ReplyCache(to_path(f"s3://{BUCKET}/replies"))
            cache.put(KEYS[0], "paid for")
            if merged:
                cache.merge()
            with s3_proxy(lambda request: refusal), pytest.raises((UserError, PermissionError)) as caught:
                ReplyCache(to_path(f"s3://{BUCKET}/replies")).get(KEYS[0], COUNTS)
            failure = storage_failure(caught.value) or caught.value
            assert isinstance(failure, UserError) and "have expired" in str(failure)
            assert ReplyCache(cache.folder).get(KEYS[0], COUNTS) == "paid for"
    (tmp_path / KEYS[0][:2]).write_bytes(b"a file where a folder belongs")
    with pytest.raises(NotADirectoryError):
        ReplyCache(tmp_path).get(KEYS[0], COUNTS)
