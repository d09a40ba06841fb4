"""Recipes: the shipped ones are valid, and what a stage may not hold is refused by name."""

from pathlib import Path

import pytest
import yaml

from training.curriculum.recipe import RECIPES, load_recipe
from training.curriculum.sample_draws import share_at
from training.run.recipes import find_recipe, shipped
from voxmill.core.errors import UserError

STAGE2 = ["mixture.modes={basic: 1.0}"]


STAGES = [f"{size}stage{stage}" for size in ("", "tiny_") for stage in (1, 2, 3)]
FINE_TUNINGS = [f"{size}finetune_{kind}" for size in ("", "tiny_") for kind in ("full", "language", "lora")]


def test_all_stages_and_fine_tunings_are_shipped() -> None:
    assert shipped(RECIPES) == sorted(STAGES + FINE_TUNINGS)


@pytest.mark.parametrize("name", FINE_TUNINGS)
def test_fine_tunings_are_valid_and_take_what_the_stages_refuse(name: str) -> None:
    wanted = ["clips.max_seconds=300", "clips.origins=[native, synthetic]", "mixture.modes={basic: 1, design: 1}"]
    recipe = load_recipe(name, wanted)
    assert recipe.stage == "finetune" and (recipe.lora is not None) == name.endswith("lora")
    assert load_recipe(name).optimizer.learning_rate <= 5e-3


@pytest.mark.parametrize("name", STAGES)
def test_shipped_recipes_are_valid_and_each_stage_is_what_the_report_says(name: str) -> None:
    recipe = load_recipe(name)
    modes = recipe.mixture.modes
    plain = [sum(share_at(modes.get(m, 0.0), p) for m in ("basic", "continuation")) for p in (0.0, 0.5, 1.0)]
    total = [sum(share_at(curve, p) for curve in modes.values()) for p in (0.0, 0.5, 1.0)]
    assert total == pytest.approx([1, 1, 1])
    if recipe.stage == 1:
        assert plain == pytest.approx(total)
    elif recipe.stage == 2:
        assert plain[0] > plain[1] > plain[2] > 0.5
    else:
        last = load_recipe(name.replace("3", "2")).mixture.modes
        assert plain[0] < 0.5 and recipe.mixture.balanced_languages and recipe.clips.origins == ("native",)
        assert share_at(modes["controllable"], 0) > share_at(last["controllable"], 1)
        assert recipe.optimizer.final == 0


def test_curves_are_straight_between_points_and_level_outside() -> None:
    curve = ((0.2, 0.1), (0.6, 0.5), (1.0, 0.3))
    assert [share_at(curve, p) for p in (0, 0.2, 0.4, 0.6, 0.8, 1)] == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.4, 0.3])
    assert share_at(((0.5, 0.7),), 0.9) == 0.7 and share_at(0.25, 0.9) == 0.25


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("stage1", "clips.max_seconds=61", "60 s"),
        ("stage2", "mixture.lengths={30: 0.6, 60: 0.4}", "mixture.lengths ends at 60 s, but clips.max_seconds = 180"),
        ("stage2", "mixture.lengths={30: 0, 180: 1}", "greater than 0"),
        ("stage2", "mixture.styles={song: 0.7, news: 0.6}", "adds up to 1.3"),
        ("stage1", "clips.max_second=61", "max_seconds"),
        (
            "stage1",
            "run.tracking_uri=htp:/nonsense",
            "run.tracking_uri: tracking URI htp:/nonsense: MLflow has no such",
        ),
        ("stage1", "engine.activation_checkpointing=1.5", "engine.activation_checkpointing"),
        ("stage1", "engine.hpz=8", "hpz = 8 divides the weights, which zero = 2 does not; set zero to 3"),
        ("stage1", "engine={zero: 3, compile: true}", "hooks that torch.compile cannot follow; set zero to 2"),
        ("stage1", "engine={zero: 0, overlap_comm: true}", "zero = 0 has no buckets"),
        ("stage1", "engine={zero: 0, bucket_size: 5000000}", "zero = 0 has no buckets"),
        ("stage1", "engine.bucket_size=10", "1000000"),
        ("stage1", "max_positions=5000", "4096"),
        ("stage1", "mixture.modes={basic: 1, design: 0.1}", "design"),
        ("stage1", "clips.origins=[native, synthetic]", "synthetic"),
        ("stage2", "clips.max_seconds=200", "180 s"),
        ("stage2", "packing.positions=4000", "longest sample"),
        ("stage3", "clips.origins=[native, synthetic]", "synthetic"),
        ("stage3", "clips.origins=[native, separated]", "native recordings only"),
        ("stage3", "clips.min_seconds=1", "2 to"),
        ("stage2", "mixture.modes={basic: [[0.5, 1], [0.2, 1]]}", "must rise"),
        ("stage2", "mixture.modes={basic: [[0, 1], [1, 0]]}", "progress 1.0"),
        ("stage2", "mixture.modes={singing: 1}", "singing"),
        ("stage2", "datasets={}", "datasets is empty"),
        ("stage2", "optimizer.warmup_steps=100000", "warmup_steps"),
        ("stage2", "lora.r=8", "stage: finetune"),
        ("finetune_full", "run.merged=true", "no lora to merge"),
        ("finetune_full", "run.export=best", "run.keep_best"),
        ("finetune_full", "run.keep_best=2", "nothing is validated"),
        ("finetune_lora", "lora.alfa=8", "did you mean 'lora.alpha'"),
        ("finetune_full", "clips.max_seconds=301", "300 s"),
        ("finetune_full", "optimizer.ema=1.0", "optimizer.ema"),
        ("finetune_full", "run.hang_seconds=0", "run.hang_seconds"),
        ("stage2", "validation={every: 5}", "validation.share or validation.clips"),
        ("stage2", "validation={every: 5, share: 0.1, clips: [a]}", "validation.share or validation.clips"),
        ("stage2", "validation={every: 5, shares: 0.1}", "shares"),
        ("nowhere", "steps=1", "tiny_stage1"),
    ],
)
def test_mistakes_are_named(name: str, override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(name, [override])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_of_a_recipe_s_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stage1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_recipe("stage1", RECIPES) == RECIPES / "stage1.yaml"
    with pytest.raises(UserError, match="no such recipe; name a YAML file or one of finetune_full"):
        find_recipe("../codec/tiny", RECIPES)


def test_a_recipe_of_one_s_own_is_a_path(tmp_path: Path) -> None:
    values = yaml.safe_load((RECIPES / "tiny_stage2.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values | {"steps": 7 * 10}))
    assert load_recipe(tmp_path / "mine.yaml", ["seed=3"]).model_dump()["steps"] == 70
