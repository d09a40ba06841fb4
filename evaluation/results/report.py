"""report.html and report.md of a comparison: every score with its interval, the verdicts, what went wrong, and the best,
the median and the worst utterance of each system to listen to.

Names, texts and hypotheses come from strangers' files and are escaped; the page loads and runs nothing.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics.audio_files import RATE, Audio, load
from evaluation.metrics.error_rates import Errors, aligned
from evaluation.results.comparison import METRICS, Row, Score, groups_of
from evaluation.results.published import published
from evaluation.results.records import Outcome, Run, unit_of, write_text
from evaluation.results.statistics import Estimate

MAX_EXAMPLE_SECONDS = 30.0


def shown(estimate: Estimate, metric: str) -> str:
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
    write_text(outcome.out / "report.html", page)
    write_text(outcome.out / "report.md", _markdown(outcome, sections))


def _section(outcome: Outcome, benchmark: str) -> dict[str, Any]:
    """A benchmark as both reports show it, as plain strings."""
    runs = [run for run in outcome.runs if run.benchmark.name == benchmark]
    groups = groups_of(runs[0].rows)
    scores = {(s.group, s.system, s.metric): s for s in outcome.scores if s.benchmark == benchmark}
    metrics = [metric for metric in METRICS if any(metric == key[2] for key in scores)]
    return {
        "name": benchmark,
        "utterances": len(runs[0].benchmark.utterances),
        "malformed": [str(line) for line in runs[0].benchmark.malformed],
        "models": runs[0].models,
        "tables": [_table(runs, group, metrics, scores) for group in groups],
        "counts": [(run.system, ", ".join(f"{n} {name}" for name, n in run.counts.items())) for run in runs],
        "published": _published(benchmark, groups),
        "verdicts": [
            {
                "group": v.group,
                "metric": unit_of(runs[0], v.group, v.metric),
                "pair": f"{v.first} - {v.second}",
                "difference": shown(v.difference, v.metric),
                "n": v.difference.n,
                "p": f"{v.p:.4f}",
                "sentence": v.sentence,
                "better": v.better or "",
            }
            for v in outcome.verdicts
            if v.benchmark == benchmark
        ],
        "examples": [
            {"system": run.system, "cards": [_card(run, *example) for example in examples(run.rows)]} for run in runs
        ],
        "failures": [
            {"system": run.system, "id": row["id"], "status": row["status"], "detail": row["detail"] or ""}
            for run in runs
            for row in run.rows
            if row["status"] != "ok"
        ][:200],
    }


def _table(
    runs: Sequence[Run], group: str, metrics: Sequence[str], scores: dict[tuple[str, str, str], Score]
) -> dict[str, Any]:
    columns = [metric for metric in metrics if any((group, run.system, metric) in scores for run in runs)]
    lines = []
    for run in runs:
        cells = []
        for metric in columns:
            score = scores.get((group, run.system, metric))
            spread = ""
            if score and score.seed_deviation is not None:
                spread = f" ± {score.seed_deviation * METRICS[metric].scale:.{METRICS[metric].digits}f} over seeds"
            cells.append(f"{shown(score.estimate, metric)}{spread} (n {score.estimate.n})" if score else "-")
        lines.append({"system": run.system, "cells": cells})
    return {"group": group, "columns": [unit_of(runs[0], group, metric) for metric in columns], "rows": lines}


def _published(benchmark: str, groups: list[str]) -> list[dict[str, str]]:
    return [
        {
            "group": row["group"],
            "system": row["system"],
            "source": row["source"],
            "values": ", ".join(
                f"{METRICS[key].title.removesuffix(', official')} {row[key]:g}"
                for key in ("official", "similarity", "followed")
                if key in row
            ),
        }
        for row in published(benchmark, groups)
    ]


def examples(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """(`best`, `median` or `worst`, row) by strict errors, or by SIM where nothing was transcribed; of what was heard."""
    heard = [row for row in rows if row["status"] == "ok"]
    if not heard:
        return []

    def badness(row: Row) -> tuple[float, float]:
        rate = Errors(**row["errors"]["strict"]).rate if row.get("errors") else 0.0
        return rate, -(row["similarity"] if row["similarity"] is not None else 0.0)

    order = sorted(heard, key=lambda row: (*badness(row), row["id"]))
    chosen = [("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])]
    return chosen[: len(order)] if len(order) < 3 else chosen


def _card(run: Run, place: str, row: Row) -> dict[str, Any]:
    pieces = aligned(row["hypothesis"], row["text"], row["language"]) if row["hypothesis"] is not None else []
    rate = Errors(**row["errors"]["strict"]).rate if row.get("errors") else None
    return {
        "place": place,
        "id": row["id"],
        "text": row["text"],
        "pieces": pieces,
        "audio": _data_uri(Path(row["wav"])),
        "rate": "" if rate is None else f"{100 * rate:.1f} %",
        "similarity": "" if row["similarity"] is None else f"{100 * row['similarity']:.1f}",
        "dnsmos": f"{row['dnsmos']['ovr']:.2f}" if row.get("dnsmos") else "",
        "followed": "" if row.get("followed") is None else "followed" if row["followed"] else "not followed",
    }


def _data_uri(path: Path) -> str:
    """The audio as it was scored (16 kHz, mono), inside the page; empty where it cannot be heard."""
    import soundfile

    audio = load(path)
    if not isinstance(audio, Audio):
        return ""
    buffer = io.BytesIO()
    soundfile.write(buffer, audio.samples[: int(MAX_EXAMPLE_SECONDS * RATE)], RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def highlighted(row: Row) -> str:
    """A row's reference with its errors, as safe HTML: what was left out, put in or put in its place."""
    parts = []
    for piece in aligned(row["hypothesis"] or "", row["text"], row["language"]):
        said, heard = html.escape(piece.reference), html.escape(piece.hypothesis)
        parts.append(said if piece.kind == "equal" else f"<del>{said}</del> <ins>{heard}</ins>")
    return " ".join(parts)


def _cell(text: str) -> str:
    """Fit for a Markdown table: nothing of a stranger's text is markup there."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _markdown(outcome: Outcome, sections: list[dict[str, Any]]) -> str:
    lines = ["# voxmill evaluation", "", f"{outcome.started}, {outcome.seconds:.1f} s. Scores with 95 % intervals.", ""]
    lines += [f"**Not done**: {_cell(problem)}" for problem in outcome.problems]
    for section in sections:
        lines += ["", f"## {section['name']}, {section['utterances']} utterances", ""]
        lines += [", ".join(f"{what}: {_cell(name)}" for what, name in section["models"].items()) + ".", ""]
        for table in section["tables"]:
            lines += _rows([table["group"], *table["columns"]], [[r["system"], *r["cells"]] for r in table["rows"]])
        lines += [f"{_cell(system)}: {counts}." for system, counts in section["counts"]]
        lines += [f"Malformed: {_cell(line)}." for line in section["malformed"]]
        if section["verdicts"]:
            body = [
                [v["group"], v["metric"], v["pair"], v["difference"], str(v["n"]), v["p"], v["sentence"]]
                for v in section["verdicts"]
            ]
            lines += ["", *_rows(["group", "metric", "pair", "difference", "n", "p (Holm)", "verdict"], body)]
        if section["published"]:
            body = [[row["group"], row["system"], row["values"], row["source"]] for row in section["published"]]
            lines += [
                "Published in the report, with other recognisers and encoders:",
                "",
                *_rows(["group", "system", "percent", "source"], body),
            ]
    return "\n".join(lines) + "\n"


def _rows(headings: list[str], rows: list[list[str]]) -> list[str]:
    table = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table] + [""]
