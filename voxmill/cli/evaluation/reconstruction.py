"""`voxmill evaluate reconstruction`: a checkpoint's AudioVAE over held-out audio, to a table, files and MLflow."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.results.records import without_nan
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically

if TYPE_CHECKING:
    from evaluation.metrics.reconstruction import Codec, CodecScores
    from voxmill.core.audio import Samples
    from voxmill.data.audio_sources import Clip, Skipped

TITLES = {
    "mel_full": "MelD full band",
    "mel_16k": "MelD 16 kHz",
    "stoi_16k": "STOI 16 kHz",
    "pesq_16k": "PESQ 16 kHz",
    "si_sdr_16k": "SI-SDR (dB)",
}
SHORTEST = 1.0
"""Seconds below which a clip's last piece is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the command. `only`: recordings to take, all where empty; `limit`: clips at most, spread over all."""

    checkpoint: Path
    data: str
    out: Path
    clip_seconds: float = 5.0
    only: tuple[str, ...] = ()
    limit: int = 200
    baselines: bool = False
    pesq: bool = True
    tracking_uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSummary:
    """Mean of a measure over `count` clips, with its 95 % interval; NaN where undefined; `missing` clips have none."""

    mean: float
    low: float
    high: float
    count: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScores:
    """One codec on one clip: a line of clips.jsonl. `rate`: the recording's, in hertz."""

    clip: str
    rate: int
    codec: str
    scores: "CodecScores"

    def line(self) -> str:
        """The line, with the measures beside the clip's name."""
        names = {"clip": self.clip, "rate": self.rate, "codec": self.codec}
        return json.dumps(without_nan(names | asdict(self.scores)), ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """The content of reconstruction.json. Rates in hertz; `scores` by codec and then by measure."""

    checkpoint: str
    data: str
    clips: int
    clip_seconds: float
    recordings: list[str]
    rate_out: int
    source_rates: list[int]
    skipped: "Mapping[str, object]"
    scores: dict[str, dict[str, MeasureSummary]]


def run(options: Options, others: "Mapping[str, Codec] | None" = None) -> Reconstruction:
    """Scores, writes `reconstruction.json`, `.md` and `clips.jsonl` into `out`, and logs to MLflow.

    Args:
        others: more codecs to score beside it, by name.

    Raises:
        UserError: no checkpoint, no audio that can be used, options that do not fit.
    """
    if options.clip_seconds < SHORTEST:
        raise UserError(f"--clip-seconds {options.clip_seconds:g}: must be {SHORTEST:g} or more; STOI and PESQ need it")
    if options.limit < 1:
        raise UserError(f"--limit {options.limit}: must be 1 or more")
    if options.pesq and find_spec("pesq") is None:
        raise UserError("PESQ is a C extension that is not installed; pip install voxmill[pesq], or add --no-pesq")
    from evaluation.metrics.reconstruction import MEASURES, CodecScorer
    from voxmill.data.audio_sources import Skipped

    codecs, rate_out = _codecs(options)
    codecs |= others or {}
    scorer, skipped = CodecScorer(rate_out), Skipped()
    rows: list[ClipScores] = []
    for name, audio, rate in _pieces(options, skipped):
        for codec, reconstruct in codecs.items():
            made, made_rate = reconstruct(audio, rate)
            scores = scorer.score(audio, rate, made, made_rate, with_pesq=options.pesq)
            rows.append(ClipScores(clip=name, rate=rate, codec=codec, scores=scores))
    if not rows:
        raise UserError(f"{options.data}: no piece could be used; skipped: {skipped}")
    result = Reconstruction(
        checkpoint=str(options.checkpoint),
        data=options.data,
        clips=len(rows) // len(codecs),
        clip_seconds=options.clip_seconds,
        recordings=list(options.only),
        rate_out=rate_out,
        source_rates=sorted({row.rate for row in rows}),
        skipped=skipped.as_json(),
        scores={
            codec: {
                measure: summarise([getattr(row.scores, measure) for row in rows if row.codec == codec])
                for measure in MEASURES
            }
            for codec in codecs
        },
    )
    _write(options.out, result, rows)
    _track(options, result)
    _show(result)
    return result


def summarise(values: Sequence[float]) -> MeasureSummary:
    """Mean and interval over the clips whose value is finite; fewer than two of them have no interval."""
    from evaluation.results import statistics

    known = [value for value in values if math.isfinite(value)]
    estimate = statistics.mean(known)
    return MeasureSummary(
        mean=estimate.value, low=estimate.low, high=estimate.high, count=estimate.n, missing=len(values) - len(known)
    )


def _codecs(options: Options) -> "tuple[dict[str, Codec], int]":
    from evaluation.metrics.reconstruction import mel_codec, vae_codec
    from model.checkpoint import load_vae
    from model.config import read_config

    config = read_config(options.checkpoint)
    codecs = {"AudioVAE": vae_codec(load_vae(options.checkpoint, config))}
    if options.baselines:
        codecs["64 mel bands at 25 Hz, Griffin-Lim"] = mel_codec(pool=4)
        codecs["64 mel bands at 100 Hz, Griffin-Lim"] = mel_codec(pool=1)
    return codecs, config.audio_vae_config.out_sample_rate


def _pieces(options: Options, skipped: "Skipped") -> "Iterator[tuple[str, Samples, int]]":
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
    stretches: list[tuple[Clip, int, int]] = []
    for clip in clips:
        size = round(options.clip_seconds * clip.sample_rate)
        for start in range(0, clip.num_samples, size):
            length = min(size, clip.num_samples - start)
            if length >= SHORTEST * clip.sample_rate:
                stretches.append((clip, start, length))
    if len(stretches) > options.limit:
        stretches = [stretches[i * len(stretches) // options.limit] for i in range(options.limit)]
    for clip, start, length in stretches:
        name = f"{clip.name}@{start / clip.sample_rate:g}"
        try:
            yield name, read_clip(clip, start, length), clip.sample_rate
        except AudioProblem as problem:
            skipped.add(problem.reason, name)


def _cell(measure: str, summary: MeasureSummary) -> str:
    digits = 1 if measure.startswith("si_sdr") else 3
    if math.isnan(summary.mean):
        return "-"
    if math.isnan(summary.low):
        return f"{summary.mean:.{digits}f}"
    return f"{summary.mean:.{digits}f} [{summary.low:.{digits}f}, {summary.high:.{digits}f}]"


def _table(result: Reconstruction) -> list[list[str]]:
    return [
        [codec, *(_cell(measure, scores[measure]) for measure in TITLES)] for codec, scores in result.scores.items()
    ]


def _write(out: Path, result: Reconstruction, rows: Sequence[ClipScores]) -> None:
    lines = [["codec", *TITLES.values()], ["---", *["---:"] * len(TITLES)], *_table(result)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    head = (
        f"{result.clips} clips of at most {result.clip_seconds:g} s, sources at {result.source_rates} Hz; "
        "mean [95 % bootstrap interval over clips]"
    )
    write_atomically(out / "reconstruction.md", f"{head}\n\n{text}\n")
    plain = without_nan(asdict(result))
    write_atomically(out / "reconstruction.json", json.dumps(plain, indent=1, ensure_ascii=False))
    write_atomically(out / "clips.jsonl", "".join(row.line() for row in rows))


def _track(options: Options, result: Reconstruction) -> None:
    from voxmill.core.tracking import Tracker

    tracker = Tracker(
        options.out, uri=options.tracking_uri, experiment="reconstruction", name=options.checkpoint.name, step=-1
    )
    tracker.params({key: getattr(result, key) for key in ("checkpoint", "data", "clips", "clip_seconds")})
    values: dict[str, float] = {}
    for measure, summary in result.scores["AudioVAE"].items():
        known = {"": summary.mean, "_low": summary.low, "_high": summary.high}
        values |= {f"{measure}{end}": value for end, value in known.items() if not math.isnan(value)}
    tracker.metrics(0, values)
    for name in ("reconstruction.md", "reconstruction.json", "clips.jsonl"):
        tracker.file(options.out / name)
    tracker.finish()


def _show(result: Reconstruction) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{result.clips} clips, sources at {result.source_rates} Hz; 95 % intervals"))
    for heading in ("codec", *TITLES.values()):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for row in _table(result):
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)
