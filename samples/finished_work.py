"""Finished work of `annotate` below an OUT, fabricated: what the corpus steps read, in its real formats, without audio.

Recordings of 600 s in two windows, 42 clips of 7 s a window; some sessions of many recordings, five languages, a tenth
of the clips below the thresholds, one recording in fifty with the clips of another. A clip's FLAC is a few bytes.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.config import AnnotateConfig
from pipelines.units.label_store import LabelStore, UnitLabels
from pipelines.units.plan_files import BucketPlan, fix_buckets, write_bucket
from pipelines.units.store import unit_path, write_unit
from pipelines.units.unit import group, label_fingerprint
from voxmill.data.layout import bucket_of
from voxmill.data.records import (
    Candidate,
    Cost,
    Emotion,
    Events,
    Gender,
    Label,
    Prosody,
    Quality,
    Recording,
    Separation,
    SourceInfo,
    StageName,
    TranscriptChecks,
    Window,
    WindowResult,
    Word,
    WorkUnit,
)

RATE = 24_000
CLIPS_A_WINDOW = 42
WINDOWS = 2
CLIPS_A_RECORDING = CLIPS_A_WINDOW * WINDOWS
SECONDS = 600
LANGUAGES = ("en", "en", "de", "fr", "es", "zh")
WORDS = ("morning", "river", "garden", "window", "people", "quiet", "before", "letter", "seven", "market", "always")
FLAC = b"fLaC" + bytes(60)
VECTOR = 192


def recording_windows(number: int) -> list[Window]:
    """The windows of recording `number`: a quarter lie in sessions of sixteen, the others in one of their own."""
    session = number // 16 if number // 16 % 4 == 1 else 1_000_000_000 + number
    name = f"show-{session:010d}/recording-{number:09d}.flac"
    return [
        Window(
            recording_id=_digest(f"recording {number}"),
            name=name,
            path=name,
            start_sample=index * SECONDS // WINDOWS * RATE,
            end_sample=(index + 1) * SECONDS // WINDOWS * RATE,
            sample_rate=RATE,
            source=SourceInfo(session=f"show-{session:010d}"),
        )
        for index in range(WINDOWS)
    ]


def make_finished(out: Path, clips: int, config: AnnotateConfig, first: int = 0) -> int:
    """Plan, units and labels of about so many clips; returns how many.

    Args:
        first: number of the first recording; what is there of a plan is replaced, units and labels stay.
    """
    count = -(-clips // CLIPS_A_RECORDING)
    numbers = [*([] if not first else range(first)), *range(first, first + count)]
    buckets = fix_buckets(out, len(numbers) * SECONDS / 3600, config.write.buckets)
    windows: dict[int, list[Window]] = {}
    recordings: dict[int, list[Recording]] = {}
    number_of: dict[str, int] = {}
    for number in numbers:
        for index, window in enumerate(recording_windows(number)):
            bucket = bucket_of(window.source.session, buckets)
            windows.setdefault(bucket, []).append(window)
            number_of[window.recording_id] = number
            if not index:
                recordings.setdefault(bucket, []).append(_planned(window))
    store = LabelStore(out, config.voice_attributes)
    label_id = label_fingerprint(config.label)
    for bucket, inside in sorted(windows.items()):
        inside.sort(key=lambda window: (window.name, window.start_sample))
        units = group(inside, config.label.unit_seconds, label_id, bucket)
        rows = tuple(sorted(recordings[bucket], key=lambda row: row.path))
        write_bucket(out, bucket, BucketPlan(recordings=rows, units=tuple(units)))
        for unit in units:
            if number_of[unit.results[0].window.recording_id] >= first:
                _write_unit(out, unit, number_of, store)
    return count * CLIPS_A_RECORDING


def _planned(window: Window) -> Recording:
    return Recording(
        recording_id=window.recording_id,
        path=window.name,
        session=window.source.session,
        state="planned",
        stage=StageName.SCAN,
        duration=float(SECONDS),
        sample_rate=RATE,
        channels=1,
        codec="flac",
    )


def _write_unit(out: Path, unit: WorkUnit, number_of: dict[str, int], store: LabelStore) -> None:
    results = tuple(_result(result.window, number_of[result.window.recording_id]) for result in unit.results)
    clips = [(candidate, result.window) for result in results for candidate in result.clips]
    costs = {name: Cost(seconds=3.0, audio_seconds=300.0, calls=1) for name in list(StageName)[1:8]}
    finished = WorkUnit(unit_id=unit.unit_id, bucket=unit.bucket, results=results, costs=costs)
    write_unit(unit_path(out, unit.bucket, unit.unit_id), finished, ((c.clip_id, FLAC) for c, _ in clips))
    rng = np.random.default_rng(int(unit.unit_id[:8], 16))
    prosody, speaker, gender, emotion, age = {}, {}, {}, {}, {}
    for candidate, window in clips:
        voice = np.random.default_rng(_voice(window, candidate.turn)).standard_normal(VECTOR)
        female = bool(voice[0] > 0)
        prosody[candidate.clip_id] = Label(value=_prosody(rng, female))
        vector = voice + 0.2 * rng.standard_normal(VECTOR)
        speaker[candidate.clip_id] = Label(value=(vector / np.linalg.norm(vector)).astype(np.float32))
        label = Gender(label="female" if female else "male", female=0.95 if female else 0.05)
        gender[candidate.clip_id] = Label(value=label)
        happy = round(float(rng.uniform(0.1, 0.9)), 4)
        scores = {"neutral": round(1 - happy, 4), "happy": happy}
        name = max(scores, key=lambda key: scores[key])
        emotion[candidate.clip_id] = Label(
            value=Emotion(label=name, probability=scores[name], probabilities=scores, intensity=happy)
        )
        age[candidate.clip_id] = Label[object](reason="no_model")
    cost = Cost(seconds=1.0, audio_seconds=294.0, calls=len(clips))
    for labeller, labels in (
        ("prosody", prosody),
        ("speaker", speaker),
        ("gender", gender),
        ("emotion", emotion),
        ("age", age),
    ):
        if labeller in store.labellers:
            store.write(labeller, unit.bucket, unit.unit_id, UnitLabels[object](cost=cost, labels=labels))


def _result(window: Window, number: int) -> WindowResult:
    # One recording in fifty has the clips of the one eight before it: the same audio in another file.
    content = number - 8 if number % 50 == 49 else number
    rng = np.random.default_rng((content, window.start_sample))
    language = LANGUAGES[content % len(LANGUAGES)]
    return WindowResult(
        window=window,
        events=Events(speech_seconds=290.0, music_share=0.0, singing_share=0.0, snr_db=25.0),
        separation=Separation(wanted=False, why="clean"),
        candidates=tuple(_candidates(rng, window, content, language)),
    )


def _candidates(rng: np.random.Generator, window: Window, content: int, language: str) -> Iterator[Candidate]:
    for index in range(CLIPS_A_WINDOW):
        start = window.start_sample + index * 7 * RATE
        chosen = rng.integers(0, len(WORDS), 18)
        words = tuple(
            Word(WORDS[word], round(0.35 * place, 2), round(0.35 * place + 0.3, 2), 0.9)
            for place, word in enumerate(chosen.tolist())
        )
        ovr = round(float(rng.normal(3.2, 0.45)), 3)
        yield Candidate(
            clip_id=_digest(f"clip {content} {start}"),
            start_sample=start,
            end_sample=start + 7 * RATE - RATE // 4,
            turn=index % 2,
            cut="pause",
            text=" ".join(word.word for word in words),
            words=words,
            language=language,
            language_probability=0.98,
            transcript=TranscriptChecks(
                compression_ratio=1.3,
                repeated_ngram=0.05,
                characters_per_second=14.0,
                text_language=language,
                text_language_probability=0.9,
                mean_log_probability=-0.2,
                no_speech_probability=0.01,
                redecoded=False,
                aligner="fabricated",
            ),
            quality=Quality(
                dnsmos_sig=ovr,
                dnsmos_bak=4.0,
                dnsmos_ovr=ovr,
                dnsmos_p808=3.5,
                snr_db=float(rng.uniform(2, 40)),
                clipping=0.0,
                bandwidth_hz=11_000.0,
                loudness_lufs=-23.0,
                gain_db=0.0,
                dc_offset=0.0,
            ),
        )


def _prosody(rng: np.random.Generator, female: bool) -> Prosody:
    return Prosody(
        f0_median_hz=float(rng.normal(200 if female else 120, 15)),
        f0_std_semitones=float(rng.gamma(9, 0.33)),
        f0_range_semitones=float(rng.gamma(9, 1.0)),
        voiced_share=0.7,
        energy_std_db=float(rng.normal(7, 1)),
        energy_range_db=float(rng.normal(20, 2)),
        rate=float(rng.normal(5, 0.6)),
        articulation_rate=float(rng.normal(5.6, 0.6)),
        rate_unit="syllables",
        pauses=1,
        pause_share=float(rng.uniform(0, 0.3)),
        longest_pause=0.3,
        hnr_db=float(rng.normal(12, 2)),
        spectral_tilt_db=float(rng.normal(16, 3)),
        jitter=0.02,
        shimmer=0.1,
    )


def _voice(window: Window, turn: int) -> int:
    return int(_digest(f"voice {window.source.session} {turn}")[:8], 16)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
