"""`cluster/deepspeed/` is what the trainer runs with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import JsonValue

from cluster.deepspeed.files import FOLDER, Communication, ZeroBuckets, deepspeed_file, read_buckets
from cluster.planner.memory import Memory, Setup, Zero, rank_memory
from model.presets import preset
from training.curriculum.engine import deepspeed_config
from training.curriculum.plan.memory import shape_of
from training.curriculum.recipe import Recipe, load_recipe
from voxmill.core.errors import UserError

SHAPE = shape_of(preset("voxcpm2"))
FILES = sorted(FOLDER.glob("*.json"))


def recipe(*overrides: str) -> Recipe:
    return load_recipe("stage1", list(overrides))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_deepspeed_gets_the_content_of_the_file(path: Path) -> None:
    zero, offload = int(path.stem[4]), path.stem.endswith("_offload")
    settings = recipe(f"engine.zero={zero}", f"engine.offload={offload}", "optimizer.clip=0.5", "rows=64")
    config, file = deepspeed_config(settings, 4), json.loads(path.read_text())
    zero_section = config["zero_optimization"]
    assert isinstance(zero_section, dict)
    if zero in (1, 2):
        assert zero_section.pop("overlap_comm") is False
    assert {key: config.pop(key) for key in file} == file
    assert config == {"gradient_accumulation_steps": 16, "gradient_clipping": 0.5, "bf16": {"enabled": True}}
    assert file["zero_optimization"]["stage"] == zero
    assert ("offload_optimizer" in file["zero_optimization"]) == offload


def test_the_recipe_sets_communication_over_the_file() -> None:
    def section(world: int, *overrides: str) -> dict[str, JsonValue]:
        found = deepspeed_config(recipe("rows=64", *overrides), world)["zero_optimization"]
        assert isinstance(found, dict)
        return found

    for zero in (1, 2):
        overlaps = [section(world, f"engine.zero={zero}")["overlap_comm"] for world in (1, 8, 16)]
        assert overlaps == [False, False, True]
        assert section(16, f"engine.zero={zero}", "engine.overlap_comm=false")["overlap_comm"] is False
    assert section(16, "engine.offload=true")["overlap_comm"] is False
    assert section(1, "engine.zero=3")["overlap_comm"] is True
    assert section(1, "engine.zero=3", "engine.overlap_comm=false")["overlap_comm"] is False
    small = section(2, "engine.bucket_size=5000000")
    assert small["reduce_bucket_size"] == small["allgather_bucket_size"] == 5_000_000
    hpz = section(16, "engine.zero=3", "engine.hpz=8", "engine.bucket_size=5000000")
    assert hpz["zero_hpz_partition_size"] == 8 and hpz["reduce_bucket_size"] == 5_000_000
    assert "allgather_bucket_size" not in hpz and "zero_hpz_partition_size" not in section(16, "engine.zero=3")
    for world in (1, 4, 8, 12):
        with pytest.raises(UserError, match=rf"engine.hpz = 8: {world} ranks are not several machines of 8 ranks"):
            deepspeed_config(recipe("rows=48", "engine.zero=3", "engine.hpz=8"), world)


def test_communication_is_counted_in_memory() -> None:
    setup = Setup(zero=2, dtype="bfloat16", world=16, positions=256)

    def of(communication: Communication, zero: Zero = 2) -> Memory:
        return rank_memory(SHAPE, replace(setup, zero=zero, communication=communication))

    assert of(Communication()).communication == 2 * 2 * 200e6  # bf16, two buckets: one fills as the other is reduced
    assert of(Communication(overlap_comm=False)).communication == 2 * 200e6
    assert of(Communication(bucket_size=10**7)).communication == 2 * 2 * 10**7
    second = of(Communication(hpz=8), zero=3).weights - of(Communication(), zero=3).weights
    assert second == pytest.approx(2 * SHAPE.parameters / 8)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_deepspeed_knows_every_key(path: Path) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig, ZeroStageEnum

    zero = json.loads(path.read_text())["zero_optimization"]
    known = DeepSpeedZeroConfig.model_fields
    names = set(known) | {field.alias for field in known.values() if field.alias}
    assert set(zero) <= names
    assert DeepSpeedZeroConfig(**zero).stage == ZeroStageEnum(zero["stage"])


def test_there_is_a_file_for_all_that_a_recipe_may_say_or_a_line() -> None:
    assert [path.stem for path in FILES] == ["zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"]
    for zero in (0, 1):
        with pytest.raises(UserError, match=rf"engine.zero = {zero}, engine.offload = true.*zero2_offload"):
            deepspeed_config(recipe(f"engine.zero={zero}", "engine.offload=true"), 1)


def test_an_edited_file_is_what_the_trainer_runs_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = json.loads(deepspeed_file(2, offload=False).read_text())
    values["zero_optimization"]["reduce_bucket_size"] = 1234
    (tmp_path / "zero2.json").write_text(json.dumps(values))
    monkeypatch.setattr("cluster.deepspeed.files.FOLDER", tmp_path)
    assert deepspeed_file(2, offload=False).parent == tmp_path
    values["zero_optimization"]["overlap_comm"] = True
    (tmp_path / "zero2.json").write_text(json.dumps(values))
    assert deepspeed_config(recipe(), 1)["zero_optimization"] == values["zero_optimization"]


def test_a_size_that_no_file_has_is_deepspeeds_default() -> None:
    from deepspeed.runtime.engine import MEMORY_OPT_ALLREDUCE_SIZE
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for stage in (0, 1, 2, 3):
        theirs, ours = DeepSpeedZeroConfig(stage=stage), ZeroBuckets(stage=stage)
        assert ours.reduce_bucket_size == theirs.reduce_bucket_size == MEMORY_OPT_ALLREDUCE_SIZE
        assert ours.overlaps == theirs.overlap_comm
        assert ours.stage3_max_live_parameters == theirs.max_live_parameters
        assert ours.stage3_prefetch_bucket_size == theirs.prefetch_bucket_size


SIZES = ("reduce_bucket_size", "overlap_comm", "stage3_prefetch_bucket_size", "stage3_max_live_parameters")


@pytest.mark.parametrize(("zero", "numel"), [(1, 5e8), (2, 5e8), (3, 5e8 + 5e7 + 1e9)])
def test_memory_is_counted_by_the_default_where_a_file_has_no_size(
    zero: Zero, numel: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = json.loads(deepspeed_file(zero, offload=False).read_text())
    for key in SIZES:
        values["zero_optimization"].pop(key, None)
    (tmp_path / f"zero{zero}.json").write_text(json.dumps(values))
    monkeypatch.setattr("cluster.deepspeed.files.FOLDER", tmp_path)
    setup = Setup(zero=zero, dtype="bfloat16", world=8, positions=256)
    assert rank_memory(SHAPE, setup).communication == 2 * numel


def test_a_size_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cluster.deepspeed.files.FOLDER", tmp_path)
    (tmp_path / "zero1.json").write_text('{"zero_optimization": {"stage": 1, "reduce_bucket_size": "huge"}}')
    with pytest.raises(UserError, match=r"zero1.json: zero_optimization.reduce_bucket_size: .*integer"):
        read_buckets(1, offload=False)
    (tmp_path / "zero1.json").write_text("{}")
    with pytest.raises(UserError, match="zero1.json: zero_optimization: "):
        read_buckets(1, offload=False)
