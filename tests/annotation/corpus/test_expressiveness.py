"""Expressiveness is relative: to the speaker, to the language, and never made of one odd clip."""

import dataclasses
from functools import reduce

import numpy as np
import pytest

from annotation.corpus.expressiveness import (
    Expressiveness,
    ExpressivenessConfig,
    as_columns,
    check_screen,
    count_measures,
    fit_norms,
    score_clips,
    score_expressiveness,
)
from annotation.corpus.grid_counts import GridCounts, weighted_median
from voxmill.core.errors import UserError

CONFIG = ExpressivenessConfig()


def corpus(seed: int = 0) -> tuple[dict[str, list[float | None]], list[str], list[str]]:
    """A flat and a lively speaker of 50 clips each; the lively one is higher and wider."""
    rng = np.random.default_rng(seed)
    std = np.concatenate([rng.normal(2.0, 0.3, 50), rng.normal(4.0, 0.6, 50)])
    pitch = np.concatenate([rng.normal(110, 4, 50), rng.normal(210, 8, 50)])
    columns: dict[str, list[float | None]] = {"f0_std_semitones": std.tolist(), "f0_median_hz": pitch.tolist()}
    return columns, ["flat"] * 50 + ["lively"] * 50, ["en"] * 100


def scores(scored: list[Expressiveness]) -> np.ndarray:
    return np.array([np.nan if label.score is None else label.score for label in scored])


def test_a_clip_that_is_lively_for_its_speaker_scores_above_the_speakers_usual_ones() -> None:
    columns, speakers, languages = corpus()
    columns["f0_std_semitones"][0] = 3.2
    scored = score_expressiveness(columns, speakers, languages, ExpressivenessConfig(speaker_weight=1.0))
    # 3.2 semitones are flat for the corpus and a lot for this speaker.
    assert scores(scored)[0] > np.nanmedian(scores(scored)[:50]) + 1
    assert scores(scored)[0] > np.nanmedian(scores(scored)[50:]) + 0.5


def test_the_languages_distribution_tells_the_lively_speaker_from_the_flat_one() -> None:
    scored = scores(score_expressiveness(*corpus(), ExpressivenessConfig(speaker_weight=0.0)))
    assert np.median(scored[50:]) > np.median(scored[:50]) + 0.5


def test_a_speaker_of_one_clip_is_judged_by_the_language() -> None:
    columns, speakers, languages = corpus()
    for values, value in zip(columns.values(), (6.0, 160.0), strict=True):
        values.append(value)
    scored = score_expressiveness(columns, [*speakers, "once"], [*languages, "en"], CONFIG)
    assert scored[-1].score is not None and scored[-1].parts["f0_std_semitones"] > 1
    assert all(np.isfinite(scores(scored)))


@pytest.mark.parametrize("speaker", ["once", ""])
def test_a_corpus_of_one_clip_is_in_its_own_middle(speaker: str) -> None:
    scored = score_expressiveness({"f0_std_semitones": [3.0]}, [speaker], ["en"], CONFIG)
    assert scored == [Expressiveness(0.0, 0.5, {"f0_std_semitones": 0.0})]


def test_clips_without_a_speaker_are_not_one_speaker() -> None:
    columns, _, languages = corpus()
    nameless = score_expressiveness(columns, [""] * 100, languages, ExpressivenessConfig(speaker_weight=1.0))
    one_voice = score_expressiveness(columns, ["x"] * 100, languages, ExpressivenessConfig(speaker_weight=1.0))
    assert np.nanmax(scores(nameless)) < np.nanmax(scores(one_voice))


def test_identical_clips_are_all_in_the_middle() -> None:
    scored = score_expressiveness({"f0_std_semitones": [3.0] * 500}, ["a"] * 500, ["en"] * 500, CONFIG)
    assert set(scores(scored)) == {0.0} and {label.percentile for label in scored} == {0.5}


def test_a_clip_without_pitch_is_scored_by_what_it_has_and_one_without_anything_not() -> None:
    columns, speakers, languages = corpus()
    columns["energy_std_db"] = np.random.default_rng(1).normal(6, 1, 100).tolist()
    columns["f0_std_semitones"][3] = columns["f0_median_hz"][3] = None
    for values in columns.values():
        values[4] = None
    scored = score_expressiveness(columns, speakers, languages, CONFIG)
    assert set(scored[3].parts) == {"energy_std_db"} and scored[3].score is not None
    assert scored[4] == Expressiveness(None, None, {})


def test_one_tracking_error_is_capped() -> None:
    columns, speakers, languages = corpus()
    columns["f0_std_semitones"][0] = 1e6
    scored = score_expressiveness(columns, speakers, languages, CONFIG)
    assert scored[0].parts["f0_std_semitones"] == pytest.approx(CONFIG.limit)


def test_the_order_of_clips_does_not_matter() -> None:
    columns, speakers, languages = corpus()
    order = np.random.default_rng(2).permutation(100)
    mixed = {name: [values[i] for i in order] for name, values in columns.items()}
    scored = score_expressiveness(columns, speakers, languages, CONFIG)
    again = score_expressiveness(mixed, [speakers[i] for i in order], languages, CONFIG)
    assert [scored[i] for i in order] == again


def test_norms_of_parts_add_up_to_those_of_the_whole_in_any_order() -> None:
    columns, speakers, languages = corpus()
    languages = ["en", "fr"] * 50
    arrays = as_columns(columns)
    whole = fit_norms(count_measures(arrays, languages), CONFIG)
    parts = [np.arange(0, 30), np.arange(30, 90), np.arange(90, 100)]
    counted = [count_measures({n: v[rows] for n, v in arrays.items()}, [languages[i] for i in rows]) for rows in parts]
    for order in ((0, 1, 2), (2, 0, 1)):
        total = {
            name: {
                language: reduce(GridCounts.__add__, [counted[i][name][language] for i in order])
                for language in ("en", "fr")
            }
            for name in arrays
        }
        added = fit_norms(total, CONFIG)
        assert (added.corpus, added.languages) == (whole.corpus, whole.languages)
    exact = [float(np.median(values[::2])) for values in arrays.values()]
    own = [reduce(GridCounts.__add__, [part[name]["en"] for part in counted]) for name in arrays]
    for median, counts, cells in zip(exact, own, (512, 256), strict=True):
        assert weighted_median(counts.cells / cells, counts.counts) == pytest.approx(median, abs=0.6 / cells)


def test_stored_norms_give_a_clip_the_same_percentile_whoever_comes_later() -> None:
    columns, speakers, languages = corpus()
    arrays = as_columns(columns)
    norms = fit_norms(count_measures(arrays, languages), CONFIG)
    scores = score_clips(arrays, speakers, languages, norms, CONFIG)
    norms = dataclasses.replace(norms, scores=scores.count())
    more = {name: np.append(values, values[:7] + 1) for name, values in arrays.items()}
    later = score_clips(more, [*speakers, *["new"] * 7], [*languages, *["en"] * 7], norms, CONFIG)
    assert np.array_equal(later.score[:100], scores.score)
    assert np.array_equal(norms.percentiles(later.score)[:100], norms.percentiles(scores.score))
    assert norms.percentiles(later.score).min() >= 0 and norms.percentiles(later.score).max() <= 1


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="top_share and threshold"):
        check_screen(ExpressivenessConfig(top_share=0.5, threshold=1.0))
    with pytest.raises(UserError, match=r"0\.\.1"):
        check_screen(ExpressivenessConfig(top_share=30))
    with pytest.raises(ValueError, match="loudness"):
        score_expressiveness({"loudness": [1.0]}, ["a"], ["en"], CONFIG)
    with pytest.raises(ValueError, match="one value a clip"):
        score_expressiveness({"rate": [1.0, 2.0]}, ["a"], ["en"], CONFIG)
