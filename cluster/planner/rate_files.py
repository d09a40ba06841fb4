"""Reads figures: the package's `rates.yaml`, and over it a user's own YAML files and finished runs.

    python -m cluster.planner.rate_files OUT/run.json

prints the figures of a run in the form of `rates.yaml`.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, Field, ValidationError

from cluster.planner.rates import Corpus, Figure, Known, Rates, RatesFile, Sizes, Source, StageSeconds
from voxmill.core.audio import RATE_16K
from voxmill.core.config import Config, load_config
from voxmill.core.errors import UserError

FILE = Path(__file__).resolve().parent / "rates.yaml"
GPU_STAGES = ("separation", "segmentation", "transcription", "speaker", "gender", "emotion", "age")
"""What runs on a GPU where there is one."""
SECTIONS = ("cpu", "gpu", "corpus", "sizes", "memory", "efficiency")
MAX_PARTS = 16
"""Parts of an index that a run's row sizes are taken from."""
MIN_ROWS = 50
"""An index with fewer rows tells little of a row: its columns' own headers are most of it."""
MAX_UNITS = 20_000
"""A run with more units has none of their files looked at: to list them takes too long."""


def read_rates(files: Sequence[Path] = ()) -> Rates:
    """The package's figures, and over them those of `files`, figure by figure: YAML, or `run.json` of a finished run.

    Raises:
        UserError: a file that cannot be read, is neither, or has a figure that cannot be.
    """
    known: dict[str, Known] = {}
    for path in (FILE, *files):
        file = rates_of_run(path) if path.suffix == ".json" else load_config(RatesFile, path)
        known.update(_known(path, file))
    return Rates(known)


def _known(path: Path, file: RatesFile) -> Iterator[tuple[str, Known]]:
    for section_name in SECTIONS:
        section: Config = getattr(file, section_name)
        for name in type(section).model_fields:
            figure: Figure | None = getattr(section, name)
            if figure is None:
                continue
            if figure.source and figure.source not in file.sources:
                raise UserError(f"{path}: {section_name}.{name}: no source {figure.source!r} in sources")
            source = file.sources[figure.source] if figure.source else Source(where=str(path))
            yield f"{section_name}.{name}", Known(value=figure.value, source=source)


# ---- a finished run


class _Stage(BaseModel):
    name: str
    seconds: float = Field(ge=0, allow_inf_nan=False)


class _Separation(BaseModel):
    seconds_spent: float = Field(ge=0, allow_inf_nan=False)
    seconds_saved: float | None = Field(None, ge=0, allow_inf_nan=False)


class _RunOptions(BaseModel):
    threads: int = Field(1, ge=1)


class _RunConfig(BaseModel):
    run: _RunOptions = _RunOptions()


class _Shard(BaseModel):
    bytes: int = Field(ge=0)
    clips: int = Field(ge=0)


class _Run(BaseModel):
    """The keys of `run.json` that figures are taken from."""

    hours_in: float = Field(gt=0, allow_inf_nan=False)
    hours_kept: float = Field(ge=0, allow_inf_nan=False)
    recordings: int = Field(gt=0)
    units: int = Field(ge=0)
    kept: int = Field(ge=0)
    rejected: int = Field(ge=0)
    stages: list[_Stage] = Field(min_length=1)
    separation: _Separation | None = None
    shards: list[_Shard] = []
    gpus: float = Field(0, ge=0, allow_inf_nan=False)
    config: _RunConfig = _RunConfig()
    finished: str = ""


def rates_of_run(path: Path) -> RatesFile:
    """Figures of a finished `voxmill annotate`, from its `run.json` and the indexes and work files beside it.

    Seconds of stages are summed over all units, also those that an earlier start of the same run labelled.

    Raises:
        UserError: not the run.json of a run, or of one that read no audio.
    """
    run = _read_run(path)
    source = Source(kind="measured", where=str(path), date=run.finished[:10], command="voxmill annotate")
    cpu, gpu = _stage_seconds(run)
    corpus, sizes = _corpus(run), {}
    try:
        index = _IndexFigures.of(path.parent)
        corpus |= {"sample_rate": index.sample_rate} if index.flac_samples else {}
        sizes = _sizes(run, index, path.parent)
    except FileNotFoundError:
        pass  # run.json alone, without its dataset: sizes stay those of the package
    return RatesFile(
        sources={"run": source},
        cpu=StageSeconds(**_figures(cpu)),
        gpu=StageSeconds(**_figures(gpu)),
        corpus=Corpus(**_figures(corpus)),
        sizes=Sizes(**_figures(sizes)),
    )


def _figures(values: dict[str, float]) -> dict[str, Figure]:
    return {name: Figure(value=float(f"{value:.4g}"), source="run") for name, value in values.items()}


def _read_run(path: Path) -> _Run:
    try:
        return _Run.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the run.json of a finished dataset") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: not a run.json that rates can be taken from ({key}: {first['msg']})") from None
    except ValueError as error:
        raise UserError(f"{path}: not the run.json of `voxmill annotate` ({error})") from None


def _stage_seconds(run: _Run) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a core and of a GPU for an hour of recordings, by stage."""
    cpu: dict[str, float] = {}
    gpu: dict[str, float] = {}
    separated = _separated(run)
    for stage in run.stages:
        if stage.name not in StageSeconds.model_fields or (stage.name == "separation" and not separated):
            continue
        hours = run.hours_in * (separated or 1.0 if stage.name == "separation" else 1.0)
        on_gpu = run.gpus > 0 and stage.name in GPU_STAGES
        (gpu if on_gpu else cpu)[stage.name] = stage.seconds / hours * (1 if on_gpu else run.config.run.threads)
    return cpu, gpu


def _separated(run: _Run) -> float | None:
    """Share of the audio that was separated; None where the run does not tell."""
    if run.separation is None:
        return None
    spent, saved = run.separation.seconds_spent, run.separation.seconds_saved
    return 0.0 if saved is None or not spent else spent / (spent + saved)


def _corpus(run: _Run) -> dict[str, float]:
    values = {
        "kept": run.hours_kept / run.hours_in,
        "recording_seconds": run.hours_in * 3600 / run.recordings,
    }
    separated = _separated(run)
    if separated is not None:
        values["separated"] = separated
    if run.kept and run.hours_kept:
        values["clip_seconds"] = run.hours_kept * 3600 / run.kept
        # Rejected clips are about as long as kept ones.
        values["candidates"] = values["kept"] * (run.kept + run.rejected) / run.kept
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _IndexFigures:
    """What the indexes tell: bytes a row by index, mean bytes of a part beside its rows, and clips' FLAC."""

    rows: dict[str, float]
    part: float
    flac_bytes: int
    flac_samples: float
    sample_rate: float

    @classmethod
    def of(cls, out: Path) -> "_IndexFigures":
        """Raises:
        FileNotFoundError: there is no clips.parquet.
        """
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from voxmill.data.layout import INDEXES, index_parts, read_index

        rows: dict[str, float] = {}
        beside: list[int] = []
        for index in INDEXES:
            parts = index_parts(out / index)[:MAX_PARTS]
            metadata = [pq.read_metadata(part) for part in parts]
            count = sum(one.num_rows for one in metadata)
            content = [_compressed_bytes(one) for one in metadata]
            if count >= MIN_ROWS:
                rows[index.removesuffix(".parquet")] = sum(content) / count
            beside += [part.stat().st_size - size for part, size in zip(parts, content, strict=True)]
        clips = read_index(out / "clips.parquet", ["size", "duration", "sample_rate"])
        samples = pc.sum(pc.multiply(clips["duration"], clips["sample_rate"])).as_py() or 0.0
        return cls(
            rows=rows,
            part=sum(beside) / len(beside),
            flac_bytes=pc.sum(clips["size"]).as_py() or 0,
            flac_samples=samples,
            sample_rate=samples / pc.sum(clips["duration"]).as_py() if samples else 0.0,
        )


def _compressed_bytes(metadata: "object") -> int:
    import pyarrow.parquet as pq

    assert isinstance(metadata, pq.FileMetaData)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(group.column(number).total_compressed_size for group in groups for number in range(group.num_columns))


def _sizes(run: _Run, index: _IndexFigures, out: Path) -> dict[str, float]:
    sizes = {f"{name}_row": size for name, size in index.rows.items()} | {"part": index.part}
    if index.flac_samples and run.kept:
        wide = "" if index.sample_rate <= RATE_16K else "_wide"
        sizes[f"flac_sample{wide}"] = index.flac_bytes / index.flac_samples
        sizes["shard_clip"] = max(sum(shard.bytes for shard in run.shards) - index.flac_bytes, 0) / run.kept
    candidates = run.kept + run.rejected
    if not candidates or run.units > MAX_UNITS or not (out / "work" / "units").is_dir():
        return sizes
    flac = index.flac_bytes / run.kept * candidates if run.kept else 0.0
    sizes["unit_clip"] = max(_folder_bytes(out / "work" / "units") - flac, 0.0) / candidates
    sizes["labels_clip"] = _folder_bytes(out / "work" / "voice_attributes") / candidates
    sizes["scan_recording"] = _folder_bytes(out / "work" / "scans") / run.recordings
    return sizes


def _folder_bytes(folder: Path) -> int:
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)


def main() -> None:
    """Prints the figures of the run.json that is named on the command line, as YAML."""
    values = rates_of_run(Path(sys.argv[1])).model_dump(mode="json", exclude_defaults=True)
    print(yaml.safe_dump(values, sort_keys=False, width=120), end="")


if __name__ == "__main__":
    main()
