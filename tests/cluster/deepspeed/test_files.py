"""`cluster/deepspeed/` is what the trainer runs with."""

import json
from pathlib import Path

import pytest

from cluster.deepspeed.files import FOLDER, deepspeed_file
from training.curriculum.engine import deepspeed_config
from training.curriculum.recipe import Recipe, load_recipe
from voxmill.core.errors import UserError

FILES = sorted(FOLDER.glob("*.json"))


def recipe(*overrides: str) -> Recipe:
    return load_recipe("stage1", list(overrides))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_deepspeed_gets_the_content_of_the_file(path: Path) -> None:
    zero, offload = int(path.stem[4]), path.stem.endswith("_offload")
    settings = recipe(f"engine.zero={zero}", f"engine.offload={offload}", "optimizer.clip=0.5", "rows=64")
    config, file = deepspeed_config(settings, 4), json.loads(path.read_text())
    assert {key: config.pop(key) for key in file} == file
    assert config == {"gradient_accumulation_steps": 16, "gradient_clipping": 0.5, "bf16": {"enabled": True}}
    assert file["zero_optimization"]["stage"] == zero
    assert ("offload_optimizer" in file["zero_optimization"]) == offload


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
    assert deepspeed_config(recipe(), 1)["zero_optimization"] == values["zero_optimization"]
