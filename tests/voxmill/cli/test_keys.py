"""Every configuration key has a default or must be given, and one line that documents it."""

import re
from functools import cache

import pytest

from cluster.manifests.values import Values
from evaluation.config import EvaluateConfig
from pipelines.config import AnnotateConfig, EncodeConfig
from pipelines.exports.cues import SubtitleConfig
from pipelines.exports.finetune_jsonl import FinetuneConfig
from samples.annotate_process import ROOT
from training.codec.config import VAETrainConfig
from training.curriculum.recipe import Recipe
from training.launch.launch_config import LaunchConfig
from voxmill.core.config import Config, describe_keys, known_keys

MODELS = (
    AnnotateConfig,
    EncodeConfig,
    VAETrainConfig,
    Recipe,
    LaunchConfig,
    EvaluateConfig,
    FinetuneConfig,
    SubtitleConfig,
    Values,
)


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_documented_in_one_line(model: type[Config]) -> None:
    keys = list(describe_keys(model))
    assert [key.key for key in keys if not key.text or "\n" in key.text] == []
    values = {key.key for key in keys}
    # Keys of a dict of sections stand under a name of the user's own.
    assert {key for key in known_keys(model) if not any(value.startswith(f"{key}.") for value in values)} == {
        key for key in values if ".NAME." not in key
    }


@pytest.mark.parametrize("model", MODELS)
def test_every_key_is_read_somewhere(model: type[Config]) -> None:
    """`write.examples_per_reason` and `label.segmentation.min_seconds` had a page and did nothing."""
    names = {key.rsplit(".", 1)[-1] for key in known_keys(model)}
    assert {name for name in names if not re.search(rf'[."]{name}\b', _sources())} == set()


@cache
def _sources() -> str:
    folders = ("voxmill", "pipelines", "annotation", "model", "training", "evaluation", "cluster")
    return "\n".join(path.read_text(encoding="utf-8") for name in folders for path in (ROOT / name).rglob("*.py"))


def test_a_key_shows_its_values_and_its_default() -> None:
    keys = {key.key: key for key in describe_keys(AnnotateConfig)}
    threads = keys["run.threads"]
    assert (threads.values, threads.default, threads.text) == ("whole number >= 1", "1", "CPU threads of each model.")
    assert keys["label.separation.mode"].values == "auto | always | never"
    assert keys["select.min_seconds"].values == "number or null" and keys["select.min_seconds"].default == "2.0"
    assert keys["run.workers"].default == "null"


def test_a_default_of_the_outer_section_wins_over_the_inner_one() -> None:
    keys = {key.key: key for key in describe_keys(EvaluateConfig)}
    assert keys["judge.endpoint.temperature"].default == "0.0"


def test_a_key_that_must_be_given_has_no_default() -> None:
    keys = {key.key: key for key in describe_keys(Recipe)}
    assert keys["steps"].default == "" and keys["datasets.NAME.path"].default == ""
