"""The memory that a worker needs for one very long recording.

    python benchmarks/long_file.py [--hours 6] [--speech-minutes 30] [--rate 48000] [--folder DIR]

The file is made: the sample recordings over and over for `--speech-minutes`, then faint noise up to `--hours`. Whole
windows of speech need the most, and one window is in memory at a time, so that the rest costs time only.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from samples.annotate_process import finish_job, start_job  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402


def make_recording(path: Path, hours: float, speech_minutes: float, rate: int) -> None:
    """Writes the long recording as FLAC, a minute of it in memory at a time."""
    import soxr

    recordings = []
    for name in sorted((ROOT / "samples" / "recordings").glob("*.flac")):
        samples, native = soundfile.read(name, dtype="float32")
        recordings.append(samples if native == rate else soxr.resample(samples, native, rate))
    speech = np.concatenate(recordings)
    noise = np.random.default_rng(0).standard_normal(60 * rate).astype(np.float32) * 1e-4
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate, 1, format="FLAC", subtype="PCM_16") as file:
        for minute in range(round(hours * 60)):
            if minute < speech_minutes:
                file.write(np.take(speech, np.arange(minute * 60 * rate, (minute + 1) * 60 * rate), mode="wrap"))
            else:
                file.write(noise)


@command("benchmarks/long_file.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--speech-minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=48000)
    parser.add_argument("--folder", type=Path, default=None, help="where the dataset is made (default: temporary)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="voxmill-long-"))
    source = folder / "in" / "long.flac"
    make_recording(source, arguments.hours, arguments.speech_minutes, arguments.rate)
    peaks: dict[str, int] = {}
    with local_ray(num_cpus=max(os.cpu_count() or 1, 2)) as address:
        began = time.monotonic()
        job = start_job(source.parent, folder / "out", address, "run.workers=1")
        while job.poll() is None:
            for process in psutil.Process().children(recursive=True):
                try:
                    title = " ".join(process.cmdline())
                    if process.pid == job.pid or title.startswith(("ray::MapWorker", "ray::scan_recording")):
                        name = "driver" if process.pid == job.pid else title.removeprefix("ray::").split("(")[0].strip()
                        peaks[name] = max(peaks.get(name, 0), process.memory_info().rss)
                except psutil.Error:
                    continue
            time.sleep(0.2)
        finish_job(job, folder / "out")
        seconds = time.monotonic() - began
    run = json.loads((folder / "out" / "run.json").read_text())
    rows = [[name, f"{peak / 1e9:.2f} GB"] for name, peak in sorted(peaks.items())]
    title = f"{run['hours_in']:.2f} h in one file at {arguments.rate} Hz, {seconds:.0f} s, {run['kept']} clips"
    Console().print(table(title, ["process", "peak resident memory"], rows))
    result = {
        "hours": round(run["hours_in"], 3),
        "seconds": round(seconds),
        "kept": run["kept"],
        "peak_gb": {name: round(peak / 1e9, 3) for name, peak in sorted(peaks.items())},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
