"""Rates and sizes that a plan of data is counted by, each with its source: the models behind `rates.yaml`.

A source is "measured" (by a command, on a device, on a day), "assumed", or "given" by the user.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from voxmill.core.config import Config

Kind = Literal["measured", "assumed", "given"]


class Source(Config):
    """Where figures come from."""

    kind: Kind = "given"
    """measured, assumed or given."""
    where: str = ""
    """The machine, or the run."""
    date: str = ""
    """The day of the measurement, as 2026-11-27."""
    command: str = ""
    """What measured it, or why it is assumed."""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.kind, self.where, self.date) if part)


class Figure(Config):
    """A number and the name of its source."""

    value: float = Field(ge=0, allow_inf_nan=False)
    source: str = ""
    """Key of `sources`; none: given by the file that has it."""


def _as_figure(value: object) -> object:
    """A plain number is a figure that the file itself gives."""
    return {"value": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


def _above_zero(figure: Figure | None) -> Figure | None:
    if figure is not None and not figure.value > 0:
        raise ValueError("must be more than 0")
    return figure


def _share(figure: Figure | None) -> Figure | None:
    if figure is not None and figure.value > 1:
        raise ValueError("a share, 0 to 1")
    return figure


Given = Annotated[Figure | None, BeforeValidator(_as_figure)]
Positive = Annotated[Given, AfterValidator(_above_zero)]
Share = Annotated[Given, AfterValidator(_share)]
PositiveShare = Annotated[Positive, AfterValidator(_share)]


class StageSeconds(Config):
    """Seconds of one core, or of one GPU, for an hour of recordings; of separation: an hour that is separated."""

    scan: Given = None
    decode: Given = None
    events: Given = None
    separation: Given = None
    segmentation: Given = None
    transcription: Given = None
    quality: Given = None
    write: Given = None
    prosody: Given = None
    speaker: Given = None
    gender: Given = None
    emotion: Given = None
    age: Given = None
    mos: Given = None
    index: Given = None
    """Selection, corpus labels, descriptions and the index: of one clip, not of an hour."""
    shards: Given = None
    """Kept clips copied from units into shards."""
    encode: Given = None
    """AudioVAE's latents, for an hour of kept clips."""
    load: Given = None
    """Kept clips decoded and resampled for an encoder on a GPU, for an hour of them."""


class Corpus(Config):
    """What recordings become."""

    separated: Share = None
    """Share of the hours that are separated from music (0..1)."""
    candidates: Share = None
    """Hours of candidate clips from an hour of recordings."""
    kept: Share = None
    """Hours of kept clips from an hour of recordings."""
    clip_seconds: Positive = None
    """Mean length of a clip."""
    recording_seconds: Positive = None
    """Mean length of a recording."""
    sample_rate: Positive = None
    """Of the recordings, in hertz."""


class Sizes(Config):
    """Bytes."""

    flac_sample: Positive = None
    """Of FLAC for one sample, mono, 16 bits, at 16 kHz or less."""
    flac_sample_wide: Positive = None
    """The same above 16 kHz, where there is less in the upper bands."""
    scan_recording: Given = None
    """What is noted of a scanned recording and its windows."""
    unit_clip: Given = None
    """Of a candidate in its unit's file beside its FLAC: labels, transcript, the tar's own."""
    labels_clip: Given = None
    """Of a candidate in the files of the voice labellers."""
    shard_clip: Given = None
    """Of a clip in its shard beside its FLAC: JSON, the tar's own."""
    clips_row: Given = None
    """Of a row of clips.parquet, compressed."""
    rejected_row: Given = None
    recordings_row: Given = None
    latents_row: Given = None
    part: Given = None
    """Of a part of an index beside its rows: schema and statistics."""
    latent_clip: Given = None
    """Of a clip in its latent shard beside the numbers."""


class MemoryFigures(Config):
    """Bytes in memory."""

    driver: Given = None
    """Of the driver before any work."""
    driver_clip: Given = None
    """Of the driver for a clip of the corpus."""
    driver_unit: Given = None
    """Of the driver for a work unit."""
    driver_bucket: Given = None
    """Of the driver for a bucket."""
    worker: Given = None
    """Of a worker with the models and libraries of all stages."""
    worker_second: Given = None
    """Of a worker for a second of the window in its hands, at 48 kHz."""
    worker_unit_second: Given = None
    """Of a worker for a second of the unit in its hands, at 48 kHz."""
    task: Given = None
    """Of a task over one bucket before it reads."""
    task_clip: Given = None
    """Of a task over one bucket for a clip."""


class Efficiency(Config):
    """Shares of ideal speed (0..1)."""

    cores: PositiveShare = None
    """Of all cores, beside one alone."""
    gpus: PositiveShare = None
    """Of a GPU that waits for nothing: starting, the last units, batches that are not full."""


class RatesFile(Config):
    """A file of figures; what it lacks is taken from the files before it."""

    sources: dict[str, Source] = {}
    cpu: StageSeconds = StageSeconds()
    gpu: StageSeconds = StageSeconds()
    corpus: Corpus = Corpus()
    sizes: Sizes = Sizes()
    memory: MemoryFigures = MemoryFigures()
    efficiency: Efficiency = Efficiency()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A figure with its source."""

    value: float
    source: Source


@dataclass(frozen=True, slots=True)
class Rates:
    """All figures by their dotted names, such as "gpu.transcription"."""

    known: dict[str, Known] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.known[name].value

    def source(self, name: str) -> Source:
        return self.known[name].source

    def has(self, name: str) -> bool:
        return name in self.known
