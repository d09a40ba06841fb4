"""Listeners' answers: MOS by system with intervals over listeners and items, and how far listeners agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue, TypeAdapter

from evaluation.listening.agreement import krippendorff_alpha
from evaluation.listening.session import FORMAT, SCALES, KeyEntry, Scale
from evaluation.results.statistics import CONFIDENCE, RESAMPLES, Estimate
from voxmill.core.errors import UserError


@dataclass(frozen=True)
class Rating:
    """One listener's score, 1 to 5, of one system's speech of one item."""

    listener: str
    scale: Scale
    system: str
    item: str
    score: int


@dataclass(frozen=True)
class Answers:
    """`problems`: a line each on files and answers that could not be used."""

    ratings: tuple[Rating, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Mos:
    """Mean opinion score of a system on a scale; `alpha` is of all ratings of the scale (ordinal)."""

    scale: Scale
    system: str
    estimate: Estimate
    listeners: int
    items: int
    alpha: float


def read_answers(key: Path, folder: Path) -> Answers:
    """Ratings of all `*.json` in a folder. A listener who answered twice counts with the later file by name.

    Raises:
        UserError: the key is missing or is not one, or no usable answer.
    """
    try:
        plain = json.loads(key.read_text(encoding="utf-8"))
        session, trials = plain["session"], _TRIALS.validate_python(plain["trials"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: not the key of a session ({reason}); it was written beside listen.html") from None
    problems: list[str] = []
    by_listener: dict[str, list[Rating]] = {}
    for path in sorted(folder.glob("*.json")):
        if path.resolve() == key.resolve():
            continue
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            listener, answers = given["listener"], given["answers"]
            if given["format"] != FORMAT or not isinstance(listener, str) or not isinstance(answers, list):
                raise ValueError("not the answers of a listening test")
            if given["session"] != session:
                raise ValueError(f"answers of another session, {given['session']}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path.name}: {error}")
            continue
        if listener in by_listener:
            problems.append(f"{path.name}: {listener} has answered before; these answers count")
        ratings = []
        for answer in answers:
            rating = _rating(listener, answer, trials)
            if isinstance(rating, str):
                problems.append(f"{path.name}: {rating}")
            else:
                ratings.append(rating)
        missing = len(trials) - len({(r.scale, r.system, r.item) for r in ratings})
        if missing:
            problems.append(f"{path.name}: {missing} of {len(trials)} recordings not rated")
        by_listener[listener] = ratings
    usable = tuple(rating for ratings in by_listener.values() for rating in ratings)
    if not usable:
        raise UserError(f"{folder}: no usable answers ({'; '.join(problems[:2]) or 'no .json files'})")
    return Answers(usable, tuple(problems))


def _rating(listener: str, answer: JsonValue, trials: dict[str, KeyEntry]) -> Rating | str:
    """The rating, or why an answer is none."""
    fields = answer if isinstance(answer, dict) else {}
    trial, score = fields.get("trial"), fields.get("score")
    if not isinstance(trial, str) or trial not in trials:
        return f"no recording {trial!r} in this session"
    if not isinstance(score, int) or isinstance(score, bool) or not 1 <= score <= 5:
        return f"{trial}: score {score!r} is not 1 to 5"
    known = trials[trial]
    return Rating(listener, known.scale, known.system, known.item, score)


_TRIALS = TypeAdapter(dict[str, KeyEntry])


def opinion_scores(ratings: Sequence[Rating], seed: int = 0) -> list[Mos]:
    """MOS of every scale and system. Listeners and items are both resampled: either could have been others."""
    scores = []
    for scale in SCALES:
        rated = [rating for rating in ratings if rating.scale == scale]
        if not rated:
            continue
        systems = sorted({rating.system for rating in rated})
        alpha = krippendorff_alpha(_matrix(rated, [f"{r.system}\0{r.item}" for r in rated]))
        for system in systems:
            own = [rating for rating in rated if rating.system == system]
            ratings_LI = _matrix(own, [rating.item for rating in own])
            listeners, items = ratings_LI.shape
            scores.append(Mos(scale, system, _two_way(ratings_LI, seed), listeners, items, alpha))
    return scores


def _matrix(ratings: Sequence[Rating], items: Sequence[str]) -> np.ndarray:
    """Scores [listeners, items], nan where there is none."""
    rows = {name: index for index, name in enumerate(sorted({rating.listener for rating in ratings}))}
    columns = {name: index for index, name in enumerate(sorted(set(items)))}
    matrix_LI = np.full((len(rows), len(columns)), np.nan)
    for rating, item in zip(ratings, items, strict=True):
        matrix_LI[rows[rating.listener], columns[item]] = rating.score
    return matrix_LI


def _two_way(ratings_LI: np.ndarray, seed: int) -> Estimate:
    """Mean with the interval of the bootstrap that resamples listeners and items at once."""
    generator = np.random.default_rng(seed)
    listeners, items = ratings_LI.shape
    there_LI = ~np.isnan(ratings_LI)
    filled_LI = np.where(there_LI, ratings_LI, 0.0)
    drawn_BL = generator.multinomial(listeners, np.full(listeners, 1 / listeners), size=RESAMPLES)
    drawn_BI = generator.multinomial(items, np.full(items, 1 / items), size=RESAMPLES)
    sums_B = ((drawn_BL @ filled_LI) * drawn_BI).sum(axis=1)
    counts_B = ((drawn_BL @ there_LI.astype(float)) * drawn_BI).sum(axis=1)
    means_B = sums_B[counts_B > 0] / counts_B[counts_B > 0]
    edge = 100 * (1 - CONFIDENCE) / 2
    low, high = (float(x) for x in np.percentile(means_B, [edge, 100 - edge]))
    return Estimate(float(ratings_LI[there_LI].mean()), low, high, int(there_LI.sum()))


def table(scores: Sequence[Mos]) -> str:
    """Markdown."""
    lines = ["| scale | system | MOS [95 %] | listeners | items | alpha |", "|---|---|---:|---:|---:|---:|"]
    for one in scores:
        interval = f"{one.estimate.value:.2f} [{one.estimate.low:.2f}, {one.estimate.high:.2f}]"
        name = one.system.replace("|", "\\|")
        lines.append(f"| {one.scale}-MOS | {name} | {interval} | {one.listeners} | {one.items} | {one.alpha:.2f} |")
    return "\n".join(lines)
