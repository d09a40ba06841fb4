"""A dataset that is planned: the corpus and its machines, and what a plan of them says."""

from dataclasses import dataclass, field
from typing import Literal

from cluster.planner.rates import Source

Device = Literal["GPU", "core"]
Phase = Literal["scan", "annotate", "finish", "encode"]
PHASES: tuple[Phase, ...] = ("scan", "annotate", "finish", "encode")
STAGES: dict[str, Phase] = {
    "scan": "scan",
    **dict.fromkeys(
        ("decode", "events", "separation", "segmentation", "transcription", "quality", "write"), "annotate"
    ),
    **dict.fromkeys(("prosody", "speaker", "gender", "emotion", "age", "mos"), "annotate"),
    "index": "finish",
    "shards": "finish",
    "load": "encode",
    "encode": "encode",
}
BUSY = 0.9
"""The share of the time that GPUs must work; with less they wait for cores or storage, and the plan is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetup:
    """A corpus, the machines, and how the dataset is divided. Memory is in bytes."""

    audio_hours: float
    gpus: int
    cores: int
    sample_rate: float
    recording_seconds: float
    session_seconds: float
    recording_bytes_hour: float | None
    """Of the recordings as they are; None: mono FLAC."""
    stages: tuple[str, ...]
    """Names from `STAGES`."""
    gpu_stages: tuple[str, ...]
    """Those of them that a GPU computes where there is one."""
    labellers: int
    """Labellers of voices: each has a file a unit, also one without a model."""
    scan_rows: float
    """Recordings in a file of `work/scans`, on average."""
    unit_seconds: float
    window_seconds: float
    units_a_cut: int
    """Units that are full before a recording ends one, on average."""
    latents_end_one_in: int
    """One clip in so many ends its latent shard."""
    buckets: int | None
    """None: by the hours."""
    shard_bytes: float
    latent_unit_seconds: float
    latent_bytes_second: float
    node_cores: int
    node_memory: float
    driver_memory: float
    puts_per_second: float
    gets_per_second: float
    days: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """A stage: `seconds` of its device for an hour of the audio that it works on, of which there are `audio_hours`."""

    stage: str
    phase: Phase
    device: Device
    audio_hours: float
    seconds: float
    source: Source

    @property
    def device_hours(self) -> float:
        """Core-hours or GPU-hours."""
        return self.audio_hours * self.seconds / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLine:
    """What lies in one place."""

    name: str
    bytes: float
    files: float
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLine:
    """Memory of one process or node."""

    name: str
    bytes: float
    limit: float
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLine:
    """One of the jobs' phases, one after another. Days on GPUs, cores and storage alone; the longest one counts."""

    phase: Phase
    gpu_days: float
    core_days: float
    storage_days: float
    puts: float
    gets: float

    @property
    def days(self) -> float:
        return max(self.gpu_days, self.core_days, self.storage_days)

    @property
    def bound_by(self) -> Literal["GPUs", "cores", "storage"]:
        if self.gpu_days >= BUSY * self.days and self.gpu_days:
            return "GPUs"
        return "cores" if self.core_days >= self.storage_days else "storage"

    @property
    def gpu_busy(self) -> float | None:
        """The share of the time in which GPUs work; None without GPUs."""
        return self.gpu_days / self.days if self.gpu_days else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What cannot be, and the smallest changes that help, as a user writes them; `changed` has the first of them."""

    what: str
    changes: tuple[str, ...]
    changed: DataSetup | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan:
    """A setup and what it takes."""

    setup: DataSetup
    kept_hours: float
    clips: float
    candidates: float
    recordings: float
    units: float
    buckets: int
    bucket_hours: float
    stages: list[StageLine]
    phases: list[PhaseLine]
    storage: list[StorageLine]
    memory: list[MemoryLine]
    problems: list[Problem] = field(default_factory=list)

    @property
    def gpu_hours(self) -> float:
        return sum(line.device_hours for line in self.stages if line.device == "GPU")

    @property
    def core_hours(self) -> float:
        return sum(line.device_hours for line in self.stages if line.device == "core")

    @property
    def days(self) -> float:
        return sum(line.days for line in self.phases)
