"""Which actors run which stages: three pools where there are GPUs, one where there are none.

    prepare (CPU) -> models (a GPU an actor, all its models in it) -> measure and write (CPU)

Every pool begins with what the cluster has, grows with it and ends by itself. A cluster of any size runs the graph to
its end: the smallest actors of all pools together fit one CPU (and one GPU), so none waits for ever for the others'
place. An actor of models asks for no CPU: where a GPU is free, one starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.config import RunConfig
from pipelines.stages.base import Stage
from pipelines.stages.decode import Decode
from pipelines.stages.detect_events import DetectEvents
from pipelines.stages.measure import Measure
from pipelines.stages.segment import Segment
from pipelines.stages.separate import Separate
from pipelines.stages.transcribe import Transcribe
from pipelines.stages.voice_attributes import VoiceMeasures, VoiceModels
from pipelines.stages.write import Write

PREPARE: tuple[type[Stage], ...] = (Decode, DetectEvents)
MODELS: tuple[type[Stage], ...] = (Separate, Segment, Transcribe, VoiceModels)
MEASURE: tuple[type[Stage], ...] = (Measure, VoiceMeasures, Write)
STAGES: tuple[type[Stage], ...] = PREPARE + MODELS + MEASURE
VOICE_STAGES: tuple[type[Stage], ...] = (VoiceModels, VoiceMeasures)
# Decoding and events take a twentieth of what measuring takes: such an actor uses little of a core. The two add up to
# one CPU, the smallest cluster.
PREPARE_CPUS, MEASURE_CPUS = 0.1, 0.9
PREPARE_FOR_EACH_GPU = 2
# An estimate for a unit of half an hour at 48 kHz. It bounds them on each machine, however many units wait, and
# nothing bounds them over a cluster that grows.
PREPARE_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the cluster has as the job begins; later nodes are used, too.

    memory: bytes that Ray has to give on the smallest of its nodes with CPUs; None: there is no such node yet.
    """

    cpus: float
    gpus: int
    memory: float | None = None

    @classmethod
    def now(cls) -> "Cluster":
        """The cluster that this process has joined."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        memory = [node.get("memory", 0.0) for node in nodes if node.get("CPU")]
        return cls(
            cpus=sum(node.get("CPU", 0.0) for node in nodes),
            gpus=int(sum(node.get("GPU", 0.0) for node in nodes)),
            memory=min(memory, default=None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Actors that run some stages in one process each.

    num_cpus, num_gpus, memory (bytes): what one of them asks for. initial: how many begin. most: how many there may be;
    None: what the cluster has room for. in_flight: units that one is given at a time, to wait beside it while it works.
    threads: units that one has in its hands: with two, it unpacks one while it computes another.
    """

    stages: tuple[type[Stage], ...]
    num_cpus: float
    num_gpus: int
    memory: float = 0.0
    initial: int
    most: int | None
    in_flight: int
    threads: int


def plan_pools(
    stages: Sequence[type[Stage]], run: RunConfig, cluster: Cluster, units: int, *, alone: bool = False
) -> list[Pool]:
    """The pools for some of `STAGES`, in order.

    Args:
        stages: known by their names, so that others may stand in for them.
        units: work units to come: more actors than that have nothing to do.
        alone: give each actor one unit at a time, so that a dying one takes no other unit with it.
    """
    cpus = run.workers or max(int(cluster.cpus), 1)
    gpus = cluster.gpus if run.gpus is None else run.gpus
    if not (gpus > 0 if run.pools is None else run.pools):
        # A unit takes such an actor half a minute: one that waits in its queue is one that no idle actor can take.
        initial = max(min(cpus, units), 1)
        most = None if run.workers is None else run.workers
        return [Pool(stages=tuple(stages), num_cpus=1, num_gpus=0, initial=initial, most=most, in_flight=1, threads=1)]
    models = gpus or (run.workers or max(cpus // 2, 1))
    # A small machine has room for one, too.
    prepare_bytes = PREPARE_BYTES if cluster.memory is None else min(PREPARE_BYTES, cluster.memory / 4)
    prepare = run.workers or max(PREPARE_FOR_EACH_GPU * models, cpus // 4, 1)
    made = (
        (PREPARE, PREPARE_CPUS, 0, 1 if cpus < 4 else min(prepare, cpus // 2), run.workers),
        # Without any GPU, which only tests ask for, the models share the CPUs with the others.
        (MODELS, 0 if gpus else MEASURE_CPUS / 2, 1 if gpus else 0, models, run.gpus if gpus else run.workers),
        (MEASURE, MEASURE_CPUS if gpus else MEASURE_CPUS / 2, 0, max(cpus - prepare // 10, 1), run.workers),
    )
    pools = []
    for part, num_cpus, num_gpus, initial, most in made:
        own = tuple(stage for stage in stages if stage.name in {one.name for one in part})
        if own:
            initial = max(min(initial, units, most or initial), 1)
            threads = 2 if num_gpus and not alone else 1
            pools.append(
                Pool(
                    stages=own,
                    num_cpus=num_cpus,
                    num_gpus=num_gpus,
                    memory=prepare_bytes if part is PREPARE else 0.0,
                    initial=initial,
                    most=most,
                    in_flight=1 if alone else threads + 1,
                    threads=threads,
                )
            )
    return pools
