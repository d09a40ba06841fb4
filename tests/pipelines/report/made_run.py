"""A small but real output folder of a run: FLAC in tars, hostile names, clips kept and lost."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from voxmill.data.schemas import CLIPS, RECORDINGS, REJECTED, write_index

HOSTILE = "<script>alert(1)</script>"
EVIL_PATH = 'in/two\nlines "quoted" \u202egnp.exe 🎙️ <img src=x onerror=alert(2)>.wav'
RATE = 24_000
KNOWN = {"label": "zh-yue", "probability": 0.9, "reason": ""}
UNKNOWN = {"label": None, "probability": None, "reason": "no_model"}

LOST = (
    ("transcription", "characters_per_second", 31.0, 25.0),
    ("quality", "dnsmos_ovr", 2.3, 3.0),
    ("quality", "dnsmos_ovr", 2.9, 3.0),
    ("quality", "snr_db", 6.0, 15.0),
    ("quality", HOSTILE, None, None),
)
TEXTS = (
    HOSTILE,
    "We left before the rain came.",
    "مرحبا بكم في هذا التسجيل",
    "今天天气很好，我们去散步吧。",
    "Guten Morgen, wie geht es?",
)


def flac(seconds: float, rng: np.random.Generator, noise: float) -> bytes:
    time = np.arange(int(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (180 + 120 * np.sin(time)) * time) * (0.6 + 0.4 * np.sin(9 * time))
    packed = io.BytesIO()
    soundfile.write(packed, np.clip(tone + noise * rng.standard_normal(len(time)), -1, 1), RATE, format="FLAC")
    return packed.getvalue()


def _clips(out: Path, shard: str, count: int, rng: np.random.Generator, *, dropped: bool) -> list[dict[str, Any]]:
    """Rows of clips whose FLAC lies in a tar of their own."""
    made = []
    with tarfile.open(out / shard, "w") as tar:
        for i in range(count):
            seconds = 17.0 if i == 0 else float(rng.uniform(1.5, 5.0))
            data, clip = flac(seconds, rng, 0.2 if dropped else 0.01), f"rec{i % 3:02d}-{i:05d}"
            for ending, content in (("flac", data), ("json", json.dumps({"text": "x"}).encode())):
                info = tarfile.TarInfo(f"{clip}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            good = 2.3 if dropped else 3.4
            quality = {
                "dnsmos_ovr": rng.normal(good, 0.2),
                "snr_db": rng.normal(good * 8, 4),
                "bandwidth_hz": rng.normal(9e3, 1e3),
            }
            row = {
                "clip_id": clip,
                "recording_id": f"rec{i % 3:02d}",
                "path": f"in/talk-{i % 3}.mp3",
                "position": i,
                "start_sample": i * 5 * RATE,
                "sample_rate": RATE,
                "duration": seconds,
                "text": TEXTS[i % len(TEXTS)],
                "words": [],
                "language": ("en", "en", "ar", "zh", "de")[i % 5],
                "language_probability": 0.97,
                "speaker": f"s{i % 4}",
                "origin": "separated" if i % 6 == 0 else "native",
                "quality": quality,
                "transcript": {"characters_per_second": rng.normal(22 if dropped else 14, 3)},
                "predicted_wer": float(rng.uniform(0.3, 1.1) if dropped else rng.uniform(0.02, 0.3)),
                "dialect": (None, None, None, KNOWN, None, None, None, None, UNKNOWN, None)[i % 10],
                "singing_share": 0.9 if i % 10 == 4 else 0.0,
                "style": {"label": "song", "probability": None, "reason": ""} if i % 10 == 4 else None,
                "licence": "CC-BY-4.0" if i % 4 else "a|b\n<i>",
                "shard": shard,
                "size": len(data),
            }
            if dropped:
                stage, reason, value, threshold = LOST[i % len(LOST)]
                row |= {"stage": stage, "reason": reason, "value": value, "threshold": threshold}
            made.append(row)
    with tarfile.open(out / shard) as tar:
        offsets = [member.offset_data for member in tar if member.name.endswith(".flac")]
    return [row | {"offset": offset} for row, offset in zip(made, offsets, strict=True)]


def _recordings() -> list[dict[str, Any]]:
    recordings: list[dict[str, Any]] = [
        {
            "recording_id": f"rec{i:02d}",
            "path": f"in/talk-{i}.mp3",
            "state": "kept",
            "duration": 900.0 + i,
            "num_clips": 20,
            "num_kept": 13,
            "licence": "CC-BY-4.0",
        }
        for i in range(3)
    ]
    recordings[1] |= {
        "state": "kept_in_part",
        "warnings": [{"kind": "timestamp_hole", "detail": HOSTILE}],
        "seconds_lost": 31.0,
        "ended_windows": [
            {"start": 60.0, "end": 91.0, "stage": "segmentation", "reason": "overlapped_speech", "detail": ""},
            {"start": 91.0, "end": 95.0, "stage": "events", "reason": "no_speech", "channel": 1, "detail": ""},
        ],
    }
    recordings += [
        {"path": EVIL_PATH, "state": "unreadable", "stage": "decode", "reason": "no audio stream", "detail": HOSTILE},
        {
            "path": "in/تسجيل.wav",
            "state": "rejected",
            "stage": "events",
            "reason": "too little speech",
            "value": 0.04,
            "threshold": 0.1,
            "duration": 61.0,
            "num_clips": 0,
            "num_kept": 0,
        },
        {
            "path": "in/talk-0-copy.mp3",
            "state": "duplicate",
            "reason": "same audio",
            "detail": "in/talk-0.mp3",
            "duration": 900.0,
        },
    ]
    return recordings


def _run() -> dict[str, Any]:
    """`run.json`."""
    names = ("decode", "events", "separation", "segmentation", "transcription", "quality", "prosody")
    return {
        "config": {
            "seed": 7,
            "select": {
                "min_dnsmos_ovr": 3.0,
                "min_snr_db": 15,
                "max_characters_per_second": 25,
                "min_seconds": 1.0,
                "max_predicted_wer": 0.3,
                "max_seconds": 300.0,
                "max_snr_db": 500.0,
                "min_bandwidth_hz": 8000.0,
                "note": HOSTILE,
            },
        },
        "versions": {"torch": "2.11.0", HOSTILE: "1"},
        "models": [
            {
                "stage": "transcription",
                "name": "large-v3",
                "source": "Systran/faster-whisper-large-v3",
                "sha256": "ab" * 32,
                "licence": "MIT",
            },
            {"stage": "quality", "name": HOSTILE, "source": "speechmos", "sha256": None, "licence": None},
        ],
        "stages": [
            {"name": name, "seconds": 2.0 + 9 * i, "audio_seconds": 420.0 - 30 * i, "calls": 6}
            for i, name in enumerate(names)
        ],
        "other_files": {"count": 7, "examples": [HOSTILE, "notes.txt"]},
        "trust": {
            "recogniser": HOSTILE,
            "fit": "shipped",
            "date": "2026-11-27",
            "recordings": HOSTILE,
            "fitted_clips": 700,
            "fitted_voices": ["a-en", HOSTILE],
            "tried_clips": 300,
            "tried_voices": ["b-fr"],
            "fifths": [{"clips": 60, "predicted": 0.2 * i, "true": 0.2 * i + 0.03} for i in range(5)],
        },
        "separation": {
            "mode": "auto",
            "rule": "music_share > 0.05",
            "recordings_separated": 1,
            "recordings_total": 4,
            "seconds_spent": 20.0,
            "seconds_saved": 60.0,
        },
        "second_decodings": {
            "clips": 64,
            "twice": 5,
            "why": {"language": 3, "cut_short+doubt": 2},
            "seconds_spent": 6.0,
            "seconds_of_all": 38.0,
        },
        "found_done": 2,
        "started": "2025-01-02T03:04:05Z",
        "finished": "2025-01-02T03:08:05Z",
        "wall_seconds": 240.0,
        "seed": 7,
    }


def make_out(out: Path, kept: int = 40, lost: int = 24) -> Path:
    """A run's output folder as the annotation job leaves it."""
    rng = np.random.default_rng(7)
    (out / "shards").mkdir(parents=True)
    (out / "work").mkdir()

    lost_rows = _clips(out, "work/rejected-000.tar", lost, rng, dropped=True)
    if len(lost_rows) > 9:
        lost_rows[4] |= {"shard": None, "offset": None, "size": None}
        lost_rows[9] |= {"shard": "work/swept.tar"}
    kept_rows = _clips(out, "shards/clips-000000.tar", kept, rng, dropped=False)
    write_index(out / "clips.parquet", CLIPS, kept_rows)
    write_index(out / "rejected.parquet", REJECTED, lost_rows)
    write_index(out / "recordings.parquet", RECORDINGS, _recordings())
    (out / "run.json").write_text(json.dumps(_run()), encoding="utf-8")
    return out
