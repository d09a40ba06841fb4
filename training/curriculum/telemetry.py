"""What a step says of itself: sums by mode, language and source over all ranks, rates, MFU, and what is left to do.

A group's loss is its global sum divided by its global count, as the loss itself: no mean of means. All groups' sums
travel in one vector of fixed length, however many rows and ranks there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.flow.losses import SAMPLE_SUMS
from training.curriculum.corpus import Corpus
from training.curriculum.flops import peak_flops
from training.curriculum.recipe import Recipe
from training.curriculum.sample_plan import Shown
from voxmill.data.records import MODES


@dataclass(frozen=True)
class Sums:
    """Global sums of some samples, as in `model.losses.SAMPLE_SUMS`."""

    diffusion: float = 0.0
    stop: float = 0.0
    num_patches: float = 0.0
    stops_found: float = 0.0
    stops_false: float = 0.0
    stops_missed: float = 0.0

    def losses(self, patch_size: int) -> dict[str, float]:
        """Means over frames and patches; there is a patch."""
        diffusion, stop = self.diffusion / (self.num_patches * patch_size), self.stop / self.num_patches
        return {"loss": diffusion + stop, "diffusion": diffusion, "stop": stop, "patches": self.num_patches}

    def stops(self) -> dict[str, float]:
        """Precision and recall of the stop predictor's more likely class, a last patch being a positive.

        Without a key where it has no meaning: no patch was said to be the last, or none was.
        """
        said, were = self.stops_found + self.stops_false, self.stops_found + self.stops_missed
        found = {"stop_precision": self.stops_found / said} if said else {}
        return found | ({"stop_recall": self.stops_found / were} if were else {})


class Groups:
    """The modes, languages and sources of a corpus, each with a row in a table of sums [groups, 6]."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        languages = [f"language/{language or 'unknown'}" for language in corpus.languages]
        sources = [f"source/{dataset.name}" for dataset in corpus.datasets]
        self.names = list(dict.fromkeys([*(f"mode/{mode}" for mode in MODES), *languages, *sources]))
        places = {name: place for place, name in enumerate(self.names)}
        self._modes = {mode: places[f"mode/{mode}"] for mode in MODES}
        self._languages, self._sources = ([places[name] for name in names] for names in (languages, sources))

    def zeros(self, device: torch.device) -> Tensor:
        """An empty table, fp64."""
        return torch.zeros(len(self.names), len(SAMPLE_SUMS), dtype=torch.float64, device=device)

    def add(self, table_MK: Tensor, shown: Sequence[Shown], samples_SK: Tensor) -> None:
        """Adds a row's samples, in their order, to the table."""
        language, dataset = self.corpus.language, self.corpus.dataset
        places_S3 = torch.tensor(
            [
                [self._modes[s.mode], self._languages[language[s.draw.clip]], self._sources[dataset[s.draw.clip]]]
                for s in shown
            ]
        )
        table_MK.index_add_(0, places_S3.flatten().to(table_MK.device), samples_SK.repeat_interleave(3, dim=0))

    def read(self, table_MK: Sequence[Sequence[float]]) -> dict[str, Sums]:
        """By name, what has a patch."""
        found = {name: Sums(*values) for name, values in zip(self.names, table_MK, strict=True)}
        return {name: sums for name, sums in found.items() if sums.num_patches}


def total(groups: Mapping[str, Sums]) -> Sums:
    """Of all samples: each is in one mode."""
    rows = [list(vars(sums).values()) for name, sums in groups.items() if name.startswith("mode/")]
    return Sums(*(sum(column) for column in zip(*rows, strict=True))) if rows else Sums()


def peak_of(recipe: Recipe, device: torch.device) -> float | None:
    """FLOPs a second that one device can do at most: the recipe's, or those of a known GPU in bf16; None: not known."""
    if recipe.run.peak_tflops is not None:
        return recipe.run.peak_tflops * 1e12
    if device.type != "cuda" or recipe.engine.dtype != "bfloat16":
        return None
    return peak_flops(torch.cuda.get_device_name(device))


def shares_of(shares: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """The mixture's shares for the log."""
    return {name: {"wanted": wanted, "achieved": achieved} for name, (wanted, achieved) in shares.items()}


class Pace:
    """How long the rest of a run takes at the pace of this process; its first step, slower than others, does not count."""

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


def progress_line(line: Mapping[str, Any], done: int, steps: int, left: float | None) -> str:
    """A line for people out of a step's line for machines."""
    told = [
        f"loss {line['loss']:.4f} (diffusion {line['diffusion']:.4f}, stop {line['stop']:.4f})",
        f"{line['audio_seconds_per_second']:.3g} s of audio a second",
    ]
    if "mfu" in line:
        told.append(f"MFU {line['mfu']:.1%}")
    if "validation" in line:
        told.append(f"held-out loss {line['validation']['loss']:.4f}")
    if left is not None:
        told.append(f"{duration(left)} left")
    return f"step {done}/{steps}: {', '.join(told)}"
