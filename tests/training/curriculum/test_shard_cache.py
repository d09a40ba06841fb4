"""Latents of object storage through a cache on this machine: the same, fetched once, within its size."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from samples.fabricate import CHECKPOINT
from tests.support.s3_server import BUCKET, s3_server
from training.curriculum import shard_cache
from training.curriculum.recipe import FeedConfig, load_recipe
from training.curriculum.shard_cache import ShardCache, cache_of
from voxmill.core.errors import UserError
from voxmill.core.local_copies import copy_file
from voxmill.core.storage import read_ranges, to_path


@pytest.fixture(scope="module")
def shards() -> Iterator[list[Path]]:
    with s3_server():
        folder = to_path(f"s3://{BUCKET}/cache")
        paths = [folder / f"latents-{number}.tar" for number in range(4)]
        for number, path in enumerate(paths):
            path.fs.pipe_file(path.path, bytes([number]) * 1000)  # type: ignore[attr-defined]
        yield paths


def content(cache: ShardCache, shard: Path) -> tuple[bool, int]:
    """(whether it was read here, its first byte)."""
    path = cache.path(shard)
    return isinstance(path, Path) and path != shard, read_ranges(path, [(0, 1)])[0][0]


def copies(folder: Path) -> int:
    return len(list(folder.glob("*.shard")))


def test_a_shard_is_fetched_once_and_the_oldest_makes_room(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(source: Path, target: Path, size: int) -> None:
        fetched.append(source)
        copy_file(source, target, size)

    monkeypatch.setattr(shard_cache, "copy_file", fetch)
    cache = ShardCache(tmp_path, 2500)
    for number in (0, 1, 0):
        assert content(cache, shards[number]) == (True, number)
    for path in tmp_path.glob("*.shard"):
        os.utime(path, (1, 1) if read_ranges(path, [(0, 1)])[0] == b"\x01" else (2, 2))
    (tmp_path / ".gone-5000.shard.part").write_bytes(bytes(5000))
    assert content(cache, shards[2]) == (True, 2) and copies(tmp_path) == 2
    assert not list(tmp_path.glob(".*.part")), "what a killed process left takes no room"
    # Another process of the machine finds what is there; 1 had to go.
    other = ShardCache(tmp_path, 2500)
    assert [content(other, shards[number])[1] for number in (0, 2)] == [0, 2] and len(fetched) == 3
    assert content(other, shards[1]) == (True, 1) and fetched == [shards[n] for n in (0, 1, 2, 1)]


def test_a_shard_that_changed_is_another_and_a_large_one_is_not_copied(shards: list[Path], tmp_path: Path) -> None:
    changed = shards[3].with_name("changed.tar")
    changed.fs.pipe_file(changed.path, b"\x08" * 1000)  # type: ignore[attr-defined]
    assert content(ShardCache(tmp_path, 5000), changed) == (True, 8)
    changed.fs.pipe_file(changed.path, b"\x09" * 1000)  # type: ignore[attr-defined]
    assert content(ShardCache(tmp_path, 5000), changed) == (True, 9)
    small = ShardCache(tmp_path / "small", 500)
    assert small.path(shards[0]) == shards[0] and not (tmp_path / "small").exists()
    here = tmp_path / "local.tar"
    assert small.path(here) == here


def test_threads_and_a_disk_without_room(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache, found = ShardCache(tmp_path, 1e6), list[tuple[bool, int]]()
    threads = [threading.Thread(target=lambda n=n: found.append(content(cache, shards[n % 4]))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted((True, number % 4) for number in range(16)) and copies(tmp_path) == 4

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_cache, "copy_file", full)
    cache = ShardCache(tmp_path / "full", 1e6)
    assert [cache.path(shard) for shard in shards] == shards
    assert [record.message for record in caplog.records].count(
        "feed.cache: [Errno 28] No space left on device; shards are read from their storage"
    ) == 1


def test_a_run_reads_through_it(
    encoded: Path, shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.sequence.text_tokenizer import TextTokenizer
    from training.curriculum.corpus import read_corpus
    from training.curriculum.sample_reader import SampleReader

    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    remote = shards[0].parent / "dataset"
    remote.fs.put(str(encoded), remote.path, recursive=True)  # type: ignore[attr-defined]
    recipe = load_recipe("tiny_stage2", [f"datasets.main.path={remote}", f"init={CHECKPOINT}"])
    corpus, tokenizer = read_corpus(recipe), TextTokenizer.from_folder(CHECKPOINT)
    cache = cache_of(FeedConfig(cache=tmp_path / "cache"))
    clips = [int(clip) for clip in corpus.group_clips[:8]]
    plain, cached = (
        SampleReader(corpus, tokenizer, max_positions=512, threads=2, cache=one).latents(clips) for one in (None, cache)
    )
    assert copies(tmp_path / "cache") > 0 and plain.keys() == cached.keys()
    for clip, latent_PLD in plain.items():
        other = cached[clip]
        assert isinstance(latent_PLD, torch.Tensor) and isinstance(other, torch.Tensor)
        assert torch.equal(latent_PLD, other)
    # Another rank makes room between the look and the read.
    for path in (tmp_path / "cache").glob("*.shard"):
        path.unlink()
    monkeypatch.setattr("training.curriculum.shard_cache.os.utime", lambda path: None)
    gone = SampleReader(corpus, tokenizer, max_positions=512, cache=cache).latents(clips)
    assert all(isinstance(one, torch.Tensor) for one in gone.values())


def test_a_cache_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"feed.cache: .*file/cache cannot be written .* name a folder on a disk"):
        cache_of(FeedConfig(cache=tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"feed.cache = s3://.* is in object storage; name a folder"):
        load_recipe("tiny_stage1", ["datasets.main.path=x", f"feed.cache=s3://{BUCKET}/c"])
