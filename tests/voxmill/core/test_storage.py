import pickle
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.azure_server import CONTAINER, azure_server
from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.errors import UserError
from voxmill.core.files import atomic_file, list_files, remove_files, write_atomically
from voxmill.core.storage import (
    absolute,
    arrow_filesystem,
    create_exclusively,
    file_names,
    is_remote,
    read_nearby,
    read_range,
    read_ranges,
    read_whole,
    to_path,
    uri,
)


@pytest.fixture(scope="module")
def s3() -> Iterator[Path]:
    with s3_server():
        yield to_path(f"s3://{BUCKET}/folder")


@pytest.fixture(scope="module")
def abfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with azure_server(tmp_path_factory.mktemp("azurite")):
        yield to_path(f"abfs://{CONTAINER}/folder")


@pytest.fixture(params=["local", "s3", pytest.param("abfs", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "local":
        return tmp_path
    remote: Path = request.getfixturevalue(request.param)
    return remote / tmp_path.name


@pytest.mark.parametrize(
    "text, message",
    [
        ("ftp://host/x", "unknown scheme 'ftp'"),
        ("s3:/bucket/x", "two slashes"),
        ("s3://", "names no bucket"),
        ("file://relative", "absolute path"),
    ],
)
def test_what_no_storage_has_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_path(text)


def test_local_paths_and_uris(tmp_path: Path) -> None:
    assert to_path(f"file://{tmp_path}") == tmp_path
    assert to_path("a:b/c") == Path("a:b/c")
    remote = to_path("s3://bucket/a/")
    assert is_remote(remote) and not is_remote(tmp_path)
    assert uri(absolute(remote) / "b c") == "s3://bucket/a/b c"
    assert to_path(remote) is remote


def test_a_file_is_written_whole_or_not_at_all(folder: Path) -> None:
    target = folder / "deep" / "a.txt"
    write_atomically(target, "one")
    with pytest.raises(RuntimeError), atomic_file(target) as file:
        file.write(b"two")
        raise RuntimeError
    assert target.read_bytes() == b"one"
    assert file_names(target.parent) == {"a.txt"}
    assert file_names(folder / "none") == set()


def test_ranges(folder: Path) -> None:
    target = folder / "digits"
    write_atomically(target, b"0123456789")
    assert read_range(target, 2, 3) == b"234"
    assert read_ranges(target, [(0, 1), (8, 9)]) == [b"0", b"89"]
    with pytest.raises(FileNotFoundError):
        read_range(folder / "none", 0, 1)


def test_near_spans_are_one_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, content = folder / "long", bytes(number % 251 for number in range(400_000))
    write_atomically(target, content)
    asked: list[list[tuple[int, int]]] = []

    def noted(path: Path, spans: list[tuple[int, int]]) -> list[bytes]:
        asked.append(list(spans))
        return read_ranges(path, spans)

    monkeypatch.setattr("voxmill.core.storage.read_ranges", noted)
    spans = [(390_000, 50), (100, 20), (0, 10), (90, 30), (390_000, 50), (5, 0), (399_990, 10)]
    assert read_nearby(target, spans) == [content[start : start + size] for start, size in spans]
    assert asked == [[(0, 120), (390_000, 10_000)]]
    assert read_nearby(target, []) == [] and len(read_nearby(target, [(399_999, 9)])[0]) == 1


ODD = ["a b", "a#b", "a?b", "a%20b", "é", unicodedata.normalize("NFD", "é"), "[1]", "*", "a\\b", "🎙", "..b", "x" * 900]


@pytest.mark.slow
def test_odd_names_and_more_than_a_page_of_them(s3: Path) -> None:
    place = s3 / "odd"
    for name in ODD:
        write_atomically(place / name, name)
    assert file_names(place) == {file.name for file in list_files(place)} == set(ODD)
    assert all((place / name).is_file() and read_whole(place / name).decode() == name for name in ODD)
    remove_files(place, ODD)
    assert file_names(place) == set()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: create_exclusively(s3 / "many" / str(number), b""), range(1001)))
    assert len(file_names(s3 / "many")) == len(list(list_files(s3 / "many"))) == 1001


def test_only_one_can_create_a_file(folder: Path) -> None:
    assert create_exclusively(folder / "lease", b"first")
    assert not create_exclusively(folder / "lease", b"second")
    assert (folder / "lease").read_bytes() == b"first"


def test_arrow_reads_the_same_file_in_another_process(folder: Path) -> None:
    folder = pickle.loads(pickle.dumps(folder))
    write_atomically(folder / "x" / "y", b"")
    filesystem, name = arrow_filesystem(folder / "t.parquet")
    pq.write_table(pa.table({"a": [1, 2]}), name, filesystem=filesystem)
    assert pq.read_table(name, filesystem=filesystem)["a"].to_pylist() == [1, 2]
