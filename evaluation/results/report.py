"""report.html and report.md of a comparison: every score with its interval, the verdicts, what failed, and the best,
the median and the worst utterance of each system to listen to.

Names, texts and hypotheses come from strangers' files and are escaped; the page loads and runs nothing.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from evaluation.metrics.audio_files import load
from evaluation.metrics.error_rates import Piece, aligned
from evaluation.metrics.utterance_score import Status, UtteranceScore
from evaluation.results.comparison import METRICS, MetricKey, PairVerdict, Score, groups_of
from evaluation.results.published import PublishedRow, published
from evaluation.results.records import Outcome, Run, unit_of
from evaluation.results.statistics import Estimate
from voxmill.core.audio import RATE_16K, AudioProblem, encode_flac
from voxmill.core.files import write_atomically

MAX_EXAMPLE_SECONDS = 30.0
MAX_FAILURES = 200
"""So many utterances without a score are listed."""

Place = Literal["best", "median", "worst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a table: a system and its cells."""

    system: str
    cells: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Scores of all systems on a group."""

    group: str
    columns: list[str]
    lines: list[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLine:
    """A verdict as text; `better` is empty where the systems are not distinguishable."""

    group: str
    metric: str
    pair: str
    difference: str
    effect: str
    n: int
    p: str
    sentence: str
    better: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An utterance to listen to. `audio` is a data URI; empty: it cannot be decoded."""

    place: Place
    id: str
    text: str
    pieces: list[Piece]
    audio: str
    rate: str
    similarity: str
    dnsmos: str
    followed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Cards of one system."""

    system: str
    cards: list[Card]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLine:
    """An utterance of a system that has no score, and why."""

    system: str
    id: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLine:
    """A row of the VoxCPM2 report as text."""

    group: str
    system: str
    source: str
    percent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A benchmark as both reports show it."""

    name: str
    utterances: int
    malformed: list[str]
    models: dict[str, str]
    tables: list[Table]
    counts: list[tuple[str, str]]
    published: list[PublishedLine]
    verdicts: list[VerdictLine]
    families: str
    examples: list[Examples]
    failures: list[FailureLine]


def interval_text(estimate: Estimate, metric: MetricKey) -> str:
    """`12.34 [10.01, 14.60]` in the unit of the report's tables; `-` for nothing."""
    if not np.isfinite(estimate.value):
        return "-"
    rule = METRICS[metric]
    if not np.isfinite(estimate.low):
        return f"{estimate.value * rule.scale:.{rule.digits}f}, no interval"
    value, low, high = (f"{x * rule.scale:.{rule.digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def write_reports(outcome: Outcome) -> None:
    """Both reports of an outcome, under OUT."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evaluation.results", ""), autoescape=True, undefined=StrictUndefined
    )
    sections = [_section(outcome, name) for name in dict.fromkeys(run.benchmark.name for run in outcome.runs)]
    page = environment.get_template("report.html.j2").render(outcome=outcome, sections=sections)
    write_atomically(outcome.out / "report.html", page)
    write_atomically(outcome.out / "report.md", _markdown(outcome, sections))


def _section(outcome: Outcome, benchmark: str) -> Section:
    runs = [run for run in outcome.runs if run.benchmark.name == benchmark]
    groups = groups_of(runs[0].utterances)
    scores = {(s.group, s.system, s.metric): s for s in outcome.scores if s.benchmark == benchmark}
    metrics = [metric for metric in METRICS if any(metric == key[2] for key in scores)]
    failures = [
        FailureLine(system=run.system, id=one.id, status=one.status, detail=one.detail or "")
        for run in runs
        for one in run.utterances
        if one.status != "ok"
    ]
    return Section(
        name=benchmark,
        utterances=len(runs[0].benchmark.utterances),
        malformed=[str(line) for line in runs[0].benchmark.malformed],
        models=runs[0].models,
        tables=[_table(runs, group, metrics, scores) for group in groups],
        counts=[(run.system, ", ".join(f"{n} {name}" for name, n in run.counts.items())) for run in runs],
        published=[_published_line(row) for row in published(benchmark, groups)],
        verdicts=[_verdict_line(runs[0], verdict) for verdict in outcome.verdicts if verdict.benchmark == benchmark],
        families=_families(runs[0], [verdict for verdict in outcome.verdicts if verdict.benchmark == benchmark]),
        examples=[
            Examples(system=run.system, cards=[_card(place, one) for place, one in examples(run.utterances)])
            for run in runs
        ],
        failures=failures[:MAX_FAILURES],
    )


def _table(
    runs: Sequence[Run],
    group: str,
    metrics: Sequence[MetricKey],
    scores: Mapping[tuple[str, str, MetricKey], Score],
) -> Table:
    columns = [metric for metric in metrics if any((group, run.system, metric) in scores for run in runs)]
    lines = []
    for run in runs:
        cells = []
        for metric in columns:
            score = scores.get((group, run.system, metric))
            spread = ""
            if score and score.seed_deviation is not None:
                spread = f" ± {score.seed_deviation * METRICS[metric].scale:.{METRICS[metric].digits}f} over seeds"
            cells.append(f"{interval_text(score.estimate, metric)}{spread} (n {score.estimate.n})" if score else "-")
        lines.append(Line(system=run.system, cells=cells))
    return Table(group=group, columns=[unit_of(runs[0], group, metric) for metric in columns], lines=lines)


def _families(run: Run, verdicts: Sequence[PairVerdict]) -> str:
    """What was corrected together, for a reader; "" without verdicts."""
    sizes = {METRICS[verdict.metric].title: verdict.comparisons for verdict in verdicts}
    listed = ", ".join(f"{title} {count}" for title, count in sizes.items())
    return (
        "Differences are first minus second with their own 95 % interval, d is Cohen's d of the utterances' "
        "differences, p by a paired permutation test, corrected by Holm's method within "
        f"{run.benchmark.name} and one metric (comparisons: {listed})."
        if sizes
        else ""
    )


def _verdict_line(run: Run, verdict: PairVerdict) -> VerdictLine:
    return VerdictLine(
        group=verdict.group,
        metric=unit_of(run, verdict.group, verdict.metric),
        pair=f"{verdict.first} - {verdict.second}",
        difference=interval_text(verdict.difference, verdict.metric),
        effect=f"{verdict.effect:.2f}" if np.isfinite(verdict.effect) else "-",
        n=verdict.difference.n,
        p=f"{verdict.p:.4f}" if verdict.p >= 5e-5 else "<0.0001",
        sentence=verdict.sentence,
        better=verdict.better or "",
    )


def _published_line(row: PublishedRow) -> PublishedLine:
    values: dict[MetricKey, float | None] = {
        "official": row.official,
        "similarity": row.similarity,
        "followed": row.followed,
    }
    percent = ", ".join(
        f"{METRICS[key].title.removesuffix(', official')} {value:g}"
        for key, value in values.items()
        if value is not None
    )
    return PublishedLine(group=row.group, system=row.system, source=row.source, percent=percent)


def examples(scores: Sequence[UtteranceScore]) -> list[tuple[Place, UtteranceScore]]:
    """The best, median and worst of the scored wavs, by strict errors or by SIM where nothing was transcribed."""
    scored = [score for score in scores if score.status == "ok"]

    def badness(score: UtteranceScore) -> tuple[float, float, str]:
        return score.errors.strict.rate if score.errors else 0.0, -(score.similarity or 0.0), score.id

    order = sorted(scored, key=badness)
    if not order:
        return []
    chosen: list[tuple[Place, UtteranceScore]] = [
        ("best", order[0]),
        ("median", order[len(order) // 2]),
        ("worst", order[-1]),
    ]
    return chosen[: len(order)]


def _card(place: Place, score: UtteranceScore) -> Card:
    followed = score.instruction.followed if score.instruction else None
    return Card(
        place=place,
        id=score.id,
        text=score.text,
        pieces=[] if score.hypothesis is None else aligned(score.hypothesis, score.text, score.language),
        audio=_data_uri(score.wav),
        rate=f"{100 * score.errors.strict.rate:.1f} %" if score.errors else "",
        similarity="" if score.similarity is None else f"{100 * score.similarity:.1f}",
        dnsmos=f"{score.dnsmos.ovr:.2f}" if score.dnsmos else "",
        followed="" if followed is None else "followed" if followed else "not followed",
    )


def _data_uri(path: Path) -> str:
    """The audio as it was scored (16 kHz, mono), inside the page; empty where it can no longer be decoded."""
    try:
        samples_T = load(path).samples_T
    except AudioProblem:
        return ""
    flac = encode_flac(samples_T[: int(MAX_EXAMPLE_SECONDS * RATE_16K)], RATE_16K)
    return f"data:audio/flac;base64,{base64.b64encode(flac).decode()}"


def highlighted(score: UtteranceScore) -> str:
    """The text with the errors of the hypothesis, as safe HTML: what was left out, inserted or replaced."""
    parts = []
    for piece in aligned(score.hypothesis or "", score.text, score.language):
        expected, recognised = html.escape(piece.reference), html.escape(piece.hypothesis)
        parts.append(expected if piece.kind == "equal" else f"<del>{expected}</del> <ins>{recognised}</ins>")
    return " ".join(parts)


def _cell(text: str) -> str:
    """Fit for a Markdown table: nothing of a stranger's text is markup there."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _markdown(outcome: Outcome, sections: Sequence[Section]) -> str:
    lines = ["# voxmill evaluation", "", f"{outcome.started}, {outcome.seconds:.1f} s. Scores with 95 % intervals.", ""]
    lines += [f"**Not done**: {_cell(problem)}" for problem in outcome.problems]
    for section in sections:
        lines += ["", f"## {section.name}, {section.utterances} utterances", ""]
        lines += [", ".join(f"{role}: {_cell(name)}" for role, name in section.models.items()) + ".", ""]
        for table in section.tables:
            lines += _rows([table.group, *table.columns], [[line.system, *line.cells] for line in table.lines])
        lines += [f"{_cell(system)}: {counts}." for system, counts in section.counts]
        lines += [f"Malformed: {_cell(line)}." for line in section.malformed]
        if section.verdicts:
            body = [
                [v.group, v.metric, v.pair, v.difference, v.effect, str(v.n), v.p, v.sentence] for v in section.verdicts
            ]
            headings = ["group", "metric", "pair", "difference", "d", "n", "p (Holm)", "verdict"]
            lines += ["", _cell(section.families), "", *_rows(headings, body)]
        if section.published:
            body = [[row.group, row.system, row.percent, row.source] for row in section.published]
            lines += [
                "Published in the report, with other recognisers and encoders:",
                "",
                *_rows(["group", "system", "percent", "source"], body),
            ]
    return "\n".join(lines) + "\n"


def _rows(headings: list[str], rows: list[list[str]]) -> list[str]:
    table = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table] + [""]
