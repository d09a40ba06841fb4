"""What the engine costs: the main job beside the bare sum of its model calls, and one worker beside two.

    python benchmarks/pipeline.py [--repeats 3] [--minutes 30] [--folder DIR]

The corpus is the sample recordings at four speeds, each a different recording to the job. The bare process loads the
same models and calls them on the same units, one after another, without Ray and with the same settings of malloc;
decoding, writing, describing and reporting are not in its sum; they are in the job's wall time, that of its whole
process. All have the same two cores and a thread a model: the bare process, the job with one worker, with two. Where
every core works, Ray's own processes take their time from the models: one worker with all of Ray on one core is the
worst of that, and shown, too. Ray's start is not counted, nor that of the actors which Ray Data keeps for all jobs of a
cluster: each Ray has done a job of three seconds before. Turns are taken; medians are shown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from pydantic import JsonValue
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from samples.annotate_process import run_job  # noqa: E402
from voxmill.core.errors import JobError, UserError, command  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402
from voxmill.core.machine import malloc  # noqa: E402

SPEEDS = (1.0, 0.93, 1.07, 0.87)
# The stages with models, which a bare loop needs, too; the others are the engine's.
MODEL_STAGES = ("events", "separation", "segmentation", "transcription", "quality")
VOICES = "voice_attributes"


@dataclass(frozen=True, slots=True, kw_only=True)
class BareLoop:
    """Seconds of the process without Ray: loading models and imports, and the model calls."""

    loading: float
    calls: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One run of the job."""

    wall_seconds: float
    """Of the whole process, its start and the report included."""
    stages: dict[str, tuple[float, float]]
    """(busy seconds, seconds of audio) by stage, from `run.json`."""
    separation: JsonValue
    """How often separation ran, from `run.json`."""

    @classmethod
    def read(cls, out: Path, wall_seconds: float) -> "JobRun":
        """The run that wrote `out`."""
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        stages = {stage["name"]: (stage["seconds"], stage["audio_seconds"]) for stage in run["stages"]}
        return cls(wall_seconds=wall_seconds, stages=stages, separation=run["separation"])


def make_corpus(folder: Path, minutes: float | None) -> tuple[Path, float]:
    """Writes the sample recordings at every speed, up to `minutes` of audio; returns their folder and their hours."""
    import soxr

    folder.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    for speed in SPEEDS:
        for path in sorted((ROOT / "samples" / "recordings").glob("*.flac")):
            if minutes is not None and seconds >= minutes * 60:
                break
            samples, rate = soundfile.read(path, dtype="float32")
            changed = samples if speed == 1 else soxr.resample(samples, rate * speed, rate)
            soundfile.write(folder / f"{path.stem} x{speed}.flac", np.clip(changed, -1, 1), rate)
            seconds += len(changed) / rate
    return folder, seconds / 3600


def make_warm_up(folder: Path) -> Path:
    """Writes one short recording for the first job of a Ray, and returns its folder."""
    samples, rate = soundfile.read(sorted((ROOT / "samples" / "recordings").glob("*.flac"))[0], dtype="float32")
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "short.flac", samples[: 3 * rate], rate)
    return folder


def bare(source: Path, folder: Path) -> BareLoop:
    """Loads every stage in this process and runs all units through, timing loading (imports too) and calls apart."""
    clock = time.perf_counter()
    from pipelines.config import AnnotateConfig
    from pipelines.engine.pools import STAGES
    from pipelines.inputs.bucket_rows import plan_bucket, plan_rows
    from pipelines.inputs.manifest import read_inputs
    from pipelines.inputs.scan import Scan, ScanOptions, scan_entry
    from pipelines.stages.base import StageContext, WindowAudio
    from pipelines.stages.voice_attributes import load_labellers
    from voxmill.core.audio import RATE_16K, resample
    from voxmill.data.schemas import to_table

    importing = time.perf_counter() - clock
    config = AnnotateConfig()
    entries = list(read_inputs(str(source)))
    scans = to_table([scan_entry(entry, ScanOptions()) for entry in entries], Scan)
    units = plan_bucket(plan_rows(0, entries, scans), {}, config.label, 0).units
    clock = time.perf_counter()
    context = StageContext(
        out=folder, label=config.label, voice_attributes=config.voice_attributes, threads=1, device="cpu"
    )
    stages = [stage(context) for stage in STAGES if stage.name in ("decode", *MODEL_STAGES)]
    labellers = load_labellers(context, networks=True) | load_labellers(context, networks=False)
    loading = importing + time.perf_counter() - clock
    seconds = dict.fromkeys((*MODEL_STAGES, VOICES), 0.0)
    for unit in units:
        audio = tuple(WindowAudio() for _ in unit.results)
        for stage in stages:
            clock = time.perf_counter()
            output = stage.run(unit, audio)
            unit, audio = output.unit, output.audio
            if stage.name in seconds:
                seconds[stage.name] += time.perf_counter() - clock
        for result, sound in zip(unit.results, audio, strict=True):
            for clip, piece in zip(result.clips, sound.clips, strict=True):
                samples = resample(piece, result.window.sample_rate, RATE_16K)
                clock = time.perf_counter()
                for label in labellers.values():
                    label([(clip, samples)])
                seconds[VOICES] += time.perf_counter() - clock
    return BareLoop(loading=loading, calls=sum(seconds.values()))


def bare_process(source: Path, folder: Path) -> BareLoop:
    """`bare` in a fresh process with one thread."""
    child = [sys.executable, str(Path(__file__).resolve()), "--bare", str(source), "--folder", str(folder)]
    environment = os.environ | malloc.KEEP_FREED_MEMORY_ENV | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(child, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise JobError(f"the bare loop failed: {done.stderr[-2000:]}")
    return BareLoop(**json.loads(done.stdout.splitlines()[-1]))


def job(source: Path, warm_up: Path, out: Path, workers: int, cores: set[int]) -> JobRun:
    """The job on a Ray that has these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    # Ray lowers its workers' priority; the bare loop runs at the usual one.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
    try:
        with local_ray(num_cpus=len(cores)) as address:
            run_job(warm_up, out.with_name(f"{out.name}-before"), address, f"run.workers={workers}")
            clock = time.perf_counter()
            run_job(source, out, address, f"run.workers={workers}")
            seconds = time.perf_counter() - clock
    finally:
        os.sched_setaffinity(0, before)
    return JobRun.read(out, seconds)


@command("benchmarks/pipeline.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=None, help="of audio (default: all, 30.8)")
    parser.add_argument("--folder", type=Path, default=None, help="where the datasets are made (default: temporary)")
    parser.add_argument("--bare", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="voxmill-pipeline-"))
    if arguments.bare is not None:
        print(json.dumps(asdict(bare(arguments.bare, folder))))
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UserError("this benchmark needs two cores; run it on a machine with more")
    source, hours = make_corpus(folder / "in", arguments.minutes)
    warm_up = make_warm_up(folder / "short")
    loops, ones, twos, alone = [], [], [], []
    for turn in range(arguments.repeats):
        loops.append(bare_process(source, folder / f"bare-{turn}"))
        ones.append(job(source, warm_up, folder / f"one-{turn}", 1, set(cores[:2])))
        twos.append(job(source, warm_up, folder / f"two-{turn}", 2, set(cores[:2])))
        alone.append(job(source, warm_up, folder / f"alone-{turn}", 1, {cores[0]}))
        walls = ", ".join(f"{runs[-1].wall_seconds:.0f}" for runs in (ones, twos, alone))
        bare_seconds = loops[-1].loading + loops[-1].calls
        print(f"turn {turn + 1}: bare {bare_seconds:.0f} s; one worker, two, one on one core {walls} s", flush=True)

    def ratio(above: list[float], below: list[float]) -> float:
        return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)

    def walls_of(runs: list[JobRun]) -> list[float]:
        return [run.wall_seconds for run in runs]

    sums = [loop.loading + loop.calls for loop in loops]
    loading = statistics.median(loop.loading for loop in loops)
    calls = statistics.median(loop.calls for loop in loops)
    one, two, single = (statistics.median(walls_of(runs)) for runs in (ones, twos, alone))
    rows = [
        ["models loaded", f"{loading:.1f} s", ""],
        ["model calls", f"{calls:.1f} s", f"{hours * 3600 / calls:.2f}"],
        ["the job, 1 worker", f"{one:.1f} s", ""],
        ["the job, 2 workers", f"{two:.1f} s", f"{hours * 3600 / two / 2:.2f}"],
        ["the job, 1 worker and Ray on one core", f"{single:.1f} s", f"{hours * 3600 / single:.2f}"],
    ]
    headings = ["what", "wall time", "audio hours a core hour"]
    console = Console(width=110)
    console.print(table(f"{hours * 60:.1f} minutes of audio, {arguments.repeats} turns", headings, rows))
    spent = ones[-1].stages
    rows = [
        [name, f"{seconds:.1f} s", f"{audio / seconds:.1f}" if seconds else "-"]
        for name, (seconds, audio) in spent.items()
    ]
    console.print(table("stages of the job, 1 worker", ["stage", "busy", "audio hours a core hour"], rows))
    print(f"conditional separation: {json.dumps(ones[-1].separation)}")
    result = {
        "overhead": ratio(walls_of(ones), sums),
        "overhead_without_loading": ratio(walls_of(ones), [loop.calls for loop in loops]),
        "overhead_on_one_core": ratio(walls_of(alone), sums),
        "speedup_2_workers": ratio(walls_of(ones), walls_of(twos)),
        "speedup_from_one_core_to_two": ratio(walls_of(alone), walls_of(twos)),
        "audio_hours_per_core_hour": round(hours * 3600 / two / 2, 3),
        "audio_hours_per_core_hour_by_stage": {
            name: round(audio / seconds, 2) for name, (seconds, audio) in spent.items() if seconds
        },
        "separation": ones[-1].separation,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
