"""Metrics of a step: sums by mode, language, source and kind of reference over all ranks, rates, MFU, the time left.

A group's loss is its global sum divided by its global count, as the loss itself: no mean of means. All groups' sums
are reduced in one vector of fixed length, however many rows and ranks there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields

import torch
from pydantic import JsonValue
from torch import Tensor

from model.flow.losses import SAMPLE_SUMS
from training.curriculum.corpus import Corpus
from training.curriculum.plan.flops import peak_flops
from training.curriculum.recipe import LossConfig, Recipe
from training.curriculum.row_plan import Share
from training.curriculum.sample_plan import PlannedSample
from training.run.world import World
from voxmill.data.records import MODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure of every rank: its minimum, mean and maximum."""

    minimum: float
    mean: float
    maximum: float

    @classmethod
    def over(cls, world: World, *values: float) -> list["Spread"]:
        """Of each of this rank's values over all ranks, which call it together."""
        ends = world.maxima([*values, *(-value for value in values)])
        sums = world.sums(values)
        count = len(values)
        return [
            cls(minimum=-ends[count + place], mean=sums[place] / world.size, maximum=ends[place])
            for place in range(count)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLosses:
    """Means over frames (diffusion) and patches (stop); `loss` is their sum."""

    loss: float
    diffusion: float
    stop: float
    patches: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopScores:
    """Of the stop predictor's more likely class, a last patch being a positive; None where undefined (0 / 0)."""

    stop_precision: float | None = None
    stop_recall: float | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """Global sums of some samples, as in `model.flow.losses.SAMPLE_SUMS`."""

    diffusion: float = 0.0
    stop: float = 0.0
    num_patches: float = 0.0
    stops_found: float = 0.0
    stops_false: float = 0.0
    stops_missed: float = 0.0

    def losses(self, patch_size: int, weights: LossConfig) -> GroupLosses:
        """Means over frames and patches, and their weighted sum; there is at least one patch."""
        diffusion, stop = self.diffusion / (self.num_patches * patch_size), self.stop / self.num_patches
        loss = weights.diffusion * diffusion + weights.stop * stop
        return GroupLosses(loss=loss, diffusion=diffusion, stop=stop, patches=self.num_patches)

    def stop_scores(self) -> StopScores:
        """Precision and recall of the stop predictor."""
        predicted, actual = self.stops_found + self.stops_false, self.stops_found + self.stops_missed
        return StopScores(
            stop_precision=self.stops_found / predicted if predicted else None,
            stop_recall=self.stops_found / actual if actual else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationMetrics:
    """Held-out losses, overall and by mode, language and source."""

    overall: GroupLosses
    stops: StopScores
    losses: dict[str, GroupLosses]
    forgetting: dict[str, float] = field(default_factory=dict)
    """Loss on data that the model knew, less what it was before the first step: by language, and by `source/NAME`."""

    @property
    def loss(self) -> float:
        """The overall loss, by which checkpoints are compared."""
        return self.overall.loss

    def as_json(self) -> dict[str, JsonValue]:
        """The value of `validation` in metrics.jsonl."""
        values = asdict(self.overall) | asdict(self.stops) | {"losses": _each(self.losses)}
        return _present(values | ({"forgetting": dict(self.forgetting)} if self.forgetting else {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One line of metrics.jsonl. Losses are NaN where no row counted; rates include the time for data."""

    loss: float
    diffusion: float
    stop: float
    stops: StopScores
    grad_norm: float
    learning_rate: float
    target_patches: int
    positions: int
    positions_per_second: float
    audio_seconds_per_second: float
    data_seconds: "Spread"
    """Waiting for data."""
    read_seconds: "Spread"
    """Reading, tokenizing and packing in the background."""
    plan_seconds: float
    """CPU of the planning process."""
    teraflops: float
    """Model FLOPs of all rows, in 1e12."""
    mfu: float | None
    """Share of the devices' peak FLOPs; None where the peak is not known."""
    quarantined: int
    """Clips so far that are not used any more."""
    unreadable: int
    """Clips of this step that could not be read."""
    rolled_back: bool
    """The weights of an earlier checkpoint were restored after this step."""
    skipped: dict[str, int]
    """Samples so far that could not be used, by reason."""
    shares: dict[str, Share]
    losses: dict[str, GroupLosses]
    validation: ValidationMetrics | None = None
    validation_before: ValidationMetrics | None = None
    """Of the weights before the first step, in the line of that step."""

    def as_json(self) -> dict[str, JsonValue]:
        """The line, without keys that have no value."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values |= {name: asdict(values[name]) for name in ("data_seconds", "read_seconds")}
        values |= asdict(values.pop("stops")) | {"shares": _each(self.shares), "losses": _each(self.losses)}
        for name in ("validation", "validation_before"):
            values[name] = None if values[name] is None else values[name].as_json()
        return _present(values)


def _each(groups: Mapping[str, GroupLosses] | Mapping[str, Share]) -> dict[str, JsonValue]:
    return {name: asdict(values) for name, values in groups.items()}


def _present(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in values.items() if value is not None}


class Groups:
    """Groups of a corpus' samples, each with a row in a table of sums [groups, 6].

    Every sample is in a mode, a language and a source (its dataset). One with a reference is in
    `reference/same_language` or `reference/another_language`, too, and one of a dataset that the model knew before in
    `known/LANGUAGE`.
    """

    def __init__(self, corpus: Corpus, recipe: Recipe) -> None:
        self.corpus = corpus
        self._is_known = [recipe.datasets[dataset.name].role != "train" for dataset in corpus.datasets]
        names = [f"mode/{mode}" for mode in MODES]
        names += [f"source/{dataset.name}" for dataset in corpus.datasets]
        for kind in ("language", "known") if any(self._is_known) else ("language",):
            names += [f"{kind}/{language or 'unknown'}" for language in corpus.languages]
        self.names = list(dict.fromkeys([*names, "reference/same_language", "reference/another_language"]))
        self._rows = {name: row for row, name in enumerate(self.names)}

    def zeros(self, device: torch.device) -> Tensor:
        """An empty table, fp64."""
        return torch.zeros(len(self.names), len(SAMPLE_SUMS), dtype=torch.float64, device=device)

    def names_of(self, sample: PlannedSample) -> list[str]:
        """The groups that a sample is in."""
        corpus, clip = self.corpus, sample.clip
        language = corpus.languages[int(corpus.language[clip])] or "unknown"
        dataset = int(corpus.dataset[clip])
        names = [f"mode/{sample.mode}", f"language/{language}", f"source/{corpus.datasets[dataset].name}"]
        if self._is_known[dataset]:
            names.append(f"known/{language}")
        if sample.reference is not None:
            is_across = bool(corpus.is_across(clip, [sample.reference])[0])
            names.append("reference/another_language" if is_across else "reference/same_language")
        return names

    def add(self, table_MK: Tensor, samples: Sequence[PlannedSample], samples_SK: Tensor) -> None:
        """Adds a row's samples, in their order, to the table."""
        places = [(self._rows[name], place) for place, s in enumerate(samples) for name in self.names_of(s)]
        rows_P, places_P = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).to(table_MK.device).unbind(dim=1)
        table_MK.index_add_(0, rows_P, samples_SK[places_P])

    def read(self, table_MK: Sequence[Sequence[float]]) -> dict[str, Sums]:
        """Sums by name, of the groups that have a patch."""
        groups = {name: Sums(*values) for name, values in zip(self.names, table_MK, strict=True)}
        return {name: sums for name, sums in groups.items() if sums.num_patches}


def total(groups: Mapping[str, Sums]) -> Sums:
    """Sums of all samples: each is in one mode."""
    rows = [astuple(sums) for name, sums in groups.items() if name.startswith("mode/")]
    return Sums(*(sum(column) for column in zip(*rows, strict=True))) if rows else Sums()


def peak_of(recipe: Recipe, device: torch.device) -> float | None:
    """Peak FLOPs a second of one device: the recipe's, or those of a known GPU in bf16; None: not known."""
    if recipe.run.peak_tflops is not None:
        return recipe.run.peak_tflops * 1e12
    if device.type != "cuda" or recipe.engine.dtype != "bfloat16":
        return None
    return peak_flops(torch.cuda.get_device_name(device))


class Pace:
    """Estimates the rest of a run from the pace of this process; its first step is slower and does not count."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._first: tuple[int, float] | None = None

    def left(self, done: int, now: float) -> float | None:
        """Seconds until `steps` are done, with all that happens between steps; None at the first call.

        Args:
            done: steps so far. now: seconds on a clock, the same at every call.
        """
        if self._first is None:
            self._first = (done, now)
            return None
        before, began = self._first
        return (now - began) / max(done - before, 1) * (self.steps - done)


def duration(seconds: float) -> str:
    """For people: `40 s`, `12 min`, `2 h 05 min`, `3 d 4 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def progress_line(metrics: StepMetrics, done: int, steps: int, left: float | None) -> str:
    """A step's metrics in one line for people. `left`: seconds."""
    parts = [
        f"loss {metrics.loss:.4f} (diffusion {metrics.diffusion:.4f}, stop {metrics.stop:.4f})",
        f"{metrics.audio_seconds_per_second:.3g} s of audio a second",
    ]
    if metrics.mfu is not None:
        parts.append(f"MFU {metrics.mfu:.1%}")
    if metrics.validation is not None:
        parts.append(f"held-out loss {metrics.validation.loss:.4f}")
        changes = metrics.validation.forgetting
        if changes:
            parts.append(f"forgetting {' '.join(f'{name} {change:+.4f}' for name, change in sorted(changes.items()))}")
    if left is not None:
        parts.append(f"{duration(left)} left")
    return f"step {done}/{steps}: {', '.join(parts)}"
