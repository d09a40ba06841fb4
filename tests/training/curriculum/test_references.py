"""References: which are used, which a sample gets, and that rules for clips do not bind them."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT
from training.curriculum.corpus import Corpus, read_corpus
from training.curriculum.plan.check import check
from training.curriculum.recipe import Recipe, ReferencesConfig, load_recipe
from training.curriculum.references import (
    across_languages,
    base_languages,
    expected_share,
    good_enough,
    preferred,
)
from training.curriculum.sample_plan import PlannedSample
from training.curriculum.sample_stream import SampleStream
from training.curriculum.telemetry import Groups

TOKENIZER = TextTokenizer.from_folder(CHECKPOINT)
QUALITY = [4.0, 3.4, 2.4, 3.0]


def altered(dataset: Path, out: Path, columns: dict[str, list[Any]]) -> Path:
    """A copy of the dataset with other values in these columns of its index."""
    shutil.copytree(dataset, out)
    table = pq.read_table(out / "clips.parquet")
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    pq.write_table(table, out / "clips.parquet")
    return out


@pytest.fixture(scope="module")
def bilingual(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 clips of one speaker, the first 8 in English, the others in French; clip n has quality n mod 4 of QUALITY.

    References of a clip are seven others: three in its own language and four in the other one.
    """
    ids = pq.read_table(encoded / "clips.parquet")["clip_id"].to_pylist()
    groups = [[other for other in range(16) if other % 8 // 4 == clip % 8 // 4] for clip in range(16)]
    references = [
        [{"clip_id": ids[other], "similarity": 0.8} for other in group if other != clip]
        for clip, group in enumerate(groups)
    ]
    quality = [{"dnsmos_ovr": QUALITY[clip % 4]} for clip in range(16)]
    columns: dict[str, list[Any]] = {"session": ["both"] * 16, "references": references, "quality": quality}
    return altered(encoded, tmp_path_factory.mktemp("bilingual") / "out", columns)


def recipe(dataset: Path, *overrides: str, name: str = "tiny_stage2") -> Recipe:
    return load_recipe(
        name,
        [
            *(f"datasets.main.path={dataset}", f"init={CHECKPOINT}", "mixture.modes={reference: 1.0}"),
            *("references={}", *overrides),
        ],
    )


def drawn(settings: Recipe, steps: int = 40) -> tuple[Corpus, list[PlannedSample]]:
    corpus = read_corpus(settings)
    stream = SampleStream(corpus, settings, TOKENIZER)
    return corpus, [sample for _ in range(steps) for row in stream.next_step() for sample in row]


def share_across(corpus: Corpus, samples: list[PlannedSample]) -> float:
    kinds = [
        corpus.languages[corpus.language[s.reference]] != corpus.languages[corpus.language[s.clip]]
        for s in samples
        if s.reference is not None
    ]
    return float(np.mean(kinds))


def test_the_choice_prefers_one_kind_by_the_roll_and_neither_without_a_share() -> None:
    across = np.array([True, False, True, False])
    rolls = np.array([0.1, 0.1, 0.9, 0.9])
    assert preferred(across, rolls, 0.5).tolist() == [True, False, False, True]
    assert preferred(across, rolls, 0.0).tolist() == (~across).tolist()
    assert preferred(across, rolls, 1.0).tolist() == across.tolist()
    assert preferred(across, rolls, None).all()


def test_languages_of_pairs() -> None:
    base = base_languages(["en", "zh-yue", "", "zh", "fr"])
    assert across_languages(base[[0, 1, 2, 0, 0]], base[[4, 3, 4, 2, 0]]).tolist() == [True, False, False, False, False]


def test_what_is_expected_of_a_clip_s_references() -> None:
    assert [expected_share(1, 4, None), expected_share(1, 4, 0.5), expected_share(4, 4, 0.5)] == [0.25, 0.5, 1.0]
    assert [expected_share(0, 4, 0.5), expected_share(0, 0, 0.5)] == [0.0, 0.0]


def test_a_reference_may_be_poorer_and_not_far_better() -> None:
    target, reference = np.array([4.0, 2.0, 2.0, np.nan, 3.0]), np.array([2.0, 2.4, 4.0, 3.0, np.nan])

    def usable(**rules: float) -> list[bool]:
        return [bool(one) for one in good_enough(target, reference, ReferencesConfig(**rules))]

    assert usable() == [True] * 5
    assert usable(min_quality=2.2) == [False, True, True, True, False]
    assert usable(cleaner_by=0.5) == [True, True, False, True, True]


@pytest.mark.parametrize(("share", "expected"), [("null", 4 / 7), ("0", 0.0), ("0.3", 0.3), ("1", 1.0)])
def test_references_in_another_language_come_in_the_wanted_share(bilingual: Path, share: str, expected: float) -> None:
    settings = recipe(bilingual, f"references.cross_lingual={share}")
    corpus, samples = drawn(settings)
    assert len(samples) > 150 and share_across(corpus, samples) == pytest.approx(expected, abs=0.1)
    assert drawn(settings)[1] == samples
    plan = check(settings)[1]
    assert plan.references is not None and plan.references.another_language == pytest.approx(expected)


def test_every_draw_of_a_clip_takes_a_reference_anew(bilingual: Path) -> None:
    """Over the epochs of a clip all its references are seen, and two draws in a row are seldom alike."""
    corpus, samples = drawn(recipe(bilingual, "references.cross_lingual=0.5"), steps=60)
    by_clip: dict[int, list[int]] = {}
    for sample in samples:
        assert sample.reference is not None
        by_clip.setdefault(sample.clip, []).append(sample.reference)
    for clip, references in by_clip.items():
        assert set(references) == set(corpus.candidates(clip)) and len(references) > 20
        again = np.mean([a == b for a, b in zip(references[:-1], references[1:], strict=True)])
        assert again < 0.35
    assert drawn(recipe(bilingual, "seed=1", "references.cross_lingual=0.5"), steps=60)[1] != samples


def test_quality_binds_the_clips_that_are_spoken_and_not_their_references(bilingual: Path) -> None:
    corpus, samples = drawn(recipe(bilingual, "clips.min_quality=3.2"))
    assert {QUALITY[s.clip % 4] for s in samples} == {4.0, 3.4}
    assert {QUALITY[s.reference % 4] for s in samples if s.reference is not None} == set(QUALITY)
    corpus, samples = drawn(
        recipe(bilingual, "clips.min_quality=3.2", "references={min_quality: 2.8, cleaner_by: 0.5}")
    )
    pairs = {(QUALITY[s.clip % 4], QUALITY[s.reference % 4]) for s in samples if s.reference is not None}
    assert pairs == {(4.0, 4.0), (4.0, 3.4), (4.0, 3.0), (3.4, 3.4), (3.4, 3.0)}
    with_none = read_corpus(recipe(bilingual, "references.min_quality=4.5", "mixture.modes={basic: 1.0}"))
    assert with_none.left_out["mode_without_reference"] == 16


def test_check_tells_poorer_and_better_references(bilingual: Path) -> None:
    corpus, plan = check(recipe(bilingual, "mixture.temperature=1"))
    found = plan.references
    assert found is not None and found.candidates == pytest.approx(7.0)
    better = np.array([[QUALITY[j] - QUALITY[i % 4] for j in (*range(4), *range(4))] for i in range(16)])
    # All qualities twice, and of them once the clip's own, which is neither.
    noisier, cleaner = ((better <= -0.3).sum(axis=1) / 7, (better >= 0.3).sum(axis=1) / 7)
    assert found.noisier == pytest.approx(np.average(noisier, weights=corpus.seconds[:]))
    assert found.cleaner == pytest.approx(np.average(cleaner, weights=corpus.seconds[:]))
    assert "in another language" in found.line()
    assert check(recipe(bilingual, "mixture.modes={basic: 1.0}"))[1].references is None


def test_metrics_count_pairs_in_two_languages(bilingual: Path) -> None:
    settings = recipe(bilingual, "references.cross_lingual=0.5")
    corpus, samples = drawn(settings, steps=5)
    groups = Groups(corpus, settings)
    table_MK = groups.zeros(torch.device("cpu"))
    patches = [float(corpus.patches[s.clip]) for s in samples]
    groups.add(table_MK, samples, torch.tensor([[1.0, 1.0, count, 0, 0, 0] for count in patches], dtype=torch.float64))
    found = groups.read(table_MK.tolist())
    kinds = Counter[str]()
    for sample, count in zip(samples, patches, strict=True):
        is_same = sample.reference is not None and sample.reference // 8 == sample.clip // 8
        kinds["reference/same_language" if is_same else "reference/another_language"] += int(count)
    assert {name: found[name].num_patches for name in kinds} == kinds and len(kinds) == 2


def test_a_dataset_without_a_quality_or_language_is_read(bilingual: Path, tmp_path: Path) -> None:
    out = altered(bilingual, tmp_path / "out", {"quality": [None] * 16, "language": [None] * 16})
    settings = recipe(out, "references={cross_lingual: 0.5, cleaner_by: 0.5}")
    corpus, samples = drawn(settings, steps=5)
    assert samples and share_across(corpus, samples) == 0 and np.isnan(corpus.quality).all()
