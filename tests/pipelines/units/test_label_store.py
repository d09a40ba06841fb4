"""Labels of voices: what is written comes back, from a file a unit and from one a bucket; damaged files are named."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.config import VoiceAttributesConfig
from pipelines.units.label_store import LabelStore, UnitLabels, drop_units, merged_units
from voxmill.core.errors import JobError
from voxmill.data.records import Cost, Emotion, Gender, Label, StageName


def test_labels_of_voices_come_back_by_clip(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, VoiceAttributesConfig(labellers=("speaker", "gender", "emotion")))
    vector = np.array([0.6, 0.8], dtype=np.float32)
    emotion = Emotion(label="sad", probability=0.4, probabilities={"sad": 0.4, "neutral": 0.3}, intensity=0.7)
    assert store.missing(0, "ab12") == ["speaker", "gender", "emotion"]
    store.write(
        "speaker",
        0,
        "ab12",
        UnitLabels(cost=Cost(calls=3), labels={"a": Label(value=vector), "b": Label(reason="silent")}),
    )
    store.write("gender", 0, "ab12", UnitLabels(labels={"a": Label(value=Gender(label="female", female=0.9))}))
    store.write(
        "emotion", 0, "ab12", UnitLabels(labels={"a": Label(reason="unsure", withheld=emotion), "b": Label(error="x")})
    )
    assert store.missing(0, "ab12") == []
    labels, costs = store.read(0, "ab12")
    assert labels["a"].speaker is not None and labels["a"].speaker.value is not None
    assert labels["a"].speaker.value.tobytes() == vector.tobytes()
    assert labels["b"].speaker == Label(reason="silent")
    assert labels["a"].gender == Label(value=Gender(label="female", female=0.9)) and labels["b"].gender is None
    assert labels["a"].emotion == Label(reason="unsure", withheld=emotion) and labels["b"].errors() == ["emotion"]
    assert labels["a"].prosody is None
    assert costs == {StageName.SPEAKER: Cost(calls=3), StageName.GENDER: Cost(), StageName.EMOTION: Cost()}


def test_a_unit_left_without_labels_has_none_and_is_done(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, VoiceAttributesConfig())
    store.write_nothing(0, "ab12")
    assert store.missing(0, "ab12") == [] and store.read(0, "ab12")[0] == {}


@pytest.mark.parametrize("name", ["speaker", "age"])
def test_a_damaged_label_file_is_named(tmp_path: Path, name: str) -> None:
    store = LabelStore(tmp_path, VoiceAttributesConfig())
    store.write_nothing(0, "ab12")
    path = next((tmp_path / "work").rglob(f"{name}-*/0000/ab12.*"))
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(JobError, match=r"ab12\..*damaged"):
        store.read(0, "ab12")


def test_another_configuration_of_a_labeller_has_a_place_of_its_own(tmp_path: Path) -> None:
    first = LabelStore(tmp_path, VoiceAttributesConfig())
    first.write_nothing(0, "ab12")
    config = VoiceAttributesConfig.model_validate({"gender": {"min_probability": 0.99}})
    assert LabelStore(tmp_path, config).missing(0, "ab12") == ["gender"]


def two_units(out: Path) -> LabelStore:
    store = LabelStore(out, VoiceAttributesConfig(labellers=("speaker", "gender")))
    for number, unit_id in enumerate(("b0", "a1", "c2")):
        vector = np.array([number, 1.5], dtype=np.float32)
        clips = {} if unit_id == "c2" else {f"{unit_id}x": Label(value=vector), f"{unit_id}y": Label(reason="silent")}
        store.write("speaker", 3, unit_id, UnitLabels(cost=Cost(calls=number), labels=clips))
        gender = Gender(label="female", female=0.9)
        store.write("gender", 3, unit_id, UnitLabels(labels={name: Label(value=gender) for name in clips}))
    return store


def plain(store: LabelStore) -> list[str]:
    return [repr(store.read(3, unit_id)) for unit_id in ("a1", "b0", "c2")]


def test_merged_labels_are_those_of_the_units_in_one_file_a_labeller(tmp_path: Path) -> None:
    before = plain(two_units(tmp_path))
    store = LabelStore(tmp_path, VoiceAttributesConfig(labellers=("speaker", "gender")))
    assert not store.is_merged(3)
    store.merge(3)
    assert store.is_merged(3) and plain(store) == before
    files = sorted(path for path in (tmp_path / "work").rglob("*") if path.is_file())
    assert files == sorted(store.merged_path(name, 3) for name in store.labellers)
    assert not any(map(store.lacking(3), ("a1", "b0", "c2"))) and store.lacking(3)("d3")
    assert store.missing(3, "c2") == [] and store.missing(3, "d3") == ["speaker", "gender"]
    contents = [path.read_bytes() for path in files]
    # A unit more joins them; the order in which units came does not matter.
    store.write_nothing(3, "0f")
    assert store.missing(3, "0f") == [] and not store.is_merged(3)
    store.merge(3)
    assert plain(store) == before and store.read(3, "0f")[0] == {}
    for name in store.labellers:
        drop_units(store.merged_path(name, 3), frozenset({"0f"}))
        assert merged_units(store.merged_path(name, 3)) == {"a1", "b0", "c2"}
    assert [path.read_bytes() for path in files] == contents


def test_a_merge_that_was_ended_before_it_removed_files_is_ended_by_the_next(tmp_path: Path) -> None:
    store, copies = two_units(tmp_path), {}
    before = plain(store)
    for path in (tmp_path / "work").rglob("*/0003/*"):
        copies[path] = path.read_bytes()
    store.merge(3)
    for path, content in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    merged = {name: store.merged_path(name, 3).read_bytes() for name in store.labellers}
    store.merge(3)
    assert plain(store) == before and store.is_merged(3)
    assert merged == {name: store.merged_path(name, 3).read_bytes() for name in store.labellers}


@pytest.mark.parametrize("name", ["speaker", "gender"])
def test_a_damaged_file_of_a_bucket_is_named(tmp_path: Path, name: str) -> None:
    two_units(tmp_path).merge(3)
    path = next((tmp_path / "work").rglob(f"{name}-*/0003.parquet"))
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(JobError, match=r"0003\.parquet: damaged"):
        LabelStore(tmp_path, VoiceAttributesConfig(labellers=("speaker", "gender"))).read(3, "a1")
