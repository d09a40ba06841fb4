"""Long clips as the last step of transcription: what is joined by text and sound, and what stays as it is."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from annotation.audio.segmentation import SegmentationConfig
from annotation.speech.transcription import Transcript
from pipelines.config import LabelConfig, VoiceAttributesConfig
from pipelines.stages.base import StageContext, WindowAudio
from pipelines.stages.long_clips import with_long_clips
from pipelines.stages.measure import Measure
from pipelines.stages.segment import clip_id
from samples.bad_input import RECORDINGS
from voxmill.data.records import Candidate, Separation, SourceInfo, Window, WindowResult, Word

RATE = 16000
FIRST_SAMPLE = 7 * RATE
SECONDS, PAUSE = 10.0, 0.5
LABEL = LabelConfig(segmentation=SegmentationConfig(lengths={60: 1.0}))


def window_of(num: int) -> tuple[WindowResult, np.ndarray]:
    """A window of clips of 10 s with pauses between them, of one speaker; each says its number ten times."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1e-3, round(num * (SECONDS + PAUSE) * RATE)).astype(np.float32)
    window = Window(
        recording_id="r" * 32,
        name="a.flac",
        path="a.flac",
        start_sample=FIRST_SAMPLE,
        end_sample=FIRST_SAMPLE + len(samples),
        sample_rate=RATE,
        source=SourceInfo(session="a"),
    )
    candidates = []
    for number in range(num):
        start = round(number * (SECONDS + PAUSE) * RATE)
        end = start + round(SECONDS * RATE)
        for word in range(10):
            samples[start + word * RATE :][: round(0.8 * RATE)] += rng.normal(0, 0.1, round(0.8 * RATE))
        words = tuple(Word(f"word{number}", float(word), word + 0.8, 0.9) for word in range(10))
        text = " ".join(word.word for word in words)
        candidates.append(
            Candidate(
                clip_id=clip_id(window, FIRST_SAMPLE + start, FIRST_SAMPLE + end),
                start_sample=FIRST_SAMPLE + start,
                end_sample=FIRST_SAMPLE + end,
                turn=0,
                cut="pause",
                text=text,
                words=words,
                language="en",
                language_probability=0.9,
                transcript=dataclasses.replace(
                    Transcript(text=text, words=words).check("en", SECONDS), compression_ratio=1.5, repeated_ngram=0.0
                ),
            )
        )
    return WindowResult(window=window, candidates=tuple(candidates)), samples


def joined_from(result: WindowResult) -> list[tuple[int, int]]:
    """First and last number of the clips that each clip was joined from, its parts left out."""
    whole = [clip for clip in result.candidates if not clip.part_of]
    numbers = [tuple(int(word.word.removeprefix("word")) for word in clip.words) for clip in whole]
    return [(min(own), max(own)) for own in numbers]


def test_neighbours_become_one_clip_with_their_pauses_and_nothing_is_in_two() -> None:
    before, samples = window_of(20)
    after = with_long_clips(before, samples, LABEL)
    runs = joined_from(after)
    assert [number for first, last in runs for number in range(first, last + 1)] == list(range(20))
    names = {clip.part_of for clip in after.candidates} - {""}
    assert len(names) >= 3
    long = [clip for clip in after.candidates if clip.clip_id in names]
    # All that was transcribed is still there, as it was.
    alone = [dataclasses.replace(clip, part_of="") for clip in after.candidates if clip not in long]
    assert alone == list(before.candidates)
    for clip in long:
        assert 30 < (clip.end_sample - clip.start_sample) / RATE <= 60
        own = [part for part in after.candidates if part.part_of == clip.clip_id]
        first = after.candidates.index(clip) + 1
        assert list(after.candidates[first : first + len(own)]) == own and len(own) > 1
        assert (clip.start_sample, clip.end_sample) == (own[0].start_sample, own[-1].end_sample)
        assert clip.clip_id == clip_id(before.window, clip.start_sample, clip.end_sample)
        # All is sound at the word's times, and none between them.
        sound = samples[clip.start_sample - FIRST_SAMPLE : clip.end_sample - FIRST_SAMPLE]
        for word in clip.words:
            assert np.abs(sound[round(word.start * RATE) : round(word.end * RATE)]).mean() > 0.05
    assert with_long_clips(before, samples, LABEL) == after


@pytest.mark.parametrize("why", ["unsure", "noisy", "noise in pauses", "separated", "speaker"])
def test_what_spoils_one_clip_is_cut_around(why: str) -> None:
    before, samples = window_of(12)
    spoilt = before.candidates[6]
    assert spoilt.transcript is not None
    bounds = slice(spoilt.start_sample - FIRST_SAMPLE, spoilt.end_sample - FIRST_SAMPLE)
    changed = spoilt
    if why == "unsure":
        checks = dataclasses.replace(spoilt.transcript, mean_log_probability=-1.5)
        changed = dataclasses.replace(spoilt, transcript=checks)
    elif why == "noisy":
        samples[bounds] += np.random.default_rng(1).normal(0, 0.1, bounds.stop - bounds.start)
    elif why == "noise in pauses":
        for place in (bounds.start - RATE // 3, bounds.stop):
            samples[place : place + RATE // 3] = np.random.default_rng(1).normal(0, 0.1, RATE // 3)
    elif why == "separated":
        used_in = ((bounds.start / RATE + 0.1, bounds.stop / RATE - 0.1),)
        before = dataclasses.replace(
            before, separation=Separation(wanted=True, why="music", used=True, wanted_in=used_in, used_in=used_in)
        )
    else:
        changed = dataclasses.replace(spoilt, turn=1)
    before = dataclasses.replace(
        before, candidates=tuple(changed if clip is spoilt else clip for clip in before.candidates)
    )
    after = joined_from(with_long_clips(before, samples, LABEL))
    assert (6, 6) in after
    # Both sides have room for long clips.
    assert any(first < last < 6 for first, last in after) and any(6 < first < last for first, last in after)


def test_a_window_without_room_for_a_long_clip_stays_as_it_is() -> None:
    before, samples = window_of(2)
    assert with_long_clips(before, samples, LABEL) == before
    many, samples = window_of(12)
    assert with_long_clips(many, samples, LabelConfig(segmentation=SegmentationConfig(lengths={}))) == many
    nothing = dataclasses.replace(many, candidates=())
    assert with_long_clips(nothing, samples, LABEL) == nothing


def test_the_dnsmos_of_a_long_clip_is_the_mean_of_its_parts() -> None:
    before, _ = window_of(2)
    speech, _ = soundfile.read(RECORDINGS / "en-1.flac", frames=6 * RATE, dtype="float32")
    noise = np.random.default_rng(0).normal(0, 0.05, 6 * RATE).astype(np.float32)
    clips = (np.concatenate([speech, (speech + noise)[: 2 * RATE]]), speech, (speech + noise)[: 2 * RATE])
    parts = tuple(dataclasses.replace(clip, part_of="long") for clip in before.candidates)
    long = dataclasses.replace(parts[0], clip_id="long", part_of="")
    result = dataclasses.replace(before, candidates=(long, *parts))
    context = StageContext(out=Path(), label=LABEL, voice_attributes=VoiceAttributesConfig(), threads=1, device="cpu")
    measured = Measure(context).window(result, WindowAudio(clips=clips)).result.candidates
    assert [clip.clip_id for clip in measured] == ["long", *(clip.clip_id for clip in parts)]
    whole, first, second = (clip.quality for clip in measured)
    assert whole is not None and first is not None and second is not None
    assert first.dnsmos_ovr - second.dnsmos_ovr > 0.2
    assert whole.dnsmos_ovr == pytest.approx((3 * first.dnsmos_ovr + second.dnsmos_ovr) / 4)
    # The rest is its own.
    assert second.snr_db < 10 < first.snr_db < whole.snr_db and whole.loudness_lufs != first.loudness_lufs
