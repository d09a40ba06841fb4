"""Recordings in object storage: odd names, tars, tables with audio inside, and what the storage refuses."""

import gzip
import io
import json
import tarfile
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipelines.inputs import media, media_file
from pipelines.inputs.entries import Entry
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.media_file import MediaFile, StorageError
from pipelines.inputs.scan import Scan, ScanOptions, scan_entry
from pipelines.inputs.transcripts import given_parts
from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.storage import read_range, to_path


def flac(seed: int = 0, seconds: float = 1.0) -> bytes:
    content = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.1, 0.1, round(16000 * seconds))
    soundfile.write(content, samples, 16000, format="FLAC")
    return content.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "local":
        return tmp_path
    request.getfixturevalue("server")
    return to_path(f"s3://{BUCKET}/{tmp_path.name}")


def scanned(entries: Iterator[Entry]) -> dict[str, Scan]:
    return {entry.name: scan_entry(entry, ScanOptions()) for entry in entries}


ODD = [
    "a b.wav",
    "a#b.wav",
    "a%20b.wav",
    "[1].wav",
    "é.wav",
    unicodedata.normalize("NFD", "é.wav"),
    "a.b/c.wav",
    "+.wav",
]


def test_odd_names_are_read_as_they_are(root: Path) -> None:
    for number, name in enumerate(ODD):
        write_atomically(root / name, flac(number))
    write_atomically(root / "empty.wav", b"")
    write_atomically(root / "notes.txt", b"no recording")
    entries = list(read_inputs(str(root)))
    assert [entry.name for entry in entries] == sorted([*ODD, "empty.wav", "notes.txt"])
    scans = scanned(iter(entries))
    assert scans.pop("empty.wav").problem == "empty_file" and scans.pop("notes.txt").problem == "not_audio"
    assert len({scan.recording_id for scan in scans.values() if scan.problem is None}) == len(ODD)
    assert [entry.name for entry in read_inputs(f"{root}/a*b.wav")] == [f"{root}/{name}" for name in sorted(ODD[:3])]
    assert len(list(read_inputs(f"{root}/**/*.wav"))) == len(ODD) + 1


@pytest.mark.usefixtures("server")
def test_what_only_object_storage_has_is_listed() -> None:
    import boto3

    client = boto3.client("s3")
    keys = ["markers/", "markers/d/", "markers/d/e.wav", "markers/x//y.wav", "markers/q?r.wav", "markers/z/../w.wav"]
    for key in keys:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"" if key.endswith("/") else flac())
    found = [entry.name for entry in read_inputs(f"s3://{BUCKET}/markers/")]
    assert found == sorted(key.removeprefix("markers/") for key in keys if not key.endswith("/"))
    many = [f"many/{number:05d}.wav" for number in range(1005)]
    for key in many:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    assert [f"many/{entry.name}" for entry in read_inputs(f"s3://{BUCKET}/many")] == many


def test_tars_are_recordings_with_their_labels(root: Path) -> None:
    for shard in range(2):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for number in range(3):
                labels = {"text": f"text {number}", "speaker": "s", "duration": 1}
                members = {f"k{number}.json": json.dumps(labels).encode(), f"k{number}.flac": flac(10 * shard + number)}
                for name, data in members.items():
                    info = tarfile.TarInfo(f"sub/{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        write_atomically(root / f"{shard:06d}.tar", content.getvalue())
    entries = list(read_inputs(f"{root}/{{000000..000002}}.tar"))
    assert [entry.text for entry in entries if not entry.problem] == ["text 0", "text 1", "text 2"] * 2
    assert entries[-1].problem == "missing" and entries[-1].name == f"{root}/000002.tar"
    scans = scanned(iter(entries))
    assert len({scan.recording_id for scan in scans.values()}) == 7
    direct = scan_entry(Entry(path=entries[4].path, name="x", bytes_offset=0, bytes_size=10**9), ScanOptions())
    assert direct.problem == "changed"
    assert [entry.name for entry in read_inputs(f"{root}/*0.tar")] == [entry.name for entry in entries[:3]]


def test_a_manifest_names_parts_of_files_uris_and_tables_with_audio(root: Path, tmp_path: Path) -> None:
    first, second = flac(1), flac(2)
    write_atomically(root / "joined.bin", first + second)
    write_atomically(root / "own.flac", flac(3))
    rows = [
        {"path": "joined.bin", "bytes_offset": 0, "bytes_size": len(first)},
        {"path": f"{root}/joined.bin" if "://" in str(root) else "joined.bin", "bytes_offset": len(first)}
        | {"bytes_size": len(second)},
        {"path": "own.flac", "language": "en"},
        {"path": "own.flac", "bytes_offset": -1, "bytes_size": 3},
        {"path": "ftp://host/x.wav"},
        {"path": "s3:/bucket/x.wav"},
        {"path": "gone.flac"},
    ]
    write_atomically(root / "list.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    scans = list(scanned(read_inputs(f"{root}/list.jsonl")).values())
    assert len({scan.recording_id for scan in scans[:3] if scan.recording_id}) == 3
    assert [scan.problem for scan in scans[3:]] == ["malformed_row"] * 3 + ["missing"]
    table = pa.table(
        {"audio": [{"bytes": flac(4), "path": "a.flac"}, {"bytes": flac(5), "path": None}], "text": ["x", "y"]}
    )
    for part in range(2):
        content = io.BytesIO()
        pq.write_table(table.slice(part), content, row_group_size=1)
        write_atomically(root / "hf" / f"{part}.parquet", content.getvalue())
    entries = list(read_inputs(f"{root}/hf"))
    assert [entry.text for entry in entries] == ["x", "y", "y"]
    assert len({scan.recording_id for scan in scanned(iter(entries)).values()}) == 2


def test_texts_lie_beside_recordings_or_where_the_manifest_says(root: Path) -> None:
    subtitles = "1\n00:00:00,000 --> 00:00:01,000\nHello there.\n"
    for number, name in enumerate(("a", "sub/b", "c")):
        write_atomically(root / "in" / f"{name}.flac", flac(number))
    write_atomically(root / "in" / "a.txt", "Good evening.")
    write_atomically(root / "in" / "sub" / "b.srt", subtitles)

    def texts(source: str) -> dict[str, tuple[str, ...]]:
        return {
            entry.name.removeprefix(f"{root}/in/"): tuple(part.text for part in given_parts(entry, 1.0)[0])
            for entry in read_inputs(source)
            if "flac" in entry.name
        }

    found = {"a.flac": ("Good evening.",), "c.flac": (), "sub/b.flac": ("Hello there.",)}
    assert texts(f"{root}/in") == texts(f"{root}/in/**/*.flac") == found
    rows = [{"path": "in/c.flac", "text_path": "in/sub/b.srt"}, {"path": "in/a.flac", "text_path": "in/gone.srt"}]
    write_atomically(root / "list.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert texts(f"{root}/list.jsonl") == {"in/c.flac": ("Hello there.",), "in/a.flac": ()}
    write_atomically(root / "in" / "wav.scp", "rec-c c.flac\n")
    write_atomically(root / "in" / "text", "rec-c said so\n")
    (entry,) = read_inputs(f"{root}/in")
    assert entry.text == "said so" and scan_entry(entry, ScanOptions()).recording_id


@pytest.mark.usefixtures("server")
def test_what_is_not_called_a_recording_is_fetched_only_where_it_begins_like_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = to_path(f"s3://{BUCKET}/mixed")
    write_atomically(folder / "weights.bin", bytes(range(256)) * 4000)
    write_atomically(folder / "no suffix", flac(seconds=40))
    write_atomically(folder / "_SUCCESS", b"")
    read: dict[str, int] = {}

    def counted(path: Path, offset: int, size: int) -> bytes:
        read[path.name] = read.get(path.name, 0) + size
        return read_range(path, offset, size)

    monkeypatch.setattr(media_file, "read_range", counted)
    scans = scanned(read_inputs(str(folder)))
    assert {name: scan.problem for name, scan in scans.items()} == {
        "weights.bin": "not_audio",
        "no suffix": None,
        "_SUCCESS": "empty_file",
    }
    assert read["weights.bin"] == media_file.HEAD_BYTES


@pytest.mark.usefixtures("server")
def test_large_files_are_read_by_ranges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(media_file, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(media_file, "BLOCK_BYTES", 50_000)
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path))
    content = flac(seconds=40)
    write_atomically(to_path(f"s3://{BUCKET}/large.flac"), content)
    (tmp_path / "x.flac").write_bytes(content)
    here = media.scan(str(tmp_path / "x.flac"), 35)
    assert media.scan(f"s3://{BUCKET}/large.flac", 35) == here
    start, end = here.read[0].ends[:2]
    digests = media.digests_of(here.read[0].digests, start, end)
    window = media.read_window(f"s3://{BUCKET}/large.flac", start, end, None, digests)
    assert np.array_equal(window, media.read_window(str(tmp_path / "x.flac"), start, end, None, digests))
    import av

    with av.open(str(tmp_path / "x.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 160_000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    write_atomically(to_path(f"s3://{BUCKET}/film.mp4"), (tmp_path / "x.mp4").read_bytes())
    assert media.scan(f"s3://{BUCKET}/film.mp4") == media.scan(str(tmp_path / "x.mp4"))
    assert len(list((tmp_path / "voxmill-media").iterdir())) == 1


@pytest.mark.usefixtures("server")
def test_what_storage_refuses_is_no_recordings_fault(monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    import s3fs

    place = MediaFile(path=f"s3://{BUCKET}/gone.wav", name="gone.wav")
    with pytest.raises(AudioProblem, match="missing"):
        media_file.open_media(place)
    with pytest.raises(UserError, match="no such file"):
        list(read_inputs(f"s3://{BUCKET}/nowhere"))
    for endpoint, message in (("http://127.0.0.1:9", "127.0.0.1:9"), (refusing, "access is denied")):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(StorageError, match=message):
            media_file.open_media(place)
    s3fs.S3FileSystem.clear_instance_cache()


class _Refuses(BaseHTTPRequestHandler):
    """An S3 server that lets nobody in."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_corpora_lie_anywhere(root: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        info = tarfile.TarInfo("u.1.flac")
        info.size = len(flac())
        tar.addfile(info, io.BytesIO(flac()))
    supervision = {"id": "s", "start": 0, "duration": 1.0, "text": "in Shar", "speaker": "anna"}
    cut = {"id": "u.1", "start": 0, "duration": 1.0, "supervisions": [supervision], "type": "MonoCut"}
    write_atomically(root / "shar" / "recording.000000.tar", content.getvalue())
    write_atomically(root / "shar" / "cuts.000000.jsonl.gz", gzip.compress(json.dumps(cut).encode()))
    source = {"type": "file", "channels": [0], "source": "lj/wavs/LJ1.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16000}
    write_atomically(root / "cuts.jsonl", json.dumps(cut | {"recording": recording}).encode())
    write_atomically(root / "lj" / "metadata.csv", b"LJ1|in a table|in a table")
    write_atomically(root / "lj" / "wavs" / "LJ1.wav", flac(1))
    table = io.BytesIO()
    pq.write_table(pa.table({"audio": [{"bytes": flac(2), "path": "x.flac"}], "sentence": ["in Parquet"]}), table)
    write_atomically(root / "hf" / "README.md", b"# corpus")
    write_atomically(root / "hf" / "data" / "train.parquet", table.getvalue())
    found: dict[str, list[tuple[str, ...]]] = {}
    for name in ("shar", "cuts.jsonl", "lj", "hf"):
        entries = list(read_inputs(str(root / name)))
        assert all(scan.recording_id for scan in scanned(iter(entries)).values()), name
        found[name] = [tuple(part.text for part in given_parts(entry, 1.0)[0]) for entry in entries]
    assert found == {
        "shar": [("in Shar",)],
        "cuts.jsonl": [("in Shar",)],
        "lj": [("in a table",)],
        "hf": [("in Parquet",)],
    }
