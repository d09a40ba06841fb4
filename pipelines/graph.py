"""The Ray Data graph of `annotate`: decode, listen, separate, segment, transcribe, measure, write.

Every model is a pool of actors. CPU shares add up to one a worker, so that `workers` is what fits on so many cores;
where the cluster has GPUs, separation, segmentation and transcription take a share of one each.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipelines import stages
from pipelines.annotate_config import AnnotateConfig
from pipelines.units import Unit

# Measured shares of a core on the sample recordings; Ray only uses them to place actors.
CPU_SHARES = {
    "Decode": 0.05,
    "Listen": 0.05,
    "Separate": 0.15,
    "Segment": 0.1,
    "Transcribe": 0.4,
    "Measure": 0.2,
    "Write": 0.05,
}


def run_units(units: list[Unit], out: str, config: AnnotateConfig, workers: int, gpus: float) -> Iterator[str]:
    """Runs the graph over units that are not done yet and yields each one's final state (JSON) as it is written."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # advice about memory of actors that this job sizes itself
    device = "cuda" if gpus else "cpu"
    share = config.run.gpu_share if gpus else 0.0
    label, threads = config.label, config.run.threads
    empty = pa.array([b""], pa.large_binary())
    dataset: ray.data.Dataset = ray.data.from_arrow(
        [pa.table({"state": pa.array([unit.to_json()], pa.large_string()), "audio": empty}) for unit in units]
    )
    plan: list[tuple[type[stages.Stage], dict[str, Any], bool]] = [
        (stages.Decode, {"label": label}, False),
        (stages.Listen, {"label": label}, False),
        (stages.Separate, {"label": label, "threads": threads, "device": device}, True),
        (stages.Segment, {"label": label, "threads": threads, "device": device}, True),
        (stages.Transcribe, {"label": label, "threads": threads, "device": device}, True),
        (stages.Measure, {"label": label, "threads": threads}, False),
        (stages.Write, {"out": out}, False),
    ]
    for stage, arguments, on_gpu in plan:
        dataset = dataset.map_batches(
            stage,
            fn_constructor_kwargs=arguments,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(units))),
            num_cpus=CPU_SHARES[stage.title],
            num_gpus=share if on_gpu and share else None,
        )
    for batch in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        assert isinstance(batch, pa.Table)
        yield from batch["state"].to_pylist()
