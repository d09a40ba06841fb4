"""What a finished run records: one row an input, the models, what separation cost and spared."""

from collections import Counter
from dataclasses import replace
from importlib.metadata import version

from pipelines.config import AnnotateConfig, Labeller
from pipelines.corpus.collect import CollectedClips
from pipelines.report.run_record import ModelEntry, SeparationFigures, StageCost
from voxmill.data.records import Cost, Ending, Recording, Separation, StageName


def recordings(planned: list[Recording], collected: CollectedClips) -> list[Recording]:
    """One row an input with its one terminal state."""
    kept = Counter(clip.recording_id for clip in collected.kept)
    rejected: dict[str, list[Ending]] = {}
    for clip in collected.rejected:
        assert clip.ending is not None
        rejected.setdefault(clip.recording_id, []).append(clip.ending)
    return [
        row if row.state != "planned" else _finished(row, collected, kept, rejected.get(row.recording_id or "", []))
        for row in planned
    ]


def _finished(row: Recording, collected: CollectedClips, kept: Counter[str], rejected: list[Ending]) -> Recording:
    assert row.recording_id is not None
    windows = collected.windows[row.recording_id]
    separations = [window.separation for window in windows if window.separation is not None]
    row = replace(
        row,
        num_clips=sum(len(window.clips) for window in windows),
        num_kept=kept[row.recording_id],
        separated=any(separation.used for separation in separations),
        separation=separations[0].why if separations else None,
    )
    if row.num_kept:
        return replace(row, state="kept", stage=StageName.WRITE, reason="kept")
    row = replace(row, state="rejected")
    endings = [window.ending for window in windows if window.ending is not None]
    if len(endings) == len(windows):
        detail = "; ".join(filter(None, [row.detail, endings[0].detail]))
        return replace(_with_ending(row, endings[0]), detail=detail)
    counts = Counter(ending.reason for ending in rejected)
    worst = max(rejected, key=lambda ending: (counts[ending.reason], ending.reason))
    return replace(_with_ending(row, worst), detail=f"all {len(rejected)} clips dropped")


def _with_ending(row: Recording, ending: Ending) -> Recording:
    return replace(row, stage=ending.stage, reason=ending.reason, value=ending.value, threshold=ending.threshold)


def stage_costs(collected: CollectedClips) -> list[StageCost]:
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
        if (cost := collected.costs.get(name)) is not None
    ]


def separation_savings(collected: CollectedClips, config: AnnotateConfig) -> SeparationFigures:
    """How often separation ran and what running it only where needed saved."""
    rule = config.label.separation
    done: list[tuple[Separation, float]] = [
        (window.separation, window.window.seconds)
        for windows in collected.windows.values()
        for window in windows
        if window.separation is not None
    ]
    asked = sum(seconds for separation, seconds in done if separation.wanted)
    spared = sum(seconds for separation, seconds in done if not separation.wanted)
    spent = collected.costs.get(StageName.SEPARATION, Cost()).seconds
    share, ratio = f"{rule.max_music_share:.0%}", rule.min_snr_db
    return {
        "mode": rule.mode,
        "rule": f"music over {share} of the speech, or speech to background under {ratio} dB",
        "recordings_separated": sum(separation.used for separation, _ in done),
        "recordings_total": len(done),
        "seconds_spent": spent,
        "seconds_saved": spent / asked * spared if asked else None,
    }


def models(config: AnnotateConfig) -> list[ModelEntry]:
    """The models that the configuration names, with their checksums where they are embedded."""
    from voxmill.core.assets import ASSETS, asset_sha256

    label, voices, writer = config.label, config.voice_attributes, config.corpus_labels.descriptions
    named: list[tuple[StageName, str, str]] = [
        (StageName.EVENTS, label.events.model, "audio-events"),
        (StageName.SEPARATION, label.separation.model, "spleeter-2stems"),
        (StageName.SEGMENTATION, label.segmentation.model, "pyannote-segmentation"),
        (StageName.TRANSCRIPTION, label.transcription.model, "whisper-base"),
    ]
    optional: list[tuple[Labeller, str | None, str]] = [
        ("speaker", voices.speaker.model, "speaker-campplus"),
        ("gender", voices.gender.model, "voice2gender"),
        ("emotion", voices.emotion.model, ""),
        ("age", voices.age.model, ""),
    ]
    named += [(StageName(name), model, asset) for name, model, asset in optional if name in voices.labellers and model]
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
    return rows
