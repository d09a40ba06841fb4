"""What a finished run records: the models, what the stages took, what separation cost and spared."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from annotation.audio.separation import DEEPFILTERNET, EMBEDDED, SPLEETER, SeparationConfig, separator_name
from annotation.speech.recognisers.config import recogniser_name
from annotation.voice.gender import GenderConfig
from pipelines.config import AnnotateConfig, Labeller
from pipelines.corpus.figures import BucketFigures
from pipelines.corpus.labels import given_table
from pipelines.report.bucket_summary import BucketSummary
from pipelines.report.run_record import CorrectionFigures, ModelEntry, SecondDecodings, SeparationFigures, StageCost
from voxmill.data.records import ClipId, Cost, StageName

MAX_UNKNOWN = 5
"""Names of corrected clips that are not there, as examples."""


def stage_costs(figures: BucketFigures) -> list[StageCost]:
    """Compute of the stages that ran, in the order of `StageName`."""
    return [
        {
            "name": name,
            "seconds": cost.seconds,
            "gpu_seconds": cost.gpu_seconds,
            "audio_seconds": cost.audio_seconds,
            "calls": cost.calls,
        }
        for name in StageName
        if (cost := figures.costs.get(name)) is not None
    ]


def separation_savings(figures: BucketFigures, config: AnnotateConfig) -> SeparationFigures:
    """How often separation ran and what running it only where needed saved."""
    rule = config.label.separation
    spent, asked = figures.costs.get(StageName.SEPARATION, Cost()).seconds, figures.asked_seconds
    share, ratio = f"{rule.max_music_share:.0%}", rule.min_snr_db
    return {
        "mode": rule.mode,
        "rule": f"music over {share} of the speech, or speech to background under {ratio} dB",
        "recordings_separated": figures.separated,
        "recordings_total": figures.windows,
        "seconds_spent": spent,
        "seconds_saved": spent / asked * figures.spared_seconds if asked else None,
    }


def second_decodings(figures: BucketFigures) -> SecondDecodings:
    """How many clips were decoded twice, why, and what it took."""
    cost = figures.costs.get(StageName.TRANSCRIPTION, Cost())
    return {
        "clips": figures.transcribed,
        "twice": sum(figures.decoded_twice.values()),
        "why": figures.most_common(figures.decoded_twice),
        "seconds_spent": cost.again_seconds,
        "seconds_of_all": cost.seconds,
    }


def decoded_twice(figures: SecondDecodings) -> str:
    """The same as a line for the screen; "" where nothing was decoded twice."""
    if not figures["twice"]:
        return ""
    return (
        f"decoded {figures['twice']} of {figures['clips']} clips twice"
        f" ({figures['twice'] / figures['clips']:.1%}: {_by_count(figures['why'])}),"
        f" {figures['seconds_spent']:.0f} of {figures['seconds_of_all']:.0f} s of transcription"
    )


def given_labels(counts: Mapping[str, int]) -> list[str]:
    """How labels of the corpus compare with the classifiers', as lines for the screen; `counts` as in the figures."""
    return [
        f"{row['attribute']} given for {row['pass'] + row['fail'] + row['abstain']} clips;"
        f" the classifier says another for {row['fail']} and nothing for {row['abstain']}"
        for row in given_table(counts)
    ]


def corrections(figures: BucketFigures, rows: int, unknown: Sequence[ClipId]) -> CorrectionFigures:
    """What `rows` corrections changed; `unknown`: clips of them that are not there, in order."""
    return {
        "rows": rows,
        "clips": figures.most_common(figures.corrected),
        "unknown": len(unknown),
        "unknown_examples": list(unknown[:MAX_UNKNOWN]),
    }


def corrected(figures: CorrectionFigures) -> list[str]:
    """The same as lines for the screen; none without corrections."""
    lines = [f"corrections: {_by_count(figures['clips'])}"] if figures["clips"] else []
    if figures["unknown"]:
        names = ", ".join(figures["unknown_examples"])
        lines.append(
            f"corrections of clips that are not here: {figures['unknown']} of {figures['rows']}, such as {names}"
        )
    return lines


def models(config: AnnotateConfig) -> list[ModelEntry]:
    """The models that the configuration names, with their checksums where they are embedded."""
    from voxmill.core.assets import ASSETS, asset_sha256

    label, voices, writer = config.label, config.voice_attributes, config.corpus_labels.descriptions
    named: list[tuple[StageName, str, str]] = [
        (StageName.EVENTS, label.events.model, "audio-events"),
        *_separators(label.separation),
        (StageName.SEGMENTATION, label.segmentation.pipeline or label.segmentation.model, "pyannote-segmentation"),
    ]
    recognisers = [label.transcription, *label.transcription.by_language.values()]
    whispers = {one.model for one in recognisers if one.backend == "faster-whisper"}
    if label.transcription.backend != "faster-whisper":
        whispers.add(label.transcription.language_id_model)
    others = {recogniser_name(one) for one in recognisers if one.backend != "faster-whisper"}
    named += [(StageName.TRANSCRIPTION, name, "whisper-base") for name in sorted(whispers | others)]
    optional: list[tuple[Labeller, str | None, str]] = [
        ("speaker", voices.speaker.model, "speaker-campplus"),
        *_gender_models(voices.gender),
        ("emotion", voices.emotion.model, ""),
        ("age", voices.age.model, ""),
        ("dialect", voices.dialect.model, ""),
    ]
    named += [(StageName(name), model, asset) for name, model, asset in optional if name in voices.labellers and model]
    if label.alignment.model is not None:
        named.append((StageName.TRANSCRIPTION, label.alignment.model, ""))
    if "descriptions" in config.corpus_labels.labels and writer.writer == "embedded":
        named.append((StageName.DESCRIPTIONS, writer.embedded.model, "smollm2-135m"))
    rows: list[ModelEntry] = []
    for stage, model, asset in named:
        if model == "embedded":
            known, sha256 = ASSETS[asset], asset_sha256(asset)
            rows.append(
                {"stage": stage, "name": asset, "source": known.source, "sha256": sha256, "licence": known.licence}
            )
        else:
            rows.append({"stage": stage, "name": model, "source": model, "sha256": None, "licence": None})
    dnsmos = f"speechmos {version('speechmos')}"
    rows.append({"stage": StageName.QUALITY, "name": "DNSMOS", "source": dnsmos, "sha256": None, "licence": "MIT"})
    if "mos" in voices.labellers:
        own = f"distillmos {version('distillmos')}"
        rows.append({"stage": StageName.MOS, "name": "DistillMOS", "source": own, "sha256": None, "licence": "MIT"})
    return rows


def _gender_models(config: GenderConfig) -> list[tuple[Labeller, str | None, str]]:
    if config.model != "embedded":
        return [("gender", config.model, "")]
    assets = {"cnn": "gender-cnn", "trees": "voice2gender"}
    return [("gender", "embedded", assets[name]) for name in config.embedded]


def _separators(config: SeparationConfig) -> list[tuple[StageName, str, str]]:
    """The models that separate from music and from noise, which may be one; none where nothing is separated."""
    if config.mode == "never":
        return []
    names = dict.fromkeys(separator_name(config, background) for background in EMBEDDED)
    assets = {SPLEETER: "spleeter-2stems", DEEPFILTERNET: "deepfilternet3"}
    return [(StageName.SEPARATION, "embedded" if name in assets else name, assets.get(name, "")) for name in names]


def losses(summary: BucketSummary, figures: BucketFigures) -> list[str]:
    """What was lost and what is doubtful, a line each, for the screen."""
    lines = []
    unreadable = {row.reason: row.recordings.count for row in summary.ends if row.state == "unreadable"}
    if unreadable:
        lines.append(f"unreadable: {_by_count(unreadable)}")
    in_part = summary.num_in_state("kept_in_part")
    if in_part:
        lost = [row for row in summary.ended_windows if row.reason != "no_speech"]
        seconds = sum(row.windows.seconds for row in lost)
        reasons = _by_count({row.reason: row.windows.count for row in lost})
        lines.append(f"kept in part: {in_part} recordings lost {seconds:.1f} s of windows ({reasons})")
    if summary.warned:
        kinds = _by_count({row.kind: row.kept for row in summary.warnings if row.kept})
        lines.append(f"warnings: {summary.warned} of the recordings kept ({kinds}), see the report")
    if figures.others:
        lines.append(f"no audio: {figures.others} other files, such as {', '.join(figures.other_names)}")
    return lines


def _by_count(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
