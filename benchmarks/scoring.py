"""How fast clips are scored (transcript, SIM, DNSMOS): the first time, again, and by 1 and 2 Ray workers.

    python benchmarks/scoring.py [CLIPS]

Clips are the turns of the sample recordings, each with another of its recording as reference. Cold includes loading the
models, as a user waits for it; warm is the same call with the cache that the first one left. The rows of all runs are
compared. Last line: JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from evaluation.benchmarks.benchmark import Utterance  # noqa: E402
from evaluation.metrics.score_cache import ScoreCache  # noqa: E402
from evaluation.metrics.scoring import ScoringConfig, Work, in_process, on_ray, score_outputs  # noqa: E402
from evaluation.metrics.utterance_score import UtteranceScore  # noqa: E402
from evaluation.systems.base import SystemOutput  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402
from voxmill.core.local_ray import environment, local_ray  # noqa: E402

CONFIG = ScoringConfig()


def clips(folder: Path, count: int) -> list[SystemOutput]:
    """Turns of all recordings of one speaker, as wavs."""
    outputs: list[SystemOutput] = []
    for line in (ROOT / "samples" / "truth.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        path = ROOT / "samples" / record["path"]
        if not record["turns"] or path.stem in ("two-at-once", "en-music"):
            continue
        samples, rate = soundfile.read(path, dtype="float32")
        reference = folder / f"{path.stem}-0.wav"
        for number, turn in enumerate(record["turns"]):
            wav = folder / f"{path.stem}-{number}.wav"
            soundfile.write(wav, samples[int(turn["start"] * rate) : int((turn["end"] + 0.3) * rate)], rate)
            language = path.stem.split("-")[0]
            outputs.append(
                SystemOutput(utterance=Utterance(wav.stem, turn["text"], language, language, reference), wav=wav)
            )
    return outputs[:: max(len(outputs) // count, 1)][:count]


def timed(outputs: list[SystemOutput], cache: Path, work: Work) -> tuple[list[UtteranceScore], float]:
    """(scores, seconds) of one scoring."""
    store = ScoreCache(cache)
    started = time.perf_counter()
    scores = score_outputs(outputs, "texts", CONFIG, store, work)
    seconds = time.perf_counter() - started
    store.close()
    return scores, seconds


@command("benchmarks/scoring.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=int, nargs="?", default=40, help="how many")
    count = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        outputs = clips(folder, count)
        rows, cold = timed(outputs, folder / "one.sqlite", in_process(CONFIG))
        again, warm = timed(outputs, folder / "one.sqlite", in_process(CONFIG))
        runs = {"cold, this process": (rows, cold), "warm": (again, warm)}
        with local_ray(num_cpus=2) as address:
            # Ray reads how to authenticate when it is imported.
            os.environ.update(environment())
            import ray

            ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
            for workers in (1, 2):
                name = f"cold, {workers} Ray worker{'s' * (workers > 1)}"
                runs[name] = timed(outputs, folder / f"ray-{workers}.sqlite", on_ray(CONFIG, workers))
            ray.shutdown()
    same = all(scores == rows for scores, _ in runs.values())
    lines = [[name, f"{seconds:.2f}", f"{len(outputs) / seconds:.2f}"] for name, (_, seconds) in runs.items()]
    Console().print(table(f"{len(outputs)} clips", ["run", "seconds", "utterances/s"], lines))
    one, two = (runs[f"cold, {name}"][1] for name in ("1 Ray worker", "2 Ray workers"))
    result = {"clips": len(outputs), "same_rows": same, "ray_2_over_1": one / two, "warm_over_cold": cold / warm}
    print(json.dumps({key: round(v, 2) if isinstance(v, float) else v for key, v in result.items()}))
    if not same:
        raise JobError("the runs differ in their rows")


if __name__ == "__main__":
    sys.exit(main())
