"""Latents of a dataset: equal to encoding on the fly, the same bytes every time, resumed, never of two AudioVAEs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import load_vae, new_checkpoint, save_checkpoint
from model.codec.latent_space import latent_space
from model.config import read_config
from model.generation.prompt_audio import load_prompt
from pipelines.config import EncodeConfig
from pipelines.encode import claim, encode
from pipelines.latents.units import (
    ENDS_ONE_IN,
    collect,
    encode_unit,
    plan_units,
    result_path,
    tar_name,
)
from samples.fabricate import CHECKPOINT, rows, write_dataset
from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.errors import UserError
from voxmill.core.storage import file_names, to_path
from voxmill.data.dataset import Dataset, StoredClip
from voxmill.data.layout import bucket_of, part_path, read_index
from voxmill.data.records import Latent
from voxmill.data.schemas import CLIPS, from_table, write_parquet
from voxmill.data.shards import read_latent, read_member

ROOT = Path(__file__).resolve().parents[2]
CONFIG = EncodeConfig(batch_seconds=8.0)


def stored(number: int, seconds: float = 10.0) -> StoredClip:
    return StoredClip(
        clip_id=f"clip{number}",
        recording_id="r",
        start_sample=0,
        end_sample=round(seconds * 16_000),
        sample_rate=16_000,
        duration=seconds,
        shard="s.tar",
        offset=0,
        size=1,
        sha256=hashlib.sha256(str(number).encode()).hexdigest(),
    )


def test_units_are_bounded_and_hold_every_clip_once_in_order() -> None:
    clips = [stored(number) for number in range(2000)]
    units = plan_units(clips, "space", 4, EncodeConfig(unit_seconds=200.0))
    assert [clip for unit in units for clip in unit.clips] == clips
    assert max(unit.seconds for unit in units) <= 200
    assert len({unit.unit_id for unit in units}) == len(units)


def test_a_clip_that_leaves_changes_units_near_it_alone() -> None:
    clips = [stored(number) for number in range(3000)]
    config = EncodeConfig(unit_seconds=1e6)
    before = {unit.unit_id for unit in plan_units(clips, "space", 4, config)}
    after = {unit.unit_id for unit in plan_units(clips[:700] + clips[701:], "space", 4, config)}
    assert len(before) > 3000 / ENDS_ONE_IN / 2
    assert len(before - after) == 1


def test_what_the_bytes_depend_on_names_the_unit() -> None:
    clips = [stored(number) for number in range(3)]
    names = [
        plan_units(clips, space, patch, EncodeConfig(batch_seconds=seconds))[0].unit_id
        for space, patch, seconds in (("a", 4, 60.0), ("b", 4, 60.0), ("a", 2, 60.0), ("a", 4, 30.0))
    ]
    assert len(set(names)) == 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"), rows())


def test_latents_are_those_of_encoding_on_the_fly(dataset: Path, tmp_path: Path) -> None:
    settings = read_config(CHECKPOINT)
    vae = load_vae(CHECKPOINT, settings)
    (unit,) = plan_units(Dataset.open(dataset).clips(), latent_space(vae), 4, CONFIG)
    encode_unit(unit, Dataset(dataset), vae, patch_size=4, batch_seconds=CONFIG.batch_seconds)
    first = (dataset / tar_name(unit)).read_bytes()
    latents, failed = collect([unit], dataset, latent_space(vae))
    assert len(latents) == len(unit.clips) == 8 and not failed
    for row, clip in zip(latents, unit.clips, strict=True):
        latent_LD = read_latent(dataset, row.shard, row.offset, row.size, row.sha256)
        wav = tmp_path / "clip.flac"
        with open(dataset / clip.shard, "rb") as file:
            file.seek(clip.offset)
            wav.write_bytes(file.read(clip.size))
        patches_TPD = load_prompt(wav, vae, patch_size=4, pad="right")
        assert latent_LD.dtype == torch.bfloat16 and len(latent_LD) == row.num_frames
        # Half a unit of bf16's last place is 2^-9 of the value; fp32 sums in another order add a little.
        torch.testing.assert_close(latent_LD.float(), patches_TPD.flatten(0, 1), rtol=2**-8, atol=1e-5)
    encode_unit(unit, Dataset(dataset), vae, patch_size=4, batch_seconds=CONFIG.batch_seconds)
    assert (dataset / tar_name(unit)).read_bytes() == first


def test_a_damaged_clip_is_named_and_skipped(tmp_path: Path) -> None:
    made = rows(("en-1",), 2)
    made[1] = (made[1][0], b"no audio at all")
    folder = write_dataset(tmp_path, made)
    vae = load_vae(CHECKPOINT, read_config(CHECKPOINT))
    (unit,) = plan_units(Dataset.open(folder).clips(), "s", 4, CONFIG)
    encode_unit(unit, Dataset(folder), vae, patch_size=4, batch_seconds=8.0)
    latents, failed = collect([unit], folder, "s")
    assert [row.clip_id for row in latents] == ["en10000"]
    assert failed[0]["clip_id"] == "en10001" and "cannot be read" in failed[0]["detail"]


def test_an_altered_latent_is_refused(dataset: Path) -> None:
    vae = load_vae(CHECKPOINT, read_config(CHECKPOINT))
    (unit,) = plan_units(Dataset.open(dataset).clips(), latent_space(vae), 4, CONFIG)
    if not result_path(dataset, unit).exists():
        encode_unit(unit, Dataset(dataset), vae, patch_size=4, batch_seconds=CONFIG.batch_seconds)
    row = collect([unit], dataset, "s")[0][2]
    with pytest.raises(ValueError, match="not those"):
        read_latent(dataset, row.shard, row.offset + 512, row.size, row.sha256)
    with pytest.raises(ValueError, match="no latents"):
        read_latent(dataset, row.shard, row.offset - 512, row.size)


def test_the_latent_space_is_the_encoder_s_not_the_file_s(tmp_path: Path) -> None:
    settings = read_config(CHECKPOINT)
    vae = load_vae(CHECKPOINT, settings)
    name = latent_space(vae)
    (tmp_path / "config.json").write_bytes((CHECKPOINT / "config.json").read_bytes())
    save_file({key: value.contiguous() for key, value in vae.state_dict().items()}, tmp_path / "audiovae.safetensors")
    assert latent_space(load_vae(tmp_path, settings)) == name
    stored = load_file(tmp_path / "audiovae.safetensors")
    save_file(
        {key: v * 1.5 if v.is_floating_point() and key.startswith("decoder") else v for key, v in stored.items()},
        tmp_path / "audiovae.safetensors",
    )
    assert latent_space(load_vae(tmp_path, settings)) == name
    save_file(
        {key: v * 1.5 if key.startswith("encoder") else v for key, v in stored.items()},
        tmp_path / "audiovae.safetensors",
    )
    assert latent_space(load_vae(tmp_path, settings)) != name


def test_two_latent_spaces_never_mix(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, rows(("en-1",), 1))
    with (
        claim(folder, "a" * 64, replace=False),
        pytest.raises(UserError, match="another job"),
        claim(folder, "a" * 64, replace=False),
    ):
        pass
    (folder / "latents.json").write_text("{}")
    with pytest.raises(UserError, match="replace=true"), claim(folder, "b" * 64, replace=False):
        pass
    with claim(folder, "b" * 64, replace=True):
        assert not (folder / "latents.json").exists()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "pipelines" / "encode.py"), *arguments]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_the_job_resumes_gives_the_same_bytes_and_refuses_another_vae(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", rows())
    arguments = [str(folder), "--vae", str(CHECKPOINT), "unit_seconds=6", "workers=1"]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    latents = folder / "latents" / "0000"
    made = {path.name: path.read_bytes() for path in latents.iterdir()}
    index = (folder / "latents.parquet").read_bytes()
    assert len(made) >= 3 and pq.read_table(folder / "latents.parquet").num_rows == 8
    lost = sorted(made)[1].removeprefix("latents-").removesuffix(".tar")
    (folder / "work" / "latents" / "0000" / f"{lost}.json").unlink()
    (latents / f"latents-{lost}.tar").unlink()
    (latents / ".latents-of-a-killed-job.tar.0123.tmp").write_bytes(b"half")
    done = run(*arguments, "workers=2")
    assert done.returncode == 0, done.stderr
    assert f"already encoded: {len(made) - 1} of {len(made)}" in done.stdout
    assert {path.name: path.read_bytes() for path in latents.iterdir()} == made
    assert (folder / "latents.parquet").read_bytes() == index
    assert json.loads((folder / "latents.json").read_text())["encoded"] == 1
    other = new_checkpoint(read_config(CHECKPOINT), tokenizer_from=CHECKPOINT, seed=1)
    save_checkpoint(
        tmp_path / "other", config=other.config, model=other.model, vae=other.vae, tokenizer_from=CHECKPOINT
    )
    done = run(str(folder), "--vae", str(tmp_path / "other"))
    assert done.returncode == 2 and "replace=true" in done.stderr and len(done.stderr.splitlines()) == 1
    done = run(str(folder), "--vae", str(tmp_path / "other"), "replace=true", "unit_seconds=6", "workers=1")
    assert done.returncode == 0, done.stderr
    assert not {path.name for path in latents.iterdir()} & set(made)


def in_buckets(folder: Path, made: Dataset, buckets: int) -> Path:
    """The same dataset, its index in parts; a bucket of many may hold no clip."""
    table = made.table(CLIPS.names)
    numbers = np.asarray([bucket_of(session, buckets) for session in table["session"].to_pylist()])
    shutil.copytree(made.path / "shards", folder / "shards")
    for bucket in range(buckets):
        write_parquet(part_path(folder, "clips.parquet", bucket, buckets), table.filter(numbers == bucket))
    return folder


def latents_by_clip(folder: Path) -> dict[str, bytes]:
    rows = from_table(Latent, read_index(folder / "latents.parquet"))
    return {row.clip_id: read_member(folder, row.shard, row.offset, row.size) for row in rows}


@pytest.mark.slow
def test_a_dataset_of_buckets_has_the_same_latents(tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "one", rows(("en-1", "fr-1", "es-1")))
    encode(one, CHECKPOINT, EncodeConfig(workers=2, progress=False))
    many = in_buckets(tmp_path / "parts", Dataset.open(one), 4)
    summary = encode(many, CHECKPOINT, EncodeConfig(workers=2, progress=False))
    assert summary["clips"] == 12 and summary["num_failed"] == 0
    assert latents_by_clip(many) == latents_by_clip(one)
    assert len(file_names(many / "latents.parquet")) == 4
    again = encode(many, CHECKPOINT, EncodeConfig(workers=2, progress=False))
    assert again["encoded"] == 0 and again["units"] == summary["units"]
    ray.shutdown()


@pytest.mark.slow
def test_latents_of_a_dataset_in_object_storage_are_those_of_the_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dataset in four buckets and checkpoint on a real S3 server; nothing is left on this machine."""
    local = write_dataset(tmp_path / "local", rows(("en-1", "fr-1", "es-1"), 2), buckets=4)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("VOXMILL_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path / "here")
    with s3_server():
        place = to_path(f"s3://{BUCKET}/sets/a dätaset")
        place.fs.put(str(local), place.path, recursive=True)  # type: ignore[attr-defined]
        checkpoint = to_path(f"s3://{BUCKET}/VoxCPM2")
        checkpoint.fs.put(str(CHECKPOINT), checkpoint.path, recursive=True)  # type: ignore[attr-defined]
        config = EncodeConfig(workers=2, progress=False)
        summary = encode(place, checkpoint, config)
        assert summary["clips"] == 6 and summary["num_failed"] == 0
        assert encode(local, CHECKPOINT, config)["latent_space"] == summary["latent_space"]
        assert latents_by_clip(place) == latents_by_clip(local)
        assert file_names(place / "latents.parquet") == file_names(local / "latents.parquet")
        for part in file_names(local / "latents.parquet"):
            assert (place / "latents.parquet" / part).read_bytes() == (local / "latents.parquet" / part).read_bytes()
        again = encode(place, checkpoint, config)
        assert again["encoded"] == 0 and again["units"] == summary["units"]
        ray.shutdown()
    assert not list((tmp_path / "here").iterdir())
    assert not [path for path in (tmp_path / "scratch").rglob("*.tmp") if path.is_file()]


def test_mistakes_are_one_line_and_status_two(tmp_path: Path) -> None:
    for arguments, words in (
        ([str(tmp_path)], "--vae"),
        ([str(tmp_path), "--vae", str(CHECKPOINT)], "clips.parquet"),
        ([str(tmp_path), "--vae", str(CHECKPOINT), "unit_second=3"], "unit_seconds"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
