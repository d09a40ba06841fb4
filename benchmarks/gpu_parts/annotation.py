"""The labelling graph of `annotate` over copies of the sample recordings, on this machine's GPU or its CPUs alone."""

import argparse
import itertools
import json
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from benchmarks.gpu_parts.processes import Found, take_turn  # noqa: E402
from pipelines.annotate import label  # noqa: E402
from pipelines.config import AnnotateConfig  # noqa: E402
from pipelines.inputs.planning import open_inputs, plan_corpus  # noqa: E402
from pipelines.units.label_store import LabelStore  # noqa: E402
from pipelines.units.plan_files import planned_buckets, read_units  # noqa: E402
from pipelines.units.store import read_unit, unit_path  # noqa: E402
from voxmill.core.audio import decode, encode_flac, mono  # noqa: E402
from voxmill.core.config import load_config  # noqa: E402
from voxmill.core.local_ray import join_ray  # noqa: E402
from voxmill.core.progress import Progress  # noqa: E402
from voxmill.data.records import StageName  # noqa: E402

# Spleeter's 118 MB would be loaded for one recording in ten.
WITH_MUSIC = ("music", "en-music")
OVERRIDES = {
    "cuda": ["label.transcription.compute_type=float16", "label.transcription.batch_seconds=960"],
    "cpu": ["run.gpus=0"],
}
ON_THE_GPU = (StageName.SEPARATION, StageName.SEGMENTATION, StageName.TRANSCRIPTION, StageName.SPEAKER)


def write_copies(folder: Path, hours: float) -> float:
    """Copies of the sample recordings until there are so many hours; returns the hours.

    Each copy has a loudness and a beginning of its own, so that no two are equal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sounds = []
    for path in sorted((ROOT / "samples" / "recordings").glob("*.flac")):
        if path.stem not in WITH_MUSIC:
            samples_TC, rate = decode(path)
            sounds.append((path.stem, mono(samples_TC), rate))
    seconds = 0.0
    for number in itertools.count():
        for name, samples_T, rate in sounds:
            if seconds >= hours * 3600:
                return seconds / 3600
            copy_T = np.roll(samples_T, 97 * number) * np.float32(0.999**number)
            (folder / f"{name}-{number:03}.flac").write_bytes(encode_flac(copy_T, rate))
            seconds += len(copy_T) / rate
    raise AssertionError("not reached")


@dataclass(frozen=True, slots=True)
class Moment:
    """What the driver of the GPU says at a moment: share of the last instants in which a kernel ran, and memory."""

    time: float
    busy: float
    gigabytes: float


class GpuWatch(threading.Thread):
    """Asks the GPU's driver ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        import pynvml

        pynvml.nvmlInit()
        self._nvml, self._gpu = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        self.moments: list[Moment] = []

    def run(self) -> None:
        while True:
            busy = self._nvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu / 100
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._gpu).used / 1e9
            self.moments.append(Moment(time.time(), busy, memory))
            time.sleep(0.1)


class Results:
    """Work units of an OUT by the times at which their files were written."""

    def __init__(self, out: Path, config: AnnotateConfig) -> None:
        self.out, self.config = out, config
        self.units = [unit for bucket in planned_buckets(out) for unit in read_units(out, bucket, config.label)]

    def finished(self) -> list[tuple[float, float]]:
        """(time, seconds of audio) of the finished units, in order."""
        paths = [(unit_path(self.out, unit.bucket, unit.unit_id), unit.seconds) for unit in self.units]
        return sorted((path.stat().st_mtime, seconds) for path, seconds in paths if path.exists())

    def stage_seconds(self) -> dict[StageName, float]:
        """Seconds that each stage and labeller took over the finished units, of all processes together."""
        total: dict[StageName, float] = {}
        store = LabelStore(self.out, self.config.voice_attributes)
        for unit in self.units:
            path = unit_path(self.out, unit.bucket, unit.unit_id)
            if path.exists():
                costs = read_unit(path).unit.costs | store.read(unit.bucket, unit.unit_id)[1]
                for name, cost in costs.items():
                    total[name] = total.get(name, 0.0) + cost.seconds
        return total


def rates(began: float, finished: list[tuple[float, float]], watch: GpuWatch | None) -> Found:
    """Audio hours an hour, over all and without beginning and end; what the GPU did meanwhile.

    Without beginning and end: between the first and the last tenth of the audio.
    """
    if not finished:
        return {"units": 0}
    seconds = np.cumsum([audio for _, audio in finished])
    found: Found = {
        "units": len(finished),
        "audio_hours": round(seconds[-1] / 3600, 3),
        "wall_s": round(finished[-1][0] - began, 1),
        "first_unit_s": round(finished[0][0] - began, 1),
        "hours_an_hour": round(seconds[-1] / (finished[-1][0] - began), 1),
    }
    first, last = (int(np.searchsorted(seconds, share * seconds[-1])) for share in (0.1, 0.9))
    if last > first:
        start, end = finished[first][0], finished[last][0]
        found["steady_hours_an_hour"] = round((seconds[last] - seconds[first]) / max(end - start, 1e-3), 1)
        if watch is not None:
            moments = [moment for moment in watch.moments if start <= moment.time <= end]
            working = [moment.busy for moment in watch.moments if moment.time >= began]
            busy_until = max((m.time for m in watch.moments if m.busy > 0), default=began)
            models = [m for m in watch.moments if m.time <= busy_until and m.time >= began]
            while models and models[0].busy == 0:
                models.pop(0)
            found |= {
                "gpu_busy": round(statistics.fmean(moment.busy for moment in moments), 3) if moments else None,
                "gpu_busy_while_models_work": round(statistics.fmean(m.busy for m in models), 3) if models else None,
                "gpu_busy_of_all": round(statistics.fmean(working), 3) if working else None,
                "gpu_memory_gb": round(max((m.gigabytes for m in watch.moments), default=0.0), 1),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, required=True, help="for the copies and OUT")
    parser.add_argument("overrides", nargs="*", help="key=value of the recipe")
    arguments = parser.parse_args()
    device, folder = arguments.device, arguments.folder
    voices = "voice_attributes.labellers=[prosody, speaker, gender]"  # no embedded model for the others
    # Two hours in the half hours that are usual with GPUs would be four units for all CPUs.
    always = ["label.unit_seconds=120", voices, "run.progress=false"]
    config = load_config(AnnotateConfig, None, [*OVERRIDES[device], *always, *arguments.overrides])
    hours = [0.0]

    def get_ready() -> None:
        hours[0] = write_copies(folder / "in", arguments.hours)
        join_ray()

    def work() -> Found:
        out, progress, found = folder / "out", Progress(enabled=False), Found(device=device)
        clock = time.perf_counter()
        plan_corpus(open_inputs(str(folder / "in")), out, config, progress)
        found |= {"given_hours": round(hours[0], 3), "scan_s": round(time.perf_counter() - clock, 1)}
        results = Results(out, config)
        watch = GpuWatch() if device == "cuda" else None
        if watch is not None:
            watch.start()
        began = time.time()

        def report() -> None:
            while True:
                time.sleep(10)
                so_far = found | {"so_far_s": round(time.time() - began)} | rates(began, results.finished(), watch)
                print(json.dumps(so_far), file=sys.stderr, flush=True)

        threading.Thread(target=report, daemon=True).start()
        labelled = label(out, config, progress, planned_buckets(out))
        assert labelled.found_done == 0 and labelled.units == len(results.finished())
        found |= rates(began, results.finished(), watch)
        stages = {str(name): round(seconds, 1) for name, seconds in results.stage_seconds().items()}
        models = sum(seconds for name, seconds in stages.items() if name in ON_THE_GPU)
        found |= {"stage_s": stages, "models_s": round(models, 1)}
        found["models_alone_hours_an_hour"] = round(found["audio_hours"] * 3600 / max(models, 1e-3), 1)
        return found

    take_turn(get_ready, work)


if __name__ == "__main__":
    main()
