"""Excerpts of corpora made of a sample recording, and how the plan and the stages read them."""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipelines.config import LabelConfig, VoiceAttributesConfig
from pipelines.corpus.given import give_labels, give_texts
from pipelines.inputs.bucket_rows import content_keys, find_repeats, plan_bucket, plan_rows
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.scan import Scan, ScanOptions, scan_entry
from pipelines.stages.base import StageContext, WindowAudio
from pipelines.stages.decode import Decode
from pipelines.stages.segment import Segment
from pipelines.units.plan_files import BucketPlan
from samples.turns import SAMPLES
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.data.schemas import to_table

RATE = 16_000


@dataclass(frozen=True)
class Said:
    """A turn of a sample recording: its place there, its samples and what a corpus says of it."""

    key: str
    start: float
    end: float
    audio: np.ndarray
    text: str


def turns(name: str, count: int) -> list[Said]:
    rows = map(json.loads, (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    row = next(row for row in rows if Path(row["path"]).stem == name)
    audio, rate = soundfile.read(SAMPLES / "recordings" / f"{name}.flac", dtype="float32")
    assert rate == RATE
    bounds = [(turn["start"], turn["end"], turn["text"]) for turn in row["turns"][:count]]
    return [
        Said(f"utt-{number}", start, end, audio[round(start * RATE) : round(end * RATE)], text)
        for number, (start, end, text) in enumerate(bounds)
    ]


TURNS = turns("en-1", 4)
WHOLE = SAMPLES / "recordings" / "en-1.flac"
SEGMENTED = LabelConfig(segmented=True)


def planned(source: Path, label: LabelConfig = SEGMENTED) -> BucketPlan:
    entries = list(read_inputs(str(source)))
    rows = plan_rows(
        0, entries, to_table([scan_entry(entry, ScanOptions(channels=label.channels)) for entry in entries], Scan)
    )
    repeats = {repeat.order: repeat for repeat in find_repeats(content_keys(rows))}
    return plan_bucket(rows, repeats, label, 0)


@dataclass(frozen=True)
class Read:
    """A clip as it goes through the stages and is labelled."""

    name: str
    audio: np.ndarray
    text: str
    speaker: str | None
    given: dict[str, Any]


def clips(plan: BucketPlan) -> list[Read]:
    """The clips of a plan, decoded and cut by the stages, with what the corpus gives them."""
    context = StageContext(
        out=Path(), label=SEGMENTED, voice_attributes=VoiceAttributesConfig(), threads=1, device="cpu"
    )
    decode, segment = Decode(context), Segment(context)
    given = {one.recording_id: one for one in plan.given}
    found = []
    for unit in plan.units:
        for result in unit.results:
            decoded = decode.window(result, WindowAudio())
            cut = segment.window(decoded.result, decoded.audio).result
            for candidate in cut.candidates:
                audio = decoded.audio.samples[
                    candidate.start_sample - cut.window.start_sample : candidate.end_sample - cut.window.start_sample
                ]
                clip = made_clip(speaker=cut.window.source.speaker)
                clip.candidate, clip.window = candidate, cut.window
                give_labels([clip], given)
                give_texts([clip], given)
                labels = {} if clip.given is None else {n: getattr(clip.given, n) for n in clip.given.__slots__}
                extra = json.loads(labels.pop("extra", None) or "{}")
                known = {name: value for name, value in labels.items() if value is not None}
                found.append(
                    Read(
                        cut.window.name,
                        audio + np.float32(cut.dc_offset),
                        clip.candidate.text,
                        clip.speaker,
                        known | extra,
                    )
                )
    return sorted(found, key=lambda read: (read.name, read.text))


def ends(plan: BucketPlan) -> dict[str, str | None]:
    return {row.path: row.reason for row in plan.recordings if row.state != "planned"}


def warnings(plan: BucketPlan) -> dict[str, list[str]]:
    return {row.path: [one.kind for one in row.warnings] for row in plan.recordings if row.warnings}


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for the rounding of 16 bits."""
    return len(one) == len(other) and bool(np.abs(one - other).max() < 2e-4)


def encoded(audio: np.ndarray, kind: str = "FLAC") -> bytes:
    content = io.BytesIO()
    soundfile.write(content, audio, RATE, format=kind)
    return content.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
