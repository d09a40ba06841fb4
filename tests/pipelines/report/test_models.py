"""What `run.json`, the report and the card say of the models."""

import pytest

from pipelines.config import AnnotateConfig
from pipelines.report.run_summary import models


@pytest.mark.parametrize(
    ("separation", "names"),
    [
        ({}, ["spleeter-2stems", "deepfilternet3"]),
        ({"model": "htdemucs", "noise_model": None}, ["htdemucs"]),
        ({"model": "deepfilternet3"}, ["deepfilternet3"]),
        ({"mode": "never"}, []),
    ],
)
def test_every_separator_that_is_used_is_named(separation: dict[str, str | None], names: list[str]) -> None:
    config = AnnotateConfig.model_validate({"label": {"separation": separation}})
    rows = [row for row in models(config) if row["stage"] == "separation"]
    assert [row["name"] for row in rows] == names
    assert all((row["sha256"] is None) == (row["name"] == "htdemucs") for row in rows)
