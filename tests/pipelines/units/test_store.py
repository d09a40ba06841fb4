"""Unit files and label files: what is written comes back, what is damaged or old is named in one line."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import VoiceAttributesConfig
from pipelines.units.store import LabelStore, UnitLabels, read_unit, unit_path, write_unit
from voxmill.core.errors import JobError, UserError
from voxmill.data.records import (
    Candidate,
    Cost,
    Emotion,
    Gender,
    Label,
    SourceInfo,
    StageName,
    Window,
    WindowResult,
    WorkUnit,
)
from voxmill.data.shards import TarWriter

WINDOW = Window(
    recording_id="r",
    name="n",
    path="p",
    start_sample=0,
    end_sample=16000,
    sample_rate=16000,
    source=SourceInfo(session="s"),
)
CANDIDATE = Candidate(clip_id="c", start_sample=0, end_sample=8000, turn=0, cut="pause")
UNIT = WorkUnit(
    unit_id="ab12",
    results=(WindowResult(window=WINDOW, candidates=(CANDIDATE,)),),
    costs={StageName.DECODE: Cost(seconds=0.1)},
)


def test_a_unit_and_its_audio_come_back(tmp_path: Path) -> None:
    path = unit_path(tmp_path, UNIT.bucket, UNIT.unit_id)
    write_unit(path, UNIT, [("c", b"flac")])
    stored = read_unit(path)
    assert stored.unit == UNIT
    offset, size = stored.places["c"]
    assert path.read_bytes()[offset : offset + size] == b"flac"


@pytest.mark.parametrize("content", [b"no tar at all" * 100, b""])
def test_a_damaged_unit_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "u.tar").write_bytes(content)
    with pytest.raises(JobError, match=r"u\.tar"):
        read_unit(tmp_path / "u.tar")


def test_a_unit_of_another_content_is_named(tmp_path: Path) -> None:
    with TarWriter(tmp_path / "u.tar") as tar:
        tar.add("unit.json", b'{"format":3,"unit_id":1}')
    with pytest.raises(JobError, match=r"u\.tar: damaged"):
        read_unit(tmp_path / "u.tar")


def test_a_unit_of_the_older_format_is_answered_in_one_line(tmp_path: Path) -> None:
    with TarWriter(tmp_path / "u.tar") as tar:
        tar.add("unit.json", b'{"unit_id": "ab", "parts": []}')
    with pytest.raises(UserError, match=r"older voxmill; start again in an empty OUT$"):
        read_unit(tmp_path / "u.tar")


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


def test_a_unit_file_is_a_plain_tar(tmp_path: Path) -> None:
    write_unit(tmp_path / "u.tar", UNIT, [("c", b"flac")])
    with tarfile.open(tmp_path / "u.tar") as tar:
        assert tar.getnames() == ["unit.json", "c.flac"]
