"""NeMo Curator's own resume after its driver is killed with -9: questions and corpus are those of `audit.py`.

    python -m venv V; V/bin/pip install torch==2.13.0  # a CPU build
    V/bin/pip install "ray[data,default]==2.60.0" faster-whisper soundfile soxr lmdb loguru hydra-core omegaconf \\
        fsspec pandas pyarrow absl-py "transformers>=4.57.6,<5" attrs cattrs obstore tabulate portpicker
    V/bin/pip install --no-deps nemo-curator==1.4.0 cosmos-xenna==0.2.0
    python benchmarks/peer/curator_resume.py --python V/bin/python [--kills 5] [--seed 0] [--executor xenna|ray_data]

Their ManifestReader, one stage that decodes with their loader and transcribes with the embedded Whisper base, a writer
of theirs; `Pipeline.run(checkpoint_path=...)` on a Ray that outlives the driver, as their guide to resumable processing
asks. Every recording has a manifest of its own: a source partition, the finest grain at which they resume. Three ways
to write, each killed `--kills` times; the last line has the numbers of the last way, that of a careful user:

    manifest  ManifestWriterStage, the audio writer of their tutorials: one file
    jsonl     AudioToDocumentStage, then JsonlWriter: the way of their audio README
    named     JsonlWriter, behind an added stage that passes on the metadata from which it names its files
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from voxmill.core.errors import JobError, UserError, command  # noqa: E402
from voxmill.core.local_ray import environment, local_ray  # noqa: E402

WRITERS = ("manifest", "jsonl", "named")
# What Ray may believe in: their stages, one worker each, ask for 4.5 processors. Only one of them works hard.
PROCESSORS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One run of their pipeline: paths, and the names of its executor and writer."""

    manifests: str
    model: str
    executor: str
    writer: str
    rows: str = ""
    checkpoint: str = ""
    calls: str = ""


@dataclass
class Counts:
    """One writer's datasets after all kills."""

    kills: int = 0
    datasets: int = 0
    lost: int = 0
    repeated: int = 0
    same_bytes: bool = True
    same_bytes_left_alone: bool = True
    same_rows: bool = True
    model_calls: int = 0
    model_calls_repeated: int = 0


def run_pipeline(spec: Spec) -> None:
    """Their pipeline; runs in their environment."""
    from nemo_curator.backends.ray_data import RayDataExecutor
    from nemo_curator.backends.xenna import XennaExecutor
    from nemo_curator.pipeline import Pipeline
    from nemo_curator.stages.audio.common import ManifestReader, ManifestWriterStage, load_audio_file
    from nemo_curator.stages.audio.io.convert import AudioToDocumentStage
    from nemo_curator.stages.base import ProcessingStage
    from nemo_curator.stages.text.io.writer import JsonlWriter
    from nemo_curator.tasks import DocumentBatch

    class TranscribeStage(ProcessingStage):  # type: ignore[misc]
        name = "transcribe"

        def num_workers(self) -> int:
            return 1

        def setup(self, worker_metadata: Any = None) -> None:
            from faster_whisper import WhisperModel

            self.model = WhisperModel(spec.model, device="cpu", compute_type="int8", cpu_threads=1)

        def process(self, task: Any) -> Any:
            import numpy as np
            import soxr

            waveform, rate = load_audio_file(task.data["audio_filepath"])
            audio = soxr.resample(np.nan_to_num(waveform[0].numpy()), rate, 16000)
            with open(spec.calls, "ab", buffering=0) as file:
                file.write((json.dumps(task.data["name"]) + "\n").encode())
            segments, _ = self.model.transcribe(audio, beam_size=1, temperature=0.0, without_timestamps=True)
            task.data["text"] = "".join(segment.text for segment in segments).strip()
            return task

    class NamedDocumentStage(ProcessingStage):  # type: ignore[misc]
        name = "named_document"

        def num_workers(self) -> int:
            return 1

        def process(self, task: Any) -> Any:
            import pandas as pd

            data = pd.DataFrame([dict(task.data)])
            return DocumentBatch(data=data, dataset_name=task.dataset_name, _metadata=task._metadata)

    pipeline = Pipeline(name="resume")
    pipeline.add_stage(ManifestReader(manifest_path=spec.manifests, files_per_partition=1))
    pipeline.add_stage(TranscribeStage())
    if spec.writer == "manifest":
        pipeline.add_stage(ManifestWriterStage(output_path=spec.rows + "/rows.jsonl"))
    else:
        # In batches of one, or it makes one document of many sources and their resume counts none of them as done.
        by_uuid = spec.writer == "jsonl"
        pipeline.add_stage(AudioToDocumentStage().with_(batch_size=1) if by_uuid else NamedDocumentStage())
        pipeline.add_stage(JsonlWriter(path=spec.rows))
    executor = XennaExecutor() if spec.executor == "xenna" else RayDataExecutor()
    pipeline.run(executor, checkpoint_path=spec.checkpoint)


def start(python: str, spec: Spec, folder: Path, address: str) -> subprocess.Popen[bytes]:
    """The same command each time for a dataset in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {key: str(folder / key) for key in ("rows", "checkpoint", "calls")}
    (folder / "spec.json").write_text(json.dumps(asdict(replace(spec, **places))))
    child = [python, str(Path(__file__).resolve()), "--pipeline", str(folder / "spec.json")]
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(child, env=environment() | {"RAY_ADDRESS": address}, stdout=log, stderr=log)


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows(folder: Path) -> list[dict[str, str]]:
    """Every whole row; a torn one is lost."""
    whole = []
    for line in (line for path in (folder / "rows").glob("*.jsonl") for line in path.read_bytes().splitlines()):
        with suppress(ValueError):
            whole.append(json.loads(line))
    return whole


def digest(folder: Path) -> tuple[dict[str, str], list[str]]:
    """sha256 of every file by name, and the rows sorted."""
    from voxmill.core.hashing import sha256_file

    files = {path.name: sha256_file(path) for path in (folder / "rows").iterdir()}
    return files, sorted(json.dumps(row, sort_keys=True) for row in rows(folder))


def finish(driver: subprocess.Popen[bytes], folder: Path) -> None:
    if driver.wait(timeout=1800) != 0:
        raise JobError(f"the pipeline failed with {driver.returncode}: {(folder / 'log').read_text()[-3000:]}")


def audit(python: str, spec: Spec, names: set[str], folder: Path, kills: int, seed: int, ray: str) -> Counts:
    """Two runs left alone, then datasets whose driver is killed until there were enough kills."""
    choice, counts = random.Random(seed), Counts()
    for alone in ("alone-1", "alone-2"):
        began = time.monotonic()
        finish(start(python, spec, folder / alone, ray), folder / alone)
        print(f"{spec.writer}: left alone: {time.monotonic() - began:.0f} s", flush=True)
    expected = digest(folder / "alone-1")
    if missing := names - {row["name"] for row in rows(folder / "alone-1")}:
        raise JobError(f"left alone, it did not write every row: {sorted(missing)}")
    counts.same_bytes_left_alone = expected == digest(folder / "alone-2")
    while counts.kills < kills:
        out = folder / f"killed-{counts.datasets}"
        driver = start(python, spec, out, ray)
        while counts.kills < kills:
            # A few calls into this attempt and then some: before the first one there is nothing to lose.
            target = len(calls(out)) + choice.randint(2, 6)
            while len(calls(out)) < target and driver.poll() is None:
                time.sleep(0.05)
            time.sleep(choice.uniform(0, 2))
            if driver.poll() is not None:
                break
            driver.kill()
            driver.wait()
            counts.kills += 1
            print(f"{spec.writer}: kill {counts.kills}: {len(calls(out))} calls, {len(rows(out))} rows", flush=True)
            driver = start(python, spec, out, ray)
        finish(driver, out)
        written = Counter(row["name"] for row in rows(out))
        made = calls(out)
        counts.datasets += 1
        counts.lost += len(names - set(written))
        counts.repeated += written.total() - len(written)
        files, ordered = digest(out)
        counts.same_bytes &= files == expected[0]
        counts.same_rows &= ordered == expected[1]
        counts.model_calls += len(made)
        counts.model_calls_repeated += len(made) - len(set(made))
    return counts


@command("benchmarks/peer/curator_resume.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="the interpreter of NeMo Curator's environment")
    parser.add_argument("--kills", type=int, default=5, help="for each writer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", choices=("xenna", "ray_data"), default="xenna")
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--folder", type=Path, default=None, help="where the datasets are made (default: temporary)")
    parser.add_argument("--pipeline", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--ray", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pipeline:
        run_pipeline(Spec(**json.loads(arguments.pipeline.read_text())))
    elif arguments.ray:
        # Xenna asks the dashboard which actors there are, and for as many as its own starter of Ray allows.
        os.environ["RAY_MAX_LIMIT_FROM_API_SERVER"] = os.environ["RAY_MAX_LIMIT_FROM_DATA_SOURCE"] = "40000"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        with local_ray(port, PROCESSORS) as address:
            print(address, flush=True)
            sys.stdin.read()
    elif arguments.python:
        compare(arguments)
    else:
        raise UserError("--python is needed: the interpreter of NeMo Curator's environment")


def compare(arguments: argparse.Namespace) -> None:
    import numpy as np
    import soundfile
    from rich.console import Console

    from benchmarks.support.tables import table
    from samples import bad_input
    from voxmill.core.assets import asset_path

    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="voxmill-curator-"))).absolute()
    corpus, manifests = folder / "in", folder / "manifests"
    manifests.mkdir(parents=True, exist_ok=True)
    bad_input.make(corpus)
    names = set()
    for number, name in enumerate(sorted(bad_input.CASES)):
        # Their loader is soundfile's; what it refuses, and what holds no number at all, would end their run.
        try:
            audio, _ = soundfile.read(corpus / name)
        except soundfile.SoundFileError:
            continue
        if np.isfinite(audio).any():
            names.add(name)
            row = {"audio_filepath": str(corpus / name), "name": name}
            (manifests / f"{number:02}.jsonl").write_text(json.dumps(row) + "\n")
    model = str(asset_path("whisper-base"))
    by_writer: dict[str, Counts] = {}
    # A Ray of their environment: its workers import their package.
    child = [arguments.python, str(Path(__file__).resolve()), "--ray"]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ray:
        assert ray.stdin and ray.stdout
        try:
            address = ray.stdout.readline().strip()
            for writer in arguments.writers:
                settings = (folder / writer, arguments.kills, arguments.seed, address)
                spec = Spec(manifests=str(manifests), model=model, executor=arguments.executor, writer=writer)
                by_writer[writer] = audit(arguments.python, spec, names, *settings)
        finally:
            ray.stdin.close()
    shown = list(asdict(Counts()))
    cells = [[key.replace("_", " "), *(str(getattr(by_writer[w], key)) for w in arguments.writers)] for key in shown]
    title = f"NeMo Curator, {arguments.executor}: {len(names)} of {len(bad_input.CASES)} inputs"
    Console().print(table(title, ["what", *arguments.writers], cells))
    best = asdict(by_writer[arguments.writers[-1]])
    print(json.dumps(best | {"writers": {writer: asdict(value) for writer, value in by_writer.items()}}))


if __name__ == "__main__":
    sys.exit(main())
