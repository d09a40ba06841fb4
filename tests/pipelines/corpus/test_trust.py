"""Which fit a dataset gets: the shipped one for its recogniser, a file of its own, or none."""

import json
from pathlib import Path

import pytest

from annotation.speech.recognisers.config import RecogniserConfig
from pipelines.config import AnnotateConfig
from pipelines.corpus.trust import fit_key, recogniser, trust_figures, wer_fit
from tests.annotation.speech.made_fits import made_fit
from voxmill.core.errors import UserError
from voxmill.data.records import to_json_text

OTHER = {"transcription": {"model": "large-v3"}}


def test_the_embedded_recogniser_has_a_fit_and_another_one_says_that_it_has_none() -> None:
    config, other = AnnotateConfig(), AnnotateConfig.model_validate({"label": OTHER})
    assert (fit := wer_fit(config)) is not None and (fit.recogniser, fit.sha256) == recogniser(RecogniserConfig())
    figures = trust_figures(config)
    assert figures["fit"] == "shipped" and len(figures["fifths"]) == 5 and figures["fitted_clips"] > 0
    assert wer_fit(other) is None and fit_key(other) == ""
    assert trust_figures(other)["fit"] is None and trust_figures(other)["recogniser"] == "large-v3"
    assert wer_fit(AnnotateConfig.model_validate({"select": {"wer_fit": None}})) is None


def test_a_file_is_taken_for_its_own_recogniser_alone(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(to_json_text(made_fit(recogniser="large-v3")))
    select = {"wer_fit": str(path)}
    config = AnnotateConfig.model_validate({"label": OTHER, "select": select})
    assert wer_fit(config) == made_fit(recogniser="large-v3")
    assert json.dumps(trust_figures(config)) and fit_key(config) != fit_key(AnnotateConfig())
    with pytest.raises(UserError, match="made for large-v3, and the recogniser is whisper-base"):
        wer_fit(AnnotateConfig.model_validate({"select": select}))
    with pytest.raises(UserError, match="no fit of"):
        wer_fit(AnnotateConfig.model_validate({"select": {"wer_fit": str(tmp_path / "none.json")}}))
