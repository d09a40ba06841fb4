"""`voxmill plan data`: what a dataset of so many hours takes, and what of it cannot be."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

import typer

from voxmill.cli.settings import JobSettings, split_settings
from voxmill.core.errors import UserError, command

if TYPE_CHECKING:
    from cluster.planner.data_setup import DataPlan, DataSetup
    from cluster.planner.rates import Rates
    from pipelines.config import AnnotateConfig

HIGHEST_RATE = 48000.0
"""Hz; clips are kept at their own rate up to it."""
MOST_HOURS = 1e9
"""More audio than people have recorded; a number above it is a mistake."""


@command("voxmill plan data")
def data(
    audio_hours: Annotated[float, typer.Option(help="hours of recordings, such as 2e6")],
    settings: JobSettings = None,
    gpus: Annotated[int, typer.Option(help="GPUs that annotate and encode; 0: all of it on CPUs")] = 0,
    cores: Annotated[
        int | None, typer.Option(help="CPU cores of all machines together; by default as many as keep the GPUs busy")
    ] = None,
    days: Annotated[float | None, typer.Option(help="refuse a plan that takes longer")] = None,
    rates: Annotated[
        list[str] | None,
        typer.Option(
            "--rates",
            "--run-json",
            help="run.json of a finished dataset, or YAML like cluster/planner/rates.yaml; repeatable, the last wins",
        ),
    ] = None,
    sample_rate: Annotated[
        float | None, typer.Option(help="of the recordings, in Hz; by default 48000, or that of --rates")
    ] = None,
    recording_minutes: Annotated[
        float | None, typer.Option(help="mean length of a recording; by default 10, or that of --rates")
    ] = None,
    session_minutes: Annotated[float | None, typer.Option(help="of a session; by default of a recording")] = None,
    kbps: Annotated[float | None, typer.Option(help="of the recordings as they are; by default mono FLAC")] = None,
    node_cores: Annotated[int, typer.Option(help="CPU cores of one machine")] = 32,
    node_memory: Annotated[float, typer.Option(help="memory of one machine, in 1e9 bytes")] = 128.0,
    driver_memory: Annotated[float, typer.Option(help="memory of the driver (the head node), in 1e9 bytes")] = 16.0,
    puts_per_second: Annotated[float, typer.Option(help="files that storage takes a second")] = 3500.0,
    gets_per_second: Annotated[float, typer.Option(help="ranges that storage answers a second")] = 5500.0,
    gpu_price: Annotated[float | None, typer.Option(help="of a GPU for an hour, in any currency")] = None,
    core_price: Annotated[float | None, typer.Option(help="of a core for an hour")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one line of JSON in place of the tables")] = False,
    hours_per_core_hour: Annotated[str | None, typer.Option(hidden=True)] = None,
    hours_per_gpu_hour: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints what a dataset takes: GPU-hours and core-hours by stage, days, storage, files, memory.

    Stage by stage it prints where a rate was measured, or that it is assumed. The best rates are those of your own
    recordings: annotate some hours of them, then give that run's run.json. A plan that cannot be is refused with
    status 2 and the smallest change that makes it possible. Settings are those of `voxmill annotate`.

    \b
    Examples:
      voxmill plan data --audio-hours 2e6 --gpus 64
      voxmill plan data --audio-hours 2e6 --gpus 64 --cores 2048 --rates trial/run.json --days 90
      voxmill plan data --audio-hours 3000 --cores 100 recipe.yaml label.unit_seconds=600
      voxmill plan data --audio-hours 2e6 --gpus 64 --json | jq .days
    """
    from cluster.planner.data_limits import data_plan, possible
    from cluster.planner.rate_files import read_rates
    from pipelines.config import AnnotateConfig
    from voxmill.cli.plan.data_report import json_line, print_plan
    from voxmill.core.config import load_config
    from voxmill.core.storage import to_path

    for name, value in (("core", hours_per_core_hour), ("gpu", hours_per_gpu_hour)):
        if value is not None:
            raise UserError(f"--hours-per-{name}-hour is gone: rates are by stage; give --rates, run.json or YAML")
    numbers = _Numbers(
        audio_hours=audio_hours,
        gpus=gpus,
        cores=cores,
        days=days,
        sample_rate=sample_rate,
        recording_minutes=recording_minutes,
        session_minutes=session_minutes,
        kbps=kbps,
        node_cores=node_cores,
        node_memory=node_memory,
        driver_memory=driver_memory,
        puts_per_second=puts_per_second,
        gets_per_second=gets_per_second,
        gpu_price=gpu_price,
        core_price=core_price,
    )
    numbers.check()
    recipe, overrides = split_settings(settings)
    config = load_config(AnnotateConfig, recipe, overrides)
    known = read_rates([to_path(name) for name in rates or ()])
    plan = data_plan(_setup(numbers, config, known), known)
    changed = possible(plan, known) if plan.problems else plan
    if as_json:
        print(json_line(plan, changed))
    else:
        print_plan(plan, gpu_price=gpu_price, core_price=core_price)
    if plan.problems:
        raise UserError(_refusal(plan, changed))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """The options that are numbers, by the names of the options and in their units."""

    audio_hours: float
    gpus: int
    cores: int | None
    days: float | None
    sample_rate: float | None
    recording_minutes: float | None
    session_minutes: float | None
    kbps: float | None
    node_cores: int
    node_memory: float
    driver_memory: float
    puts_per_second: float
    gets_per_second: float
    gpu_price: float | None
    core_price: float | None

    def check(self) -> None:
        """Raises:
        UserError: one is out of its range; names the option.
        """
        for field in fields(self):
            name, number = field.name, getattr(self, field.name)
            option, may_be_0 = f"--{name.replace('_', '-')}", name in ("gpus", "gpu_price", "core_price")
            if number is None or (math.isfinite(number) and (number > 0 or (number == 0 and may_be_0))):
                continue
            raise UserError(f"{option} {number:g}: must be {'0 or ' if may_be_0 else ''}a number above 0")
        if self.audio_hours > MOST_HOURS:
            raise UserError(f"--audio-hours {self.audio_hours:g}: more than {MOST_HOURS:g}; is it in seconds?")
        if not self.gpus and self.cores is None:
            raise UserError("no machines: give --gpus, --cores or both")


def _setup(numbers: _Numbers, config: AnnotateConfig, known: Rates) -> DataSetup:
    """What is planned for; machines that no option names are as many as keep the GPUs busy."""
    from cluster.planner.data_counts import mean_group
    from cluster.planner.data_limits import cores_for_gpus
    from cluster.planner.data_setup import DataSetup
    from pipelines.config import EncodeConfig
    from pipelines.inputs.scan import BLOCK_ROWS, ONE_IN
    from pipelines.latents.units import ENDS_ONE_IN
    from pipelines.units.unit import UNITS_A_CUT

    minutes = numbers.recording_minutes
    recording_seconds = 60 * minutes if minutes else known["corpus.recording_seconds"]
    setup = DataSetup(
        audio_hours=numbers.audio_hours,
        gpus=numbers.gpus,
        cores=numbers.cores or 1,
        days=numbers.days,
        sample_rate=min(numbers.sample_rate or known["corpus.sample_rate"], HIGHEST_RATE),
        recording_seconds=recording_seconds,
        session_seconds=60 * numbers.session_minutes if numbers.session_minutes else recording_seconds,
        recording_bytes_hour=numbers.kbps * 125 * 3600 if numbers.kbps else None,
        stages=_stages(config),
        gpu_stages=_gpu_stages(config),
        labellers=len(config.voice_attributes.labellers),
        scan_rows=mean_group(BLOCK_ROWS, ONE_IN),
        units_a_cut=UNITS_A_CUT,
        latents_end_one_in=ENDS_ONE_IN,
        unit_seconds=_unit_seconds(config, numbers.gpus),
        window_seconds=config.label.window_seconds,
        buckets=config.write.buckets,
        shard_bytes=config.write.shard_megabytes * 1e6,
        latent_unit_seconds=EncodeConfig().unit_seconds,
        latent_bytes_second=_latent_bytes_second(),
        node_cores=numbers.node_cores,
        node_memory=numbers.node_memory * 1e9,
        driver_memory=numbers.driver_memory * 1e9,
        puts_per_second=numbers.puts_per_second,
        gets_per_second=numbers.gets_per_second,
    )
    return setup if numbers.cores is not None else replace(setup, cores=cores_for_gpus(setup, known))


def _stages(config: AnnotateConfig) -> tuple[str, ...]:
    """The stages that a configuration runs; emotion and age only with a model."""
    from cluster.planner.data_setup import STAGES
    from pipelines.config import LABELLERS

    voices = config.voice_attributes
    without_model = {"emotion": voices.emotion.model is None, "age": voices.age.model is None}
    return tuple(
        stage
        for stage in STAGES
        if stage not in LABELLERS or (stage in voices.labellers and not without_model.get(stage, False))
    )


def _unit_seconds(config: AnnotateConfig, gpus: int) -> float:
    """Of a new dataset: longer where there are GPUs, unless the recipe says it."""
    from pipelines.annotate import GPU_UNIT_SECONDS

    given = "unit_seconds" in config.label.model_fields_set
    return GPU_UNIT_SECONDS if gpus and not given else config.label.unit_seconds


def _gpu_stages(config: AnnotateConfig) -> tuple[str, ...]:
    """What a GPU computes: the embedded model of gender is trees, which no GPU helps."""
    from cluster.planner.rate_files import GPU_STAGES

    trees = config.voice_attributes.gender.model == "embedded"
    return tuple(stage for stage in GPU_STAGES if not (trees and stage == "gender"))


def _latent_bytes_second() -> float:
    """Latents of the released model, in bf16."""
    from model.presets import preset

    vae = preset("voxcpm2").audio_vae_config
    return vae.sample_rate / math.prod(vae.encoder_rates) * vae.latent_dim * 2


def _refusal(plan: DataPlan, changed: DataPlan | None) -> str:
    """All that cannot be, and what it takes together, in one line."""
    what = "; ".join(problem.what for problem in plan.problems)
    if changed is None:
        ways = [way for problem in plan.problems for way in problem.changes]
        return f"{what}: no change of machines makes it possible" + (f"; try {', or '.join(ways)}" if ways else "")
    return f"{what}: possible with {' '.join(changed_words(plan.setup, changed.setup))}"


def changed_words(before: DataSetup, after: DataSetup) -> list[str]:
    """Options and settings that make one setup of another."""
    words = []
    if after.gpus != before.gpus:
        words.append(f"--gpus {after.gpus}")
    if after.cores != before.cores:
        words.append(f"--cores {after.cores}")
    if after.node_memory != before.node_memory:
        words.append(f"--node-memory {math.ceil(after.node_memory / 1e9)}")
    if after.driver_memory != before.driver_memory:
        words.append(f"--driver-memory {math.ceil(after.driver_memory / 1e9)}")
    if after.unit_seconds != before.unit_seconds:
        words.append(f"label.unit_seconds={after.unit_seconds:g}")
    if after.buckets != before.buckets:
        words.append(f"write.buckets={after.buckets}")
    return words
