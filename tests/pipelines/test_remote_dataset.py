"""A dataset of parts in object storage (a real S3 server) is read, exported, reported, compacted and vacuumed."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from samples.fabricate import add_latents, rows, write_dataset
from tests.support.s3_server import BUCKET, s3_server
from voxmill.cli.app import run
from voxmill.core.errors import UserError
from voxmill.core.files import list_files
from voxmill.core.storage import to_path
from voxmill.data.audio_sources import find_clips, read_clip
from voxmill.data.dataset import Dataset

SESSIONS = ("en-1", "en-2", "it-1", "es-1")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = add_latents(write_dataset(tmp_path_factory.mktemp("made"), rows(SESSIONS, 2), buckets=2))
    (out / "run.json").write_text(json.dumps({"config": {"write": {"shard_megabytes": 1.0}}}))
    return out


@pytest.fixture(scope="module")
def out(local: Path) -> Iterator[str]:
    """The dataset below a URI, in a folder whose name is not plain."""
    import s3fs

    with s3_server():
        uri = f"s3://{BUCKET}/sets/a dätaset"
        s3fs.S3FileSystem().put(str(local), uri, recursive=True)
        yield uri


def test_clips_latents_and_pieces_are_those_of_the_local_one(out: str, local: Path) -> None:
    here, there = Dataset.open(local), Dataset.open(out)
    assert there.clips() == here.clips()
    for clip in there.clips():
        assert np.array_equal(there.audio(clip)[0], here.audio(clip)[0])
    space = here.latent_space().latent_space
    tables = [dataset.table_with_latents(["clip_id"], latent_space=space) for dataset in (here, there)]
    assert tables[0].equals(tables[1])
    clip_id = here.clips()[0].clip_id
    assert (there.latents(clip_id) == here.latents(clip_id)).all()
    pieces, skipped = find_clips(out, min_seconds=0.1)
    assert len(pieces) == 8 and not skipped.counts
    assert np.array_equal(
        read_clip(pieces[3], 100, 1_000), read_clip(find_clips(local, min_seconds=0.1)[0][3], 100, 1_000)
    )


def test_export_and_report(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", out, str(tmp_path / "finetune")]) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "finetune" / "train.jsonl").read_text().splitlines()]
    assert len(lines) == 8 * 4 and all(Path(line["audio"]).is_file() for line in lines)
    there = f"{out} as rows"
    assert run(["export", out, there]) == 0, capsys.readouterr().err
    remote = [json.loads(line) for line in (to_path(there) / "train.jsonl").read_text().splitlines()]
    assert [line["text"] for line in remote] == [line["text"] for line in lines]
    for here, line in zip(lines, remote, strict=True):
        assert line["audio"].startswith(f"{there}/audio/")
        assert to_path(line["audio"]).read_bytes() == Path(here["audio"]).read_bytes()
    assert run(["export", out, there]) == 2 and "exists; name another" in capsys.readouterr().err
    assert run(["report", out]) == 0, capsys.readouterr().err
    page = (to_path(out) / "report.html").read_text(encoding="utf-8")
    assert page.count("data:audio/ogg") == 6 and 'sample["flac"]' in (to_path(out) / "README.md").read_text()


def test_other_formats_are_the_same_from_and_in_object_storage(
    out: str, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("srt", "hf", "lhotse"):
        here, there = tmp_path / kind, to_path(f"{out} as {kind}")
        assert run(["export", str(local), str(here), "--as", kind]) == 0, capsys.readouterr().err
        assert run(["export", out, str(there), "--as", kind]) == 0, capsys.readouterr().err
        names = {file.name for file in list_files(here)}
        assert len(names) > 3 and names == {file.name for file in list_files(there)}
        for name in names:
            # lhotse's manifests name the folder; the packed sizes differ with it.
            if not name.endswith(".gz"):
                assert (there / name).read_bytes() == (here / name).read_bytes(), name
        # A second run finds all done, also from a begun one.
        record = json.loads((there / "export.json").read_text())
        (there / "export.json").write_text(json.dumps(record | {"counts": None}))
        assert run(["export", out, str(there), "--as", kind]) == 0, capsys.readouterr().err
        assert json.loads((there / "export.json").read_text()) == record
    cuts = gzip.decompress((to_path(f"{out} as lhotse") / "cuts.jsonl.gz").read_bytes()).splitlines()
    (source,) = json.loads(cuts[0])["recording"]["sources"]
    assert source["type"] == "url" and soundfile.info(io.BytesIO(to_path(source["source"]).read_bytes())).frames > 0
    assert run(["export", out, f"{out} as srt", "--as", "vtt"]) == 2 and "--as srt" in capsys.readouterr().err


def test_compact_and_vacuum(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    clips = Dataset.open(out).clips()
    audio = [Dataset.open(out).audio(clip)[0] for clip in clips]
    for command in (["compact", out], ["vacuum", out, "--keep", "0"]):
        assert run(command) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "merged 4 shards" in shown and "shards: 4 files" in shown
    now = Dataset.open(out)
    assert [clip.sha256 for clip in now.clips()] == [clip.sha256 for clip in clips]
    assert all(np.array_equal(now.audio(clip)[0], old) for clip, old in zip(now.clips(), audio, strict=True))
    shards = {file.name for file in list_files(to_path(out), "shards")}
    assert shards == {clip.shard for clip in now.clips()} and len(shards) == 2


@pytest.mark.parametrize("index", ["clips.parquet", "latents.parquet"])
def test_a_part_that_is_gone_or_torn_is_named(out: str, index: str) -> None:
    part = to_path(out) / index / "0001.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-8])
    try:
        with pytest.raises(UserError, match="0001.parquet"):
            dataset = Dataset.open(out)
            dataset.clips()
            dataset.table_with_latents(["clip_id"], latent_space=dataset.latent_space().latent_space)
    finally:
        part.write_bytes(content)
