"""A finished dataset through its reader: clips, audio and latents as written, and one line where it is none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from samples.fabricate import add_latents, rows, write_dataset
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.data.dataset import Dataset
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
