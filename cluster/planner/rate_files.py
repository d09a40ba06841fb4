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
from voxmill.core.storage import is_remote, to_path

FILE = Path(__file__).resolve().parent / "rates.yaml"
GPU_STAGES = ("separation", "segmentation", "transcription", "speaker", "gender", "emotion", "age", "mos", "encode")
"""What a GPU can compute."""
SECTIONS = ("cpu", "gpu", "corpus", "sizes", "memory", "efficiency")
MAX_PARTS = 16
"""Parts of an index that sizes are taken from."""
MIN_ROWS = 50
"""An index with fewer rows tells little of a row: its columns' own headers are most of it."""
MOSTLY = 0.99
"""A stage that ran on GPUs for this share of its seconds gives the rate of a GPU."""
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
    gpu_seconds: float = Field(0.0, ge=0, allow_inf_nan=False)


class _Separation(BaseModel):
    seconds_spent: float = Field(ge=0, allow_inf_nan=False)
    seconds_saved: float | None = Field(None, ge=0, allow_inf_nan=False)


class _RunOptions(BaseModel):
    threads: int = Field(1, ge=1)


class _RunConfig(BaseModel):
    run: _RunOptions = _RunOptions()


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
    corpus, dataset = _corpus(run), _dataset_figures(path.parent)
    sizes: dict[str, float] = {}
    if dataset is not None:
        corpus["sample_rate"], sizes = dataset.sample_rate, _sizes(run, dataset, path.parent)
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
        if stage.gpu_seconds:
            # Some units may have run without a GPU, on another machine: the two rates cannot be told apart then.
            if stage.gpu_seconds >= MOSTLY * stage.seconds:
                gpu[stage.name] = stage.seconds / hours
        else:
            cpu[stage.name] = stage.seconds / hours * run.config.run.threads
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
class _DatasetFigures:
    """What the first parts of the indexes tell.

    rows: bytes of a row, compressed, by index. part: bytes of a part beside its rows. clips: their FLAC in bytes and
    samples, their seconds, and the bytes of the shards that they lie in.
    """

    rows: dict[str, float]
    part: float
    clips: int
    flac_bytes: int
    flac_samples: float
    seconds: float
    shard_bytes: int

    @property
    def sample_rate(self) -> float:
        """Of the clips, by length."""
        return self.flac_samples / self.seconds


def _dataset_figures(out: Path) -> _DatasetFigures | None:
    """None where no dataset lies beside the run.json, or one without a clip."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from voxmill.core.storage import arrow_filesystem
    from voxmill.data.layout import INDEXES, index_parts, read_index

    rows: dict[str, float] = {}
    beside: list[int] = []
    for index in INDEXES:
        count = content = 0
        for part in index_parts(out / index)[:MAX_PARTS]:
            filesystem, name = arrow_filesystem(part)
            metadata = pq.read_metadata(name, filesystem=filesystem)
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            size = sum(one.column(n).total_compressed_size for one in groups for n in range(one.num_columns))
            count, content = count + metadata.num_rows, content + size
            beside.append(part.stat().st_size - size)
        if count >= MIN_ROWS:
            rows[index.removesuffix(".parquet")] = content / count
    columns = ["shard", "size", "duration", "sample_rate"]
    parts = [read_index(part, columns) for part in index_parts(out / "clips.parquet")[:MAX_PARTS]]
    clips = pa.concat_tables(parts) if parts else None
    if clips is None or not clips.num_rows:
        return None
    return _DatasetFigures(
        rows=rows,
        part=sum(beside) / len(beside),
        clips=clips.num_rows,
        flac_bytes=pc.sum(clips["size"]).as_py(),
        flac_samples=pc.sum(pc.multiply(clips["duration"], clips["sample_rate"])).as_py(),
        seconds=pc.sum(clips["duration"]).as_py(),
        shard_bytes=sum((out / name).stat().st_size for name in pc.unique(clips["shard"]).to_pylist()),
    )


def _sizes(run: _Run, dataset: _DatasetFigures, out: Path) -> dict[str, float]:
    wide = "" if dataset.sample_rate <= RATE_16K else "_wide"
    sizes = {f"{name}_row": size for name, size in dataset.rows.items()} | {
        "part": dataset.part,
        f"flac_sample{wide}": dataset.flac_bytes / dataset.flac_samples,
        "shard_clip": max(dataset.shard_bytes - dataset.flac_bytes, 0) / dataset.clips,
    }
    candidates = run.kept + run.rejected
    work = out / "work"
    if is_remote(out) or run.units > MAX_UNITS or not (work / "units").is_dir():
        return sizes
    flac = dataset.flac_bytes / dataset.clips * candidates
    sizes["unit_clip"] = max(_folder_bytes(work / "units") - flac, 0.0) / candidates
    sizes["labels_clip"] = _folder_bytes(work / "labels") / candidates
    sizes["scan_recording"] = (_folder_bytes(work / "scans") + _folder_bytes(work / "plan")) / run.recordings
    return sizes


def _folder_bytes(folder: Path) -> int:
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)


def main() -> None:
    """Prints the figures of the run.json that is named on the command line, as YAML."""
    values = rates_of_run(to_path(sys.argv[1])).model_dump(mode="json", exclude_defaults=True)
    print(yaml.safe_dump(values, sort_keys=False, width=120), end="")


if __name__ == "__main__":
    main()
