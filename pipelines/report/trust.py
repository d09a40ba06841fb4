"""How far predicted word error rates can be trusted: the reliability curve as coordinates that the page draws."""

from dataclasses import dataclass

from pipelines.corpus.figures import FifthFigures
from pipelines.report.formatting import number, visible
from pipelines.report.run_record import Run

SIDE = 150.0
"""Length of both axes, in SVG units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityPoint:
    """A fifth of the clips: place in SVG units, and the text that a pointer shows."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisTick:
    """A number on both axes, in SVG units from where they meet."""

    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What predicts word error rates; without a fit (`fit` None) only the recogniser and the thresholds are known."""

    recogniser: str
    fit: str | None
    date: str
    recordings: str
    fitted: str
    tried: str
    fifths: list[FifthFigures]
    points: list[ReliabilityPoint]
    ticks: list[AxisTick]
    limit: str


def trust(run: Run) -> Trust | None:
    """The section on trust; None for a `run.json` that says nothing of it."""
    figures = run.get("trust")
    if figures is None:
        return None
    select = (run.get("config") or {}).get("select")
    limit = select.get("max_predicted_wer") if isinstance(select, dict) else None
    most = max((max(row["predicted"], row["true"]) for row in figures["fifths"]), default=0.0)
    scale = SIDE / max(most, 1.0)
    return Trust(
        recogniser=visible(figures["recogniser"]),
        fit=None if figures["fit"] is None else visible(figures["fit"]),
        date=visible(figures["date"]),
        recordings=visible(figures["recordings"]),
        fitted=_clips(figures["fitted_clips"], figures["fitted_voices"], named=True),
        tried=_clips(figures["tried_clips"], figures["tried_voices"], named=False),
        fifths=figures["fifths"],
        points=[
            ReliabilityPoint(
                x=row["predicted"] * scale,
                y=SIDE - row["true"] * scale,
                title=f"{row['clips']:,} clips: predicted {row['predicted']:.3f}, true {row['true']:.3f}",
            )
            for row in figures["fifths"]
        ],
        ticks=[AxisTick(x=value * scale, text=number(value)) for value in (0.0, 0.5, 1.0)],
        limit=number(limit),
    )


def _clips(clips: int, voices: list[str], *, named: bool) -> str:
    """Such as "812 clips of 9 voices (asterisk-en, ...)"; "" where there are none."""
    if not clips:
        return ""
    names = ", ".join(visible(voice) for voice in voices[:30]) + (", …" if len(voices) > 30 else "")
    return f"{clips:,} clips of {len(voices):,} voice{'' if len(voices) == 1 else 's'}" + (
        f" ({names})" if named else ""
    )
