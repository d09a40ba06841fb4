"""Configuration: named errors, overrides, differences."""

from pathlib import Path
from typing import ClassVar, Literal

import pytest

from pipelines.config import AnnotateConfig
from voxmill.core.config import Config, differences, load_config
from voxmill.core.errors import UserError


def test_overrides_reach_nested_values(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("select: {min_seconds: 1.5}\n")
    config = load_config(AnnotateConfig, recipe, ["select.min_dnsmos_ovr=3", "run.workers=2"])
    assert (config.select.min_seconds, config.select.min_dnsmos_ovr, config.run.workers) == (1.5, 3.0, 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select.min_dnsmos=3", "select.min_dnsmos_ovr"),
        ("selct.min_seconds=3", "select"),
        ("select.min_seconds=soon", "select.min_seconds"),
        ("workers", "key=value"),
        ("write.shard_megabytes=0", "shard_megabytes"),
        ("label.segmentation.max_seconds=400", "window_seconds = 300.0: shorter than segmentation.max_seconds = 400"),
        ("label.segmentation.lengths={30: 0.1}", "30 is not above max_seconds = 30"),
        ("label.segmentation.lengths={60: 1.5}", "the share of clips up to 60 s is 1.5"),
        ("label.segmentation.lengths={60: 0.6, 300: 0.6}", "add up to 1.2"),
        ("label.segmentation.lengths={.nan: 0.6}", "nan is not above"),
        (
            "label.segmentation.lengths={600: 0.1}",
            "window_seconds = 300.0: shorter than the 600 s of segmentation.lengths",
        ),
    ],
)
def test_a_mistake_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(AnnotateConfig, None, [override])
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.yaml"):
        load_config(AnnotateConfig, tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(AnnotateConfig, broken)


def test_differences_name_the_leaf() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c: 2 -> 3"]


class Inner(Config):
    renamed: ClassVar[dict[str, str]] = {"hear": "transcribe_from"}

    transcribe_from: Literal["original", "separated"] = "original"


class Outer(Config):
    renamed: ClassVar[dict[str, str]] = {"control": "corpus_labels"}

    threads: int = 1
    corpus_labels: Inner = Inner()
    datasets: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("control.seed=1", "unknown key 'control'; it is now 'corpus_labels'"),
        ("corpus_labels.hear=clip", "unknown key 'corpus_labels.hear'; it is now 'corpus_labels.transcribe_from'"),
        ("datasets.a.hear=clip", "unknown key 'datasets.a.hear'; it is now 'datasets.a.transcribe_from'"),
    ],
)
def test_an_old_key_is_answered_with_its_new_name(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(Outer, None, [override])
    assert str(caught.value) == f"{override}: {message}"
