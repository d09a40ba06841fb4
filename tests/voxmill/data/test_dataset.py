"""A finished dataset through its reader: clips, audio and latents as written, and one line where it is none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from samples.fabricate import add_latents, rows, write_dataset
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.data.dataset import PLACE_OF_LATENTS, Dataset, StoredClip, with_latents
from voxmill.data.shards import read_latent

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_latents(write_dataset(tmp_path_factory.mktemp("dataset"), rows(("en-1",), 3)))


def space(folder: Path) -> str:
    return str(json.loads((folder / "latents.json").read_text())["latent_space"])


def test_latents_of_another_autoencoder_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="mixes AudioVAEs"):
        Dataset.open(folder).table_with_latents(["clip_id"], latent_space="0" * 64)


def test_a_clip_s_audio_is_what_was_cut(folder: Path) -> None:
    dataset = Dataset.open(folder)
    clips = dataset.clips()
    assert [clip.clip_id for clip in clips] == ["en10000", "en10001", "en10002"]
    whole, rate = soundfile.read(ROOT / "samples" / "recordings" / "en-1.flac", dtype="float32")
    for clip in clips:
        samples_T, found_rate = dataset.audio(clip)
        assert found_rate == rate == clip.sample_rate and len(samples_T) / rate == clip.duration
        np.testing.assert_array_equal(samples_T, whole[clip.start_sample : clip.end_sample])


def test_latents_are_those_of_the_joined_columns(folder: Path) -> None:
    dataset = Dataset.open(folder)
    table = dataset.table_with_latents(["clip_id", "duration"], latent_space=space(folder))
    assert table.column_names[:2] == ["clip_id", "duration"] and table.num_rows == 3
    for row in table.to_pylist():
        place = (row[f"latent_{name}"] for name in ("shard", "offset", "size", "sha256"))
        latent_LD = dataset.latents(row["clip_id"])
        assert len(latent_LD) == row["latent_num_frames"] > 0
        assert torch.equal(latent_LD, read_latent(folder, *place))
    with pytest.raises(KeyError):
        dataset.latents("another")


@pytest.mark.slow
def test_a_dataset_of_parts_is_read_as_one_of_files(tmp_path: Path) -> None:
    made = rows(("en-1", "it-1", "es-1"), 2)
    one, four = write_dataset(tmp_path / "one", made), add_latents(write_dataset(tmp_path / "four", made, buckets=4))
    whole, parts = Dataset.open(one), Dataset.open(four)
    assert (four / "clips.parquet").is_dir() and len(list((four / "latents.parquet").iterdir())) == 4
    order = {clip.clip_id: clip for clip in parts.clips()}
    for clip in whole.clips():
        assert np.array_equal(whole.audio(clip)[0], parts.audio(order[clip.clip_id])[0])
    assert [clip for part in parts.parts(StoredClip) for clip in part] == parts.clips()
    table = parts.table_with_latents(["clip_id"], latent_space=space(four))
    assert table.num_rows == 6 and table["latent_shard"].null_count == 0
    assert len(parts.latents("it10001")) > 0


def test_a_part_that_is_not_there_is_missed(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, rows(("en-1",), 1), buckets=4)
    for part in sorted((folder / "clips.parquet").iterdir())[1:3]:
        part.unlink()
    with pytest.raises(UserError, match=r"clips.parquet/0001.parquet: not there and 1 more parts, which dataset.json"):
        Dataset.open(folder)


def test_columns_of_more_than_two_gigabytes_are_joined_with_their_latents() -> None:
    """2^31 bytes of descriptions, as about 1.5 million clips have: one chunk of Arrow's `string` cannot hold them."""
    chunk = pa.array(["x" * 2**26])
    texts = pa.chunked_array([chunk] * 40)
    clips = pa.table({"clip_id": pa.chunked_array([[f"c{i}"] for i in range(40)]), "descriptions": texts})
    latents = pa.table({name: [None if name == "sha256" else "a"] for name in PLACE_OF_LATENTS}).append_column(
        "clip_id", pa.array(["c7"])
    )
    assert texts.nbytes > 2**31
    table = with_latents(clips, latents)
    assert table["descriptions"].num_chunks == 40
    assert table["latent_shard"].to_pylist() == [None] * 7 + ["a"] + [None] * 32


def test_a_clip_without_latents_has_null_places(tmp_path: Path, folder: Path) -> None:
    more = write_dataset(tmp_path, rows(("en-1",), 4))
    (more / "latents.parquet").write_bytes((folder / "latents.parquet").read_bytes())
    shards = Dataset.open(more).table_with_latents(["clip_id"], latent_space=space(folder))["latent_shard"].to_pylist()
    assert None not in shards[:3] and shards[3] is None


def test_the_space_of_the_latents_is_read_from_their_header(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.latent_space().latent_space == space(folder) and dataset.latent_space().patch_size > 0
    (tmp_path / "out" / "latents.json").write_text("{}")
    with pytest.raises(UserError, match="latents.json: cannot be read"):
        dataset.latent_space()


def test_altered_bytes_are_no_audio(tmp_path: Path) -> None:
    dataset = Dataset.open(write_dataset(tmp_path, rows(("en-1",), 1)))
    (clip,) = dataset.clips()
    path = tmp_path / clip.shard
    content = bytearray(path.read_bytes())
    content[clip.offset + clip.size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(AudioProblem, match="clips.parquet names") as caught:
        dataset.audio(clip)
    assert caught.value.reason == "changed"


def test_what_is_no_dataset_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clips.parquet: not there"):
        Dataset.open(tmp_path)
    (tmp_path / "clips.parquet").write_bytes(b"no index")
    with pytest.raises(UserError, match="cannot be read.*voxmill annotate") as caught:
        Dataset.open(tmp_path).clips()
    assert "\n" not in str(caught.value)
    write_dataset(tmp_path, rows(("en-1",), 1))
    with pytest.raises(UserError, match="loudness"):
        Dataset.open(tmp_path).table(["clip_id", "loudness"])
    with pytest.raises(UserError, match="latents.parquet: not there.*voxmill encode"):
        Dataset.open(tmp_path).table_with_latents(["clip_id"], latent_space="")
