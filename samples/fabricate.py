"""Small datasets and folders for tests and benchmarks, made of the sample recordings.

Clips, texts and languages are real; labels are such as `annotate` gives.
"""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from model.checkpoint import load_vae
from model.codec.latent_space import latent_space
from model.config import read_config
from pipelines.config import EncodeConfig
from pipelines.encode import write_latents_index
from pipelines.latents.buckets import EncodePlan
from pipelines.latents.units import encode_unit
from voxmill.core.audio import RATE_16K, Samples, decode, mono, resample
from voxmill.data.dataset import Dataset
from voxmill.data.layout import bucket_name, bucket_of, part_path
from voxmill.data.schemas import CLIPS, RECORDINGS, REJECTED, write_index
from voxmill.data.shards import TarWriter, to_json
from voxmill.data.snapshot import BucketFiles, PartFile, ShardFile, Snapshot, write_snapshot

SAMPLES = Path(__file__).resolve().parents[1] / "samples"

CHECKPOINT = Path(__file__).resolve().parents[1] / "tests" / "data" / "oracle" / "rel" / "ckpt"
ALL = ["basic", "continuation", "design", "reference", "controllable"]


def _description(axis: str, text: str, verdict: str) -> dict[str, Any]:
    claim = {"attribute": "pitch", "claimed": "low", "predicted": "low", "verdict": verdict, "probability": 0.9}
    return {
        "axis": axis,
        "granularity": "phrase",
        "language": "en",
        "text": text,
        "generator": "template",
        "facts": [{"attribute": "pitch", "word": "low"}],
        "verdicts": [claim],
        "recall": 1.0,
        "repaired": False,
    }


def _joined(turns: list[dict[str, Any]], sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Turns next to each other as one, so many together as `sizes` says over and over."""
    sizes_again = cycle(sizes)
    while turns:
        together, turns = turns[: (size := next(sizes_again))], turns[size:]
        text = " ".join(turn["text"] for turn in together)
        yield {"start": together[0]["start"], "end": together[-1]["end"], "text": text}


def rows(
    recordings: tuple[str, ...] = ("en-1", "fr-1"), clips_each: int = 4, joined: Sequence[int] = (1,)
) -> list[tuple[dict[str, Any], bytes]]:
    """Index rows without a place, and each clip's FLAC. Every clip can teach all modes; references are of its session.

    Args:
        joined: turns a clip, over and over; the pauses between them stay in.
    """
    truth = {
        Path(json.loads(line)["path"]).stem: json.loads(line)["turns"]
        for line in (SAMPLES / "truth.jsonl").read_text().splitlines()
    }
    made = []
    for name in recordings:
        audio, rate = soundfile.read(SAMPLES / "recordings" / f"{name}.flac", dtype="float32")
        turns = list(_joined(truth[name], joined))[:clips_each]
        ids = [f"{name.replace('-', '')}{number:04d}" for number in range(len(turns))]
        for number, turn in enumerate(turns):
            start, end = round(turn["start"] * rate), round(turn["end"] * rate)
            flac = io.BytesIO()
            soundfile.write(flac, audio[start:end], rate, format="FLAC")
            references = [{"clip_id": other, "similarity": 0.8} for k, other in enumerate(ids) if k != number]
            row = {
                "clip_id": ids[number],
                "recording_id": name,
                "session": name,
                "position": number,
                "start_sample": start,
                "end_sample": end,
                "sample_rate": rate,
                "duration": (end - start) / rate,
                "text": turn["text"],
                "language": name.split("-")[0],
                "origin": "native",
                "quality": {"dnsmos_ovr": 3.5},
                "references": references,
                "modes": ALL,
                "stages": [1, 2, 3],
                "descriptions": [
                    _description("design", "a low voice", "pass"),
                    _description("style", "slowly", "pass"),
                    _description("style", "in a guessed way", "abstain"),
                ],
                "stage_modes": [{"stage": 1, "modes": ALL[:2]}, {"stage": 2, "modes": ALL}, {"stage": 3, "modes": ALL}],
            }
            made.append((row, flac.getvalue()))
    return made


def write_dataset(folder: Path, made: list[tuple[dict[str, Any], bytes]], buckets: int = 1) -> Path:
    """Shards, indexes and `dataset.json` of these rows, a shard a session."""
    files, shards, index = [], dict[int, list[ShardFile]](), dict[int, list[dict[str, Any]]]()
    for session in dict.fromkeys(row["session"] for row, _ in made):
        mine = [(row, flac) for row, flac in made if row["session"] == session]
        bucket = bucket_of(session, buckets)
        below = "shards" if buckets == 1 else f"shards/{bucket_name(bucket)}"
        members = []
        with TarWriter(folder / below / f"clips-{session}.tar", named_by_content=True) as tar:
            for row, flac in mine:
                members.append(tar.add(f"{row['clip_id']}.flac", flac))
                tar.add(f"{row['clip_id']}.json", to_json({"clip_id": row["clip_id"], "text": row["text"]}))
        for (row, _), member in zip(mine, members, strict=True):
            where = {"shard": f"{below}/{tar.path.name}", "offset": member.offset, "size": member.size}
            index.setdefault(bucket, []).append(row | where | {"sha256": member.sha256})
        shard = ShardFile(name=f"{below}/{tar.path.name}", size=tar.size, sha256=tar.sha256, clips=len(mine))
        shards.setdefault(bucket, []).append(shard)
    for bucket in range(buckets):
        place = (bucket, buckets)
        files.append(
            BucketFiles(
                bucket=bucket,
                clips=_write_part(folder, "clips.parquet", *place, CLIPS, index.get(bucket, [])),
                rejected=_write_part(folder, "rejected.parquet", *place, REJECTED, []),
                recordings=_write_part(folder, "recordings.parquet", *place, RECORDINGS, []),
                shards=tuple(shards.get(bucket, ())),
            )
        )
    write_snapshot(folder, Snapshot(buckets=buckets, files=tuple(files)))
    return folder


def _write_part(
    folder: Path, index: str, bucket: int, buckets: int, schema: pa.Schema, rows: list[dict[str, Any]]
) -> PartFile:
    path = part_path(folder, index, bucket, buckets)
    write_index(path, schema, rows)
    return PartFile.of(path.read_bytes(), len(rows))


def add_latents(folder: Path, checkpoint: Path = CHECKPOINT, unit_seconds: float = 10.0) -> Path:
    """What `voxmill encode` does with the checkpoint's AudioVAE, without Ray."""
    settings = read_config(checkpoint)
    vae = load_vae(checkpoint, settings)
    config = EncodeConfig(unit_seconds=unit_seconds, progress=False)
    plan = EncodePlan(dataset=folder, latent_space=latent_space(vae), patch_size=settings.patch_size, config=config)
    units = [unit for part in plan.parts() for unit in plan.units(part)]
    for unit in units:
        encode_unit(unit, Dataset(folder), vae, patch_size=settings.patch_size, batch_seconds=config.batch_seconds)
    write_latents_index(plan, vae, settings, encoded=len(units), wall_seconds=0.0)
    return folder


def turns(recording: str, count: int) -> list[tuple[float, float, str]]:
    """(start, end, text) of the first turns of a recording, in seconds."""
    for line in (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["path"] == f"recordings/{recording}.flac":
            return [(turn["start"], turn["end"], turn["text"]) for turn in record["turns"][:count]]
    raise LookupError(recording)


def cut(recording: str, start: float, end: float, path: Path) -> Path:
    """Writes a part of a recording, from and to so many seconds and 0.2 s around it, as a WAV file."""
    samples_TC, rate = decode(SAMPLES / "recordings" / f"{recording}.flac")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples_TC[max(int((start - 0.2) * rate), 0) : int((end + 0.2) * rate)], rate)
    return path


def speech(name: str = "en-1", seconds: float = 3.0, start: float = 1.0, rate: int = RATE_16K) -> Samples:
    """Mono float32 [samples] of a sample recording at `rate` hertz, from `start` seconds on."""
    path = SAMPLES / "recordings" / f"{name}.flac"
    samples_TC, file_rate = decode(path, start=int(start * RATE_16K), length=int(seconds * RATE_16K))
    return resample(mono(samples_TC), file_rate, rate)


def make_folder(folder: Path) -> Path:
    """Audio files as a trainer meets them: four good ones of several rates and channels, eight kinds of bad ones."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "a.flac", speech("en-1"), 16000)
    soundfile.write(folder / "b.wav", speech("fr-1"), 16000)
    soundfile.write(folder / "c.wav", speech("it-1", rate=48000), 48000)
    channel = speech("es-1", rate=22050)
    soundfile.write(folder / "d.wav", np.stack([channel, channel], axis=1), 22050)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no audio\n" * 20)
    soundfile.write(folder / "short.wav", speech(seconds=0.1), 16000)
    soundfile.write(folder / "telex.wav", speech(rate=4000), 4000)
    soundfile.write(folder / "silence.wav", np.zeros(64000, dtype=np.float32), 16000)
    soundfile.write(folder / "nan.wav", np.full(64000, np.nan, dtype=np.float32), 16000, subtype="FLOAT")
    soundfile.write(folder / "cut.flac", speech("ru-1"), 16000)
    content = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 4])
    (folder / "notes.txt").write_text("not audio by its name, and not counted")
    return folder
