"""Predicted word error rates: what pushes them which way, how far, and which numbers are refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.speech.wer_prediction import (
    DIRECTIONS,
    Term,
    WerFit,
    measures,
    read_fit,
    shipped_fit,
    toward_others,
)
from tests.annotation.speech.made_fits import made_fit
from voxmill.core.assets import asset_sha256
from voxmill.core.errors import UserError
from voxmill.data.records import Candidate, Quality, TranscriptChecks, Word, to_json_text

GOOD = ("Nobody is here to take your call.", 0.97)


def clip(*, probability: float = GOOD[1], text: str = GOOD[0], language: str = "en", **checks: Any) -> Candidate:
    values: dict[str, Any] = {
        "compression_ratio": 0.9,
        "repeated_ngram": 0.0,
        "characters_per_second": 13.0,
        "text_language": language,
        "text_language_probability": 0.97,
        "mean_log_probability": -0.12,
        "no_speech_probability": 0.01,
        "redecoded": False,
        "aligner": "",
    }
    quality = dict.fromkeys((field.name for field in dataclasses.fields(Quality)), 0.0)
    quality |= {"dnsmos_ovr": 3.3, "snr_db": 35.0}
    return Candidate(
        clip_id="c",
        start_sample=0,
        end_sample=48_000,
        turn=0,
        cut="pause",
        text=text,
        words=tuple(Word(word, 0.1 * i, 0.1 * i + 0.1, probability) for i, word in enumerate(text.split())),
        language=language,
        language_probability=0.98,
        transcript=TranscriptChecks(**values | checks),
        quality=Quality(**quality),
    )


def rate(fit: WerFit, one: Candidate) -> float:
    """Of a clip that is alone in its recording."""
    return fit.predict([(one, 3.0)])[0]


def test_the_shipped_fit_is_of_the_embedded_recogniser_and_true_where_it_was_tried() -> None:
    fit = shipped_fit("whisper-base", asset_sha256("whisper-base"))
    assert fit is not None and fit.tried_on and sum(row.clips for row in fit.fitted_on) >= 300
    assert all(abs(row.predicted - row.true) <= 0.05 for row in fit.fifths)
    assert len({row.language for row in fit.fitted_on}) >= 8
    poor = clip(probability=0.4, mean_log_probability=-1.0, redecoded=True, text="Nobo isher")
    assert rate(fit, clip()) < 0.15 < 0.5 < rate(fit, poor)


def test_one_good_clip_among_many_that_failed_is_trusted_less() -> None:
    """Catalan, which the recogniser hears as Spanish, Portuguese or Polish, was kept where it looked like Spanish."""
    fit = shipped_fit("whisper-base", asset_sha256("whisper-base"))
    assert fit is not None
    poor = clip(probability=0.4, mean_log_probability=-1.0, redecoded=True, text="Nobo isher")
    near = clip(probability=0.8, mean_log_probability=-0.3)
    among = [fit.predict([(near, 3.0), *[(other, 3.0)] * 9])[0] for other in (clip(), poor)]
    assert among[0] == rate(fit, near) < 0.28 < among[1]


def test_scores_move_towards_the_others_by_how_much_there_is_of_them() -> None:
    scores, seconds = np.array([0.0, 2.0, 2.0]), np.array([3.0, 3.0, 9.0])
    moved = toward_others(scores, seconds, 0.5)
    # 8 seconds of others (a clip counts 5 at most) are 8 / 32 of the half way to them; nothing gets better by others.
    assert moved == pytest.approx([0.5 * 8 / 32 * 2, 2.0, 2.0])
    assert toward_others(np.array([1.5]), np.array([4.0]), 1.0) == pytest.approx([1.5])
    assert toward_others(scores, seconds, 0.0) == pytest.approx(scores)


def test_every_measure_pushes_one_way_only() -> None:
    fit = shipped_fit("whisper-base", asset_sha256("whisper-base"))
    assert fit is not None
    values = measures(clip(), 3.0)
    assert set(values) == set(DIRECTIONS)
    for name, direction in DIRECTIONS.items():
        more, less = fit.score(values | {name: values[name] + 0.1}), fit.score(values | {name: values[name] - 0.1})
        assert (more - less) * direction >= 0, name


def test_what_true_text_does_says_nothing_and_loops_do() -> None:
    """Long clips were predicted to be worse for a phrase that is said twice, and since long text compresses better."""
    ordinary = measures(clip(compression_ratio=1.7, repeated_ngram=0.1), 15.0)
    assert ordinary["compression"] == ordinary["repeated"] == 0
    looped = measures(clip(compression_ratio=2.9, repeated_ngram=0.6), 15.0)
    assert looped["compression"] > 1 and looped["repeated"] > 0.4


def test_a_clip_whose_language_was_near_another_one_is_in_less_doubt_than_one_that_was_decoded_again() -> None:
    near, doubtful = clip(redecoded=True, redecoded_for="language"), clip(redecoded=True, agreement=0.8)
    values = [measures(one, 3.0)["redecoded"] for one in (clip(), near, doubtful)]
    assert values == [0, 0.25, 1]


def test_beyond_the_fitted_range_nothing_changes() -> None:
    fit = made_fit()
    rates = [rate(fit, clip(mean_log_probability=value)) for value in (-0.5, -2.0, -50.0, 3.0)]
    assert rates == [0.25, 1.0, 1.0, 0.0]


def test_fits_are_read_as_they_were_written_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(to_json_text(made_fit()))
    assert read_fit(path) == made_fit()
    for broken in (
        "{}",
        to_json_text(made_fit()).replace('"format":3', '"format":9'),
    ):
        path.write_text(broken)
        with pytest.raises(UserError, match=r"fit\.json: no fit of `voxmill fit-trust`"):
            read_fit(path)
    with pytest.raises(UserError, match="no fit"):
        read_fit(tmp_path / "missing.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": (Term(measure="log_probability", low=-2.0, high=0.0, weight=1.0),)},
        {"terms": (Term(measure="log_probability", low=2.0, high=0.0, weight=-1.0),)},
        {"terms": (Term(measure="mood", low=0.0, high=1.0, weight=1.0),)},
        {"others": 1.5},
        {"curve": ()},
        {"curve": ((0.0, 0.5), (1.0, 0.2))},
        {"curve": ((1.0, 0.2), (0.0, 0.5))},
        {"bias": float("nan")},
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        made_fit(**changes)


def test_there_is_a_fit_for_no_other_recogniser() -> None:
    assert shipped_fit("whisper-base", "other weights") is None
    assert shipped_fit("large-v3", "") is None
    assert shipped_fit("/models/my whisper", "") is None
