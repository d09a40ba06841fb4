"""The export is what the released fine-tuning scripts accept; their own validator confirms it where it is installed."""

import importlib.util
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from pipelines.exports.finetune_jsonl import FinetuneClip, FinetuneConfig, export_finetune
from voxmill.core.errors import UserError
from voxmill.data.records import Axis, ClaimOutcome, ClaimVerdict, Description, Reference

VOICE_ALONE = FinetuneConfig(kinds={"design": {"design": 1}})


def description(axis: Axis, text: str) -> Description:
    return Description(axis=axis, granularity="sentence", language="en", text=text, generator="template", recall=1.0)


def clip(name: str, references: list[str], seconds: float = 2.0, rate: int = 24000, **changes: Any) -> FinetuneClip:
    made = FinetuneClip(
        clip_id=name,
        audio=(0.1 * np.sin(np.arange(int(seconds * rate)) / 20)).astype(np.float32),
        rate=rate,
        text=f"This is {name}.",
        modes=("basic", "continuation", "design", "reference", "controllable"),
        descriptions=[description("design", "A woman."), description("style", "Speaks slowly.")],
        references=[Reference(other, 0.9) for other in references],
    )
    return replace(made, **changes)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def validate() -> Iterator[Any]:
    """`validate_manifest` of the released package, installed or unpacked where `VOXCPM_PEER` names it."""
    place = os.environ.get("VOXCPM_PEER", "")
    if place:
        sys.path.insert(0, place)
    try:
        # The package's own __init__ imports its models; the validator needs none of them.
        spec = importlib.util.find_spec("voxcpm")
        if spec is None or not spec.submodule_search_locations:
            pytest.skip("the released package voxcpm==2.0.3 is not installed (VOXCPM_PEER may name its folder)")
        file = Path(spec.submodule_search_locations[0]) / "training" / "validate.py"
        loader = importlib.util.spec_from_file_location("released_validate", file)
        assert loader is not None and loader.loader is not None
        module = importlib.util.module_from_spec(loader)
        sys.modules["released_validate"] = module
        loader.loader.exec_module(module)
        yield module.validate_manifest
    finally:
        sys.modules.pop("released_validate", None)
        if place:
            sys.path.remove(place)


def test_a_clip_gives_a_row_for_each_mode(tmp_path: Path) -> None:
    counts = export_finetune(tmp_path, [[clip("a", ["b"]), clip("b", [], modes=("basic",))]], VOICE_ALONE)
    assert counts == {"basic": 2, "design": 1, "reference": 1, "controllable": 1}
    entries = rows(tmp_path)
    audio = str(tmp_path.resolve() / "audio")
    assert [(row["text"], row["ref_audio"]) for row in entries] == [
        ("This is a.", None),
        ("(A woman.)This is a.", None),
        ("This is a.", f"{audio}/b.flac"),
        ("(Speaks slowly.)This is a.", f"{audio}/b.flac"),
        ("This is b.", None),
    ]
    assert all(
        row.keys() == {"audio", "text", "duration", "dataset_id", "ref_audio", "ref_duration"} for row in entries
    )
    assert entries[2]["duration"] == entries[2]["ref_duration"] == 2.0 and entries[0]["ref_duration"] is None
    info = soundfile.info(entries[0]["audio"])
    assert (info.samplerate, info.channels, info.frames) == (16000, 1, 32000)


def test_without_any_reference_the_columns_are_not_there(tmp_path: Path) -> None:
    export_finetune(tmp_path, [[clip("a", [], modes=("basic",))]], FinetuneConfig())
    assert rows(tmp_path)[0].keys() == {"audio", "text", "duration", "dataset_id"}


def test_what_cannot_be_a_row_is_counted(tmp_path: Path) -> None:
    clips = [
        clip("a", ["gone"]),
        clip("long", ["a"], seconds=31.0, rate=8000),
        clip("mute", ["a"], text=" () "),
        clip("empty", ["a"], audio=np.zeros(0, dtype=np.float32)),
        clip("b", ["long"]),
    ]
    counts = export_finetune(tmp_path, [clips], FinetuneConfig())
    assert counts == {
        "too_long": 1,
        "no_text": 1,
        "empty_audio": 1,
        "reference_missing": 4,
        "basic": 2,
        "design": 2,
    }
    assert not list(tmp_path.glob("**/.*"))


def test_transcripts_cannot_forge_a_description(tmp_path: Path) -> None:
    export_finetune(tmp_path, [[clip("a", [], text="(A man.)\nHello (again)")]], VOICE_ALONE)
    assert [row["text"] for row in rows(tmp_path)][:2] == ["A man. Hello again", "(A woman.)A man. Hello again"]


def test_several_wordings_are_different_and_the_same_in_every_run(tmp_path: Path) -> None:
    wordings = [description("design", f"A woman with a voice like number {i % 4}.") for i in range(8)]
    config = FinetuneConfig(modes=("design",), descriptions=3)
    for name in ("one", "two"):
        export_finetune(tmp_path / name, [[clip("a", [], descriptions=wordings)]], config)
    texts = [row["text"] for row in rows(tmp_path / "one")]
    assert len(set(texts)) == 3 and texts == [row["text"] for row in rows(tmp_path / "two")]


def test_kinds_of_descriptions_come_by_their_shares(tmp_path: Path) -> None:
    said = [description("design", "A woman."), description("style", "Slowly."), description("both", "A woman, slowly.")]
    clips = [clip(f"c{number}", [], descriptions=said, modes=("design",), seconds=0.1) for number in range(300)]
    config = FinetuneConfig(modes=("design",), kinds={"design": {"design": 1, "both": 3}})
    export_finetune(tmp_path / "one", [clips], config)
    counts = Counter(row["text"].split(")")[0].lstrip("(") for row in rows(tmp_path / "one"))
    # 75 wanted; 4 standard deviations of a binomial of 300 draws are 30.
    assert counts.keys() == {"A woman.", "A woman, slowly."} and abs(counts["A woman."] - 75) < 30
    # Where a clip's texts of one kind are used up another kind stands in.
    several = FinetuneConfig(modes=("design",), descriptions=3)
    export_finetune(tmp_path / "all", [clips[:1]], several)
    assert len({row["text"] for row in rows(tmp_path / "all")}) == 3
    with pytest.raises(ValidationError, match="design: all shares are 0"):
        FinetuneConfig(kinds={"design": {"both": 0}})


def test_a_rule_says_which_verdicts_enter(tmp_path: Path) -> None:
    def judged(text: str, verdict: ClaimOutcome) -> Description:
        return replace(
            description("design", text),
            verdicts=(ClaimVerdict(attribute="accent", claimed=text, predicted=None, verdict=verdict),),
        )

    said = [judged("A voice from Wales.", "unjudged"), judged("A voice from Spain.", "fail"), judged("Welsh.", "pass")]
    clips = [clip("a", [], descriptions=said, modes=("design",))]
    for rule, expected in (
        ({"default": "pass"}, {"Welsh."}),
        ({"accent": "unjudged_ok"}, {"Welsh.", "A voice from Wales."}),
        (None, {"Welsh.", "A voice from Wales.", "A voice from Spain."}),
    ):
        config = FinetuneConfig.model_validate({"modes": ["design"], "descriptions": 3, "verified": rule})
        folder = tmp_path / str(len(expected))
        export_finetune(folder, [clips], config)
        assert {row["text"].split(")")[0].lstrip("(") for row in rows(folder)} == expected
    with pytest.raises(ValidationError, match="timbre is no attribute"):
        FinetuneConfig.model_validate({"verified": {"timbre": "pass"}})


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="learned from basic"):
        export_finetune(tmp_path, [[clip("a", [])]], FinetuneConfig(modes=("continuation",)))
    with pytest.raises(UserError, match="none of the clips"):
        export_finetune(tmp_path, [[clip("a", [], modes=("basic",))]], FinetuneConfig(modes=("design",)))
    export_finetune(tmp_path, [[clip("a", [])]], FinetuneConfig())
    with pytest.raises(UserError, match="train.jsonl exists"):
        export_finetune(tmp_path, [[clip("a", [])]], FinetuneConfig())


def test_the_released_validator_accepts_the_export(tmp_path: Path, validate: Any) -> None:
    clips = [clip(f"c{i}", [f"c{(i + 2) % 6}"], rate=48000 if i % 2 else 16000) for i in range(6)]
    export_finetune(tmp_path, [clips], FinetuneConfig())
    report = validate(str(tmp_path / "train.jsonl"), sample_rate=16000)
    assert report.is_valid and report.errors == [] and report.warnings == []
    assert (report.total_samples, report.valid_samples, report.has_ref_audio) == (24, 24, 12)
