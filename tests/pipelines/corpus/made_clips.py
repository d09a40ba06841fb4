"""Clips for the tests of the steps over the corpus: every rule of selection keeps them unless a value is changed."""

from dataclasses import fields
from typing import Any

from pipelines.corpus.clips import CorpusClip
from voxmill.data.records import Candidate, Quality, ShardPlace, SourceInfo, TranscriptChecks, VoiceLabels, Window

RATE = 16_000


def made_clip(
    num: int = 0,
    *,
    session: str = "s",
    seconds: float = 4.0,
    size: int = 1000,
    speaker: str | None = None,
    voice: VoiceLabels | None = None,
    **changes: Any,
) -> CorpusClip:
    """Clip `num` of a session; one begins every 5 s.

    `changes` are values of fields of the clip, of the candidate, of its quality, or of its transcript's checks.
    """

    def changed(kind: type, **values: Any) -> Any:
        names = {field.name for field in fields(kind)}
        return kind(**values | {name: value for name, value in changes.items() if name in names})

    start = num * 5 * RATE
    quality = changed(
        Quality,
        dnsmos_sig=3.5,
        dnsmos_bak=4.0,
        dnsmos_ovr=3.5,
        dnsmos_p808=3.5,
        snr_db=30.0,
        clipping=0.0,
        bandwidth_hz=8000.0,
        loudness_lufs=-23.0,
        gain_db=0.0,
        dc_offset=0.0,
    )
    transcript = changed(
        TranscriptChecks,
        compression_ratio=1.2,
        repeated_ngram=0.0,
        characters_per_second=12.0,
        text_language="en",
        text_language_probability=0.99,
        mean_log_probability=-0.2,
        no_speech_probability=0.01,
        redecoded=False,
        aligner="test",
    )
    candidate = changed(
        Candidate,
        clip_id=f"{session}{num:04d}",
        start_sample=start,
        end_sample=start + round(seconds * RATE),
        turn=0,
        cut="pause",
        text="hello there",
        language="en",
        language_probability=0.99,
        quality=quality,
        transcript=transcript,
    )
    window = Window(
        recording_id=session,
        name=session,
        path=f"{session}.flac",
        start_sample=0,
        end_sample=start + 10 * RATE,
        sample_rate=RATE,
        source=SourceInfo(session=session, speaker=speaker),
    )
    return changed(  # type: ignore[no-any-return]
        CorpusClip,
        candidate=candidate,
        window=window,
        origin="native",
        place=ShardPlace(shard="work/units/u.tar", offset=0, size=size, sha256=None),
        voice=voice or VoiceLabels(),
        speaker=speaker,
    )
