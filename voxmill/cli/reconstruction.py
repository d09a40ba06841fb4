"""`voxmill evaluate reconstruction`: a checkpoint's AudioVAE over held-out audio, to a table, files and MLflow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.core.errors import UserError

TITLES = {
    "mel_full": "MelD full band",
    "mel_16k": "MelD 16 kHz",
    "stoi_16k": "STOI 16 kHz",
    "pesq_16k": "PESQ 16 kHz",
    "si_sdr_16k": "SI-SDR (dB)",
}
SHORTEST = 1.0
"""Seconds below which a clip's last piece is left out."""


@dataclass(frozen=True)
class Options:
    """The command line. `only`: recordings to take, all where empty; `limit`: clips at most, spread over all."""

    checkpoint: Path
    data: str
    out: Path
    clip_seconds: float = 5.0
    only: tuple[str, ...] = ()
    limit: int = 200
    baselines: bool = False
    pesq: bool = True
    tracking_uri: str | None = None


def run(options: Options, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Scores, writes `reconstruction.json`, `.md` and `clips.jsonl` into `out`, logs to MLflow; gives the JSON's content.

    Args:
        others: more codecs to score beside it, by name (`evaluation.metrics.reconstruction.Codec`).

    Raises:
        UserError: no checkpoint, no audio that can be used, options that do not fit.
    """
    if options.clip_seconds < SHORTEST:
        raise UserError(f"--clip-seconds {options.clip_seconds:g}: must be {SHORTEST:g} or more; STOI and PESQ need it")
    if options.limit < 1:
        raise UserError(f"--limit {options.limit}: must be 1 or more")
    if options.pesq and find_spec("pesq") is None:
        raise UserError(
            "PESQ is a C extension that is not here: pip install voxmill[pesq], or leave it out by --no-pesq"
        )
    from evaluation.metrics.reconstruction import MEASURES, CodecScorer
    from voxmill.data.audio_sources import Skipped

    codecs, rate_out = _codecs(options)
    codecs |= others or {}
    scorer, skipped = CodecScorer(rate_out), Skipped()
    rows: list[dict[str, Any]] = []
    for name, audio, rate in _pieces(options, skipped):
        for codec, reconstruct in codecs.items():
            made, made_rate = reconstruct(audio, rate)
            scores = scorer.score(audio, rate, made, made_rate, with_pesq=options.pesq)
            rows.append({"clip": name, "rate": rate, "codec": codec, **asdict(scores)})
    if not rows:
        raise UserError(f"{options.data}: no piece could be used; passed by: {skipped}")
    found = {
        codec: {m: asdict(summarise([row[m] for row in rows if row["codec"] == codec])) for m in MEASURES}
        for codec in codecs
    }
    result = {
        "checkpoint": str(options.checkpoint),
        "data": options.data,
        "clips": len(rows) // len(codecs),
        "clip_seconds": options.clip_seconds,
        "recordings": list(options.only),
        "rate_out": rate_out,
        "source_rates": sorted({row["rate"] for row in rows}),
        "skipped": skipped.as_json(),
        "scores": found,
    }
    _write(options.out, result, rows)
    _track(options, result)
    _show(result)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSummary:
    """Mean of a measure over `count` clips with its 95 % interval; `missing` clips had no value. NaN where undefined."""

    mean: float
    low: float
    high: float
    count: int
    missing: int


def summarise(values: Sequence[float]) -> MeasureSummary:
    """Mean and interval over the clips whose value is finite; fewer than two of them have no interval."""
    from evaluation.results import statistics

    known = [value for value in values if np.isfinite(value)]
    estimate = statistics.mean(known)
    return MeasureSummary(
        mean=estimate.value, low=estimate.low, high=estimate.high, count=estimate.n, missing=len(values) - len(known)
    )


def _codecs(options: Options) -> tuple[dict[str, Any], int]:
    from evaluation.metrics.reconstruction import mel_codec, vae_codec
    from model.checkpoint import load_vae
    from model.config import read_config

    config = read_config(options.checkpoint)
    vae = load_vae(options.checkpoint, config)
    codecs: dict[str, Any] = {"AudioVAE": vae_codec(vae)}
    if options.baselines:
        codecs["64 mel bands at 25 Hz, Griffin-Lim"] = mel_codec(pool=4)
        codecs["64 mel bands at 100 Hz, Griffin-Lim"] = mel_codec(pool=1)
    return codecs, config.audio_vae_config.out_sample_rate


def _pieces(options: Options, skipped: Any) -> Iterator[tuple[str, np.ndarray, int]]:
    """(name, audio, rate) of pieces of clips; what cannot be used is counted in `skipped`."""
    from voxmill.core.audio import AudioProblem
    from voxmill.data.audio_sources import find_clips, read_clip

    clips, listed = find_clips(options.data, min_seconds=SHORTEST)
    for reason, names in listed.names.items():
        for name in names:
            skipped.add(reason, name)
        skipped.counts[reason] = listed.counts[reason]
    if options.only:
        unknown = sorted(set(options.only) - {clip.recording for clip in clips})
        if unknown:
            raise UserError(f"--only {unknown[0]}: no such recording in {options.data}")
        clips = [clip for clip in clips if clip.recording in options.only]
    places = []
    for clip in clips:
        size = round(options.clip_seconds * clip.sample_rate)
        for start in range(0, clip.num_samples, size):
            length = min(size, clip.num_samples - start)
            if length >= SHORTEST * clip.sample_rate:
                places.append((clip, start, length))
    if len(places) > options.limit:
        places = [places[i * len(places) // options.limit] for i in range(options.limit)]
    for clip, start, length in places:
        name = f"{clip.name}@{start / clip.sample_rate:g}"
        try:
            yield name, read_clip(clip, start, length), clip.sample_rate
        except AudioProblem as problem:
            skipped.add(problem.reason, name)


def _cell(measure: str, values: dict[str, Any]) -> str:
    digits = 1 if measure.startswith("si_sdr") else 3
    if np.isnan(values["mean"]):
        return "-"
    if np.isnan(values["low"]):
        return f"{values['mean']:.{digits}f}"
    return f"{values['mean']:.{digits}f} [{values['low']:.{digits}f}, {values['high']:.{digits}f}]"


def _table(result: dict[str, Any]) -> list[list[str]]:
    return [
        [codec, *(_cell(measure, scores[measure]) for measure in TITLES)] for codec, scores in result["scores"].items()
    ]


def _write(out: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from evaluation.results.records import write_text

    lines = [["codec", *TITLES.values()], ["---", *["---:"] * len(TITLES)], *_table(result)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    head = (
        f"{result['clips']} clips of at most {result['clip_seconds']:g} s, sources at {result['source_rates']} Hz; "
        "mean [95 % bootstrap interval over clips]"
    )
    write_text(out / "reconstruction.md", f"{head}\n\n{text}\n")
    # NaN is no JSON: a measure that was not taken is null.
    write_text(out / "reconstruction.json", json.dumps(_plain(result), indent=1, ensure_ascii=False))
    lines_out = [json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows]
    write_text(out / "clips.jsonl", "".join(lines_out))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _track(options: Options, result: dict[str, Any]) -> None:
    from voxmill.core.tracking import Tracker

    tracker = Tracker(
        options.out, uri=options.tracking_uri, experiment="reconstruction", name=options.checkpoint.name, step=-1
    )
    tracker.params({key: result[key] for key in ("checkpoint", "data", "clips", "clip_seconds")})
    values: dict[str, float] = {}
    for measure, score in result["scores"]["AudioVAE"].items():
        known = {"": score["mean"], "_low": score["low"], "_high": score["high"]}
        values |= {f"{measure}{end}": value for end, value in known.items() if not np.isnan(value)}
    tracker.metrics(0, values)
    for name in ("reconstruction.md", "reconstruction.json", "clips.jsonl"):
        tracker.file(options.out / name)
    tracker.finish()


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{result['clips']} clips, sources at {result['source_rates']} Hz; 95 % intervals"))
    for heading in ("codec", *TITLES.values()):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for row in _table(result):
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)
