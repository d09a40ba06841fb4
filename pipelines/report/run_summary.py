"""What a finished run says of itself: one row an input, the models, what separation cost and spared."""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from pipelines.config import AnnotateConfig
from pipelines.corpus.collect import Gathered
from pipelines.corpus.describe import index_row
from pipelines.inputs.scan import Corpus, Scanned, recording_id_of


def clip(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the index holds it: the classes that were found, and descriptions as plain data."""
    voice = row["voice"]
    gender = voice.get("gender") or {}
    female = gender.get("female")
    sure = None if gender.get("label") is None or female is None else max(female, 1 - female)
    measured = voice.get("prosody") or {"error": ""}
    return row | {
        "prosody": None if "error" in measured else measured,
        "gender": {"label": gender.get("label"), "probability": sure, "reason": gender.get("reason")},
        "emotion": voice.get("emotion"),
        "age": voice.get("age"),
        "facts": [asdict(fact) for fact in row["facts"]],
        "descriptions": [index_row(description) for description in row.get("described", [])],
        "parents": [],
    }


def recordings(corpus: Corpus, found: Gathered) -> list[dict[str, Any]]:
    """One row an input with its one terminal state."""
    kept: dict[str, int] = {}
    for row in found.kept:
        kept[row["recording_id"]] = kept.get(row["recording_id"], 0) + 1
    return [_recording(item, corpus, found, kept) for item in corpus.scanned]


def _recording(item: Scanned, corpus: Corpus, found: Gathered, kept: dict[str, int]) -> dict[str, Any]:
    entry, info = item.entry, item.info
    row: dict[str, Any] = {
        "path": entry.name,
        "session": entry.session or entry.name,
        "licence": entry.licence,
        "num_clips": 0,
        "num_kept": 0,
        "recording_id": recording_id_of(item),
        "detail": "",
    }
    if info is None:
        assert item.problem is not None
        reason, detail = item.problem
        return row | {"state": "unreadable", "stage": "read", "reason": reason, "detail": detail}
    row |= {"duration": info["num_samples"] / info["sample_rate"], "detail": info["warning"] or ""}
    row |= {key: info[key] for key in ("sample_rate", "channels", "codec")}
    if entry.name in corpus.duplicates:
        return row | {
            "state": "duplicate",
            "stage": "read",
            "reason": "same_audio",
            "detail": corpus.duplicates[entry.name],
        }
    parts = found.parts[row["recording_id"]]
    row["num_clips"] = sum(len(part.get("clips", [])) for part in parts if "end" not in part)
    row["num_kept"] = kept.get(row["recording_id"], 0)
    separations = [part["separation"] for part in parts if "separation" in part]
    row["separated"] = any(s["used"] for s in separations)
    row["separation"] = separations[0]["why"] if separations else None
    if row["num_kept"]:
        return row | {"state": "kept", "stage": "write", "reason": "kept"}
    ends = [part["end"] for part in parts if "end" in part]
    if len(ends) == len(parts):
        end = ends[0]
        detail = "; ".join(filter(None, [row["detail"], end["detail"]]))
        return row | {
            "state": "rejected",
            **{k: end[k] for k in ("stage", "reason", "value", "threshold")},
            "detail": detail,
        }
    mine = [r for r in found.rejected if r["recording_id"] == row["recording_id"]]
    reasons: dict[str, int] = {}
    for clip in mine:
        reasons[clip["reason"]] = reasons.get(clip["reason"], 0) + 1
    worst = max(mine, key=lambda clip: (reasons[clip["reason"]], clip["reason"]))
    return (
        row
        | {"state": "rejected", "detail": f"all {len(mine)} clips dropped"}
        | {key: worst[key] for key in ("stage", "reason", "value", "threshold")}
    )


def separation_savings(found: Gathered, config: AnnotateConfig) -> dict[str, Any]:
    """How often separation ran and what running it only where needed saved."""
    rule = config.label.separation
    asked = spared = 0.0
    used = total = 0
    for parts in found.parts.values():
        for part in parts:
            if "separation" in part:
                seconds = (part["end_sample"] - part["start_sample"]) / part["sample_rate"]
                total += 1
                used += part["separation"]["used"]
                if part["separation"]["wanted"]:
                    asked += seconds
                else:
                    spared += seconds
    spent = found.stages.get("Separate", {}).get("seconds", 0.0)
    return {
        "mode": rule.mode,
        "rule": f"music over {rule.max_music_share:.0%} of the speech, or speech to background under {rule.min_snr_db} dB",
        "recordings_separated": used,
        "recordings_total": total,
        "seconds_spent": spent,
        "seconds_saved": spent / asked * spared if asked else None,
    }


def models(config: AnnotateConfig) -> list[dict[str, Any]]:
    from voxmill.core.assets import ASSETS, asset_sha256

    label = config.label
    named = [
        ("Listen", label.events.model, "audio-events"),
        ("Separate", label.separation.model, "spleeter-2stems"),
        ("Segment", label.segmentation.model, "pyannote-segmentation"),
        ("Transcribe", label.transcription.model, "whisper-base"),
    ]
    voices = config.voices
    named += [
        (name.title(), getattr(voices, name).model, asset)
        for name, asset in (("speaker", "speaker-campplus"), ("gender", "voice2gender"), ("emotion", ""), ("age", ""))
        if name in voices.labellers and getattr(voices, name).model
    ]
    writer = config.control.descriptions
    if "descriptions" in config.control.labels and writer.writer == "embedded":
        named.append(("Describe", writer.embedded.model, "smollm2-135m"))
    rows: list[dict[str, Any]] = []
    for stage, model, asset in named:
        if model == "embedded":
            known = ASSETS[asset]
            rows.append(
                {
                    "stage": stage,
                    "name": asset,
                    "source": known.source,
                    "sha256": asset_sha256(asset),
                    "licence": known.licence,
                }
            )
        else:
            rows.append({"stage": stage, "name": model, "source": model, "sha256": None, "licence": None})
    rows.append(
        {
            "stage": "Measure",
            "name": "DNSMOS",
            "source": f"speechmos {version('speechmos')}",
            "sha256": None,
            "licence": "MIT",
        }
    )
    return rows
