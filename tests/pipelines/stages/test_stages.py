"""Stages as pure functions on records: no Ray, no graph."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from annotation.audio.quality import at_loudness
from annotation.audio.separation import SeparationConfig
from pipelines.config import LabelConfig, VoiceAttributesConfig
from pipelines.stages.base import StageContext, UnseenInputError, WindowAudio
from pipelines.stages.decode import Decode
from pipelines.stages.detect_events import DetectEvents
from pipelines.stages.measure import Measure
from pipelines.stages.segment import Segment, clip_id
from pipelines.stages.separate import Separate
from pipelines.stages.voice_attributes import VoiceMeasures, VoiceModels
from pipelines.stages.write import Write
from pipelines.stages.written_clips import Clips, as_written, stored_clips, written_clips
from pipelines.units.label_store import LabelStore
from pipelines.units.store import read_unit, unit_path
from samples.bad_input import RECORDINGS
from voxmill.core.audio import decode_flac, encode_flac, resample
from voxmill.core.errors import UserError
from voxmill.data.records import (
    Candidate,
    Events,
    Label,
    Quality,
    SourceInfo,
    StageName,
    Stretch,
    Window,
    WindowResult,
    WorkUnit,
)

SAMPLE = sorted(RECORDINGS.glob("en-*.flac"))[0]
QUIET = Events(
    speech_seconds=5.0,
    music_share=0.0,
    singing_share=0.0,
    snr_db=40.0,
    stretches=(Stretch(start=0.0, end=8.0, music_share=0.0, snr_db=40.0),),
)


def context(out: Path, labellers: tuple[str, ...] = ("gender",)) -> StageContext:
    attributes = VoiceAttributesConfig.model_validate({"labellers": labellers})
    return StageContext(out=out, label=LabelConfig(), voice_attributes=attributes, threads=1, device="cpu")


def window_of(path: Path, start_sample: int, end_sample: int) -> Window:
    return Window(
        recording_id="r" * 32,
        name=path.name,
        path=str(path),
        start_sample=start_sample,
        end_sample=end_sample,
        sample_rate=soundfile.info(path).samplerate,
        source=SourceInfo(session="s"),
    )


def sample_window(start: float = 0.0, seconds: float = 8.0) -> tuple[WindowResult, WindowAudio]:
    """A stretch of a sample recording as `Decode` gives it."""
    rate = soundfile.info(SAMPLE).samplerate
    window = window_of(SAMPLE, round(start * rate), round((start + seconds) * rate))
    output = Decode(context(Path())).window(WindowResult(window=window), WindowAudio())
    return output.result, output.audio


def test_decoding_takes_the_mean_away_and_keeps_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.25), 16000, subtype="FLOAT")
    result = WindowResult(window=window_of(tmp_path / "a.wav", 0, 16000))
    decoded = Decode(context(tmp_path)).window(result, WindowAudio())
    assert decoded.result.dc_offset == 0.25 and not decoded.audio.samples.any()
    longer = dataclasses.replace(result, window=dataclasses.replace(result.window, end_sample=20000))
    changed = Decode(context(tmp_path)).window(longer, WindowAudio())
    assert changed.result.ending is not None and changed.result.ending.reason == "changed"
    assert changed.result.ending.stage is StageName.DECODE and len(changed.audio.samples) == 0


def test_a_file_that_is_gone_is_the_machines_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.stages.decode.PAUSES", (0.0,))
    unit = WorkUnit(unit_id="u", results=(WindowResult(window=window_of(SAMPLE, 0, 16000)),), costs={})
    window = dataclasses.replace(unit.results[0].window, path=str(tmp_path / "gone.flac"))
    gone = dataclasses.replace(unit, results=(WindowResult(window=window),))
    with pytest.raises(UnseenInputError) as caught:
        Decode(context(tmp_path)).run(gone, (WindowAudio(),))
    assert caught.value.filename == str(tmp_path / "gone.flac")


def test_a_window_without_speech_ends_at_the_events(tmp_path: Path) -> None:
    result, audio = sample_window()
    detect = DetectEvents(context(tmp_path))
    speech = detect.window(result, audio)
    assert speech.result.ending is None and speech.result.events is not None
    assert speech.result.events.speech_seconds > 1 and speech.result.events.speech == ()
    silent = detect.window(result, WindowAudio(samples=np.zeros_like(audio.samples)))
    assert silent.result.ending is not None and silent.result.ending.reason == "no_speech" and silent.calls == 1


def test_clean_speech_is_not_separated(tmp_path: Path) -> None:
    result, audio = sample_window()
    output = Separate(context(tmp_path)).window(dataclasses.replace(result, events=QUIET), audio)
    assert output.audio is audio and output.calls == 0
    assert output.result.separation is not None and not output.result.separation.wanted


def test_only_the_stretch_that_has_a_background_is_separated(tmp_path: Path) -> None:
    result, audio = sample_window(seconds=12.0)
    rate = result.window.sample_rate
    parts = [(0.0, 3.0, 0.0, 40.0), (3.0, 6.0, 0.9, 3.0), (6.0, 9.0, 0.1, 3.0), (9.0, 12.0, 0.0, 40.0)]
    stretches = tuple(Stretch(start=start, end=end, music_share=share, snr_db=snr) for start, end, share, snr in parts)
    result = dataclasses.replace(result, events=dataclasses.replace(QUIET, stretches=stretches))
    always_used = SeparationConfig(min_gain_dnsmos_bak=-4.0, max_loss_dnsmos_sig=4.0)
    given = dataclasses.replace(context(tmp_path), label=LabelConfig(separation=always_used))
    output = Separate(given).window(result, audio)
    separation = output.result.separation
    assert separation is not None and separation.used_in == separation.wanted_in == ((3.0, 6.0), (6.0, 9.0))
    assert separation.backgrounds == ("music", "noise") and separation.used_by == ("spleeter", "deepfilternet3")
    assert output.calls == 2 and separation.why == "music under 90% of the speech"
    changed = np.flatnonzero(output.audio.samples != audio.samples) / rate
    assert 3.0 <= changed.min() < 3.1 and 8.9 < changed.max() <= 9.0
    clips = [clip_at(result.window, *times) for times in ((1, 3), (2, 5), (5, 7), (8, 9), (9, 10))]
    assert [output.result.origin(clip) for clip in clips] == ["native", *["separated"] * 3, "native"]
    by = [None, "spleeter", "deepfilternet3+spleeter", "deepfilternet3", None]
    assert [output.result.separators(clip) for clip in clips] == by


def clip_at(window: Window, start: float, end: float) -> Candidate:
    first, last = (window.start_sample + round(second * window.sample_rate) for second in (start, end))
    return Candidate(clip_id="c", start_sample=first, end_sample=last, turn=0, cut="pause")


def test_candidates_lie_where_the_recording_has_them(tmp_path: Path) -> None:
    result, audio = sample_window(start=10.0, seconds=20.0)
    output = Segment(context(tmp_path)).window(result, audio)
    first = result.window.start_sample
    assert output.result.candidates
    for candidate in output.result.candidates:
        assert result.window.start_sample <= candidate.start_sample < candidate.end_sample
        assert candidate.end_sample <= result.window.end_sample
        identity = f"{'r' * 32}:{candidate.start_sample}:{candidate.end_sample}"
        assert candidate.clip_id == hashlib.sha256(identity.encode()).hexdigest()[:32]
    clips = tuple(audio.samples[c.start_sample - first : c.end_sample - first] for c in output.result.candidates)
    measured = Measure(context(tmp_path)).window(output.result, WindowAudio(clips=clips))
    assert measured.calls == len(output.result.candidates)
    assert all(candidate.quality is not None for candidate in measured.result.candidates)
    assert [c.clip_id for c in measured.result.candidates] == [c.clip_id for c in output.result.candidates]


def test_silence_has_no_segment(tmp_path: Path) -> None:
    result, audio = sample_window(seconds=3.0)
    output = Segment(context(tmp_path)).window(result, WindowAudio(samples=np.zeros_like(audio.samples)))
    assert output.result.ending is not None and output.result.ending.reason == "no_segment"


QUALITY = Quality(
    dnsmos_sig=3.0,
    dnsmos_bak=3.0,
    dnsmos_ovr=3.0,
    dnsmos_p808=3.0,
    snr_db=30.0,
    clipping=0.0,
    bandwidth_hz=8000.0,
    loudness_lufs=-29.0,
    gain_db=-6.0,
    dc_offset=0.0,
)


def unit_of_two_clips() -> tuple[WorkUnit, tuple[WindowAudio, ...]]:
    result, audio = sample_window(start=2.0)
    window = result.window
    first, rate = window.start_sample, window.sample_rate
    bounds = [(first, first + 3 * rate), (first + 4 * rate, first + 8 * rate)]
    candidates = tuple(
        Candidate(
            clip_id=clip_id(window, start, end),
            start_sample=start,
            end_sample=end,
            turn=0,
            cut="pause",
            quality=QUALITY,
        )
        for start, end in bounds
    )
    result = dataclasses.replace(result, candidates=candidates)
    clips = tuple(audio.samples[start - first : end - first] for start, end in bounds)
    return WorkUnit(unit_id="ab12", results=(result,), costs={}), (WindowAudio(clips=clips, step=audio.step),)


def test_voices_are_labelled_alike_at_once_and_later(tmp_path: Path) -> None:
    unit, audio = unit_of_two_clips()
    at_once = context(tmp_path / "once", ("gender", "speaker", "emotion"))
    networks = VoiceModels(at_once).run(unit, audio)
    assert networks.calls == 4 and len(networks.audio[0].clips) == len(networks.audio[0].written) == 2
    done = VoiceMeasures(at_once).run(networks.unit, networks.audio)
    assert done.calls == 2 and Write(at_once).run(unit, audio).audio == (WindowAudio(),)
    later = context(tmp_path / "later", ("gender", "speaker", "emotion"))
    Write(later).run(unit, audio)
    stored = dataclasses.replace(unit, results=())
    assert VoiceModels(later).run(stored, ()).calls == 4 and VoiceMeasures(later).run(stored, ()).calls == 2
    paths = [unit_path(c.out, unit.bucket, unit.unit_id) for c in (at_once, later)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    labels = [LabelStore(c.out, c.voice_attributes).read(unit.bucket, unit.unit_id)[0] for c in (at_once, later)]
    assert list(labels[0]) == [candidate.clip_id for candidate in unit.results[0].candidates] == list(labels[1])
    for one, two in zip(labels[0].values(), labels[1].values(), strict=True):
        assert one.gender == two.gender and one.gender is not None and one.gender.measured is not None
        assert one.emotion == two.emotion and one.emotion is not None and one.emotion.reason == "no_model"
        assert one.speaker is not None and two.speaker is not None
        assert one.speaker.value is not None and two.speaker.value is not None
        assert one.speaker.value.tobytes() == two.speaker.value.tobytes()


def test_a_second_opinion_on_quality_is_added_later(tmp_path: Path) -> None:
    unit, audio = unit_of_two_clips()
    Write(context(tmp_path)).run(unit, audio)
    asked = context(tmp_path, ("mos",))
    assert VoiceModels(asked).run(dataclasses.replace(unit, results=()), ()).calls == 2
    labels, costs = LabelStore(tmp_path, asked.voice_attributes).read(unit.bucket, unit.unit_id)
    scores = [label.mos.value for label in labels.values() if label.mos is not None]
    assert len(scores) == 2 and all(value is not None and 1 < value < 5 for value in scores)
    assert costs[StageName.MOS].calls == 2


@pytest.mark.parametrize("rate", [16000, 44100])
def test_labellers_get_a_clip_as_its_file_will_hold_it(rate: int) -> None:
    clip, config = np.random.default_rng(0).uniform(-0.7, 0.7, rate).astype(np.float32), LabelConfig().quality
    for gain_db in (-6.0, 0.0, 11.3):
        content = encode_flac(at_loudness(clip, rate, gain_db, config), rate)
        later = resample(*decode_flac(content), 16000)
        assert as_written(clip, rate, gain_db, config).tobytes() == later.tobytes()


def test_the_loudness_before_measuring_is_the_measured_one(tmp_path: Path) -> None:
    unit, audio = unit_of_two_clips()
    measured = Measure(context(tmp_path)).run(unit, audio).unit
    (result,) = unit.results
    unmeasured = tuple(dataclasses.replace(candidate, quality=None) for candidate in result.candidates)
    before = dataclasses.replace(unit, results=(dataclasses.replace(result, candidates=unmeasured),))
    config = LabelConfig().quality
    pairs = zip(written_clips(before, audio, config)[0], written_clips(measured, audio, config)[0], strict=True)
    assert all(one[1].tobytes() == two[1].tobytes() for one, two in pairs)


def test_a_clip_is_written_at_its_stated_loudness(tmp_path: Path) -> None:
    unit, audio = unit_of_two_clips()
    Write(context(tmp_path)).run(unit, audio)
    stored = read_unit(unit_path(tmp_path, unit.bucket, unit.unit_id))
    assert stored.unit == unit and list(stored.places) == [c.clip_id for c in unit.results[0].candidates]
    peaks = [float(np.abs(clip).max()) for _, clip in stored_clips(tmp_path, unit)]
    assert peaks == pytest.approx([float(np.abs(clip).max()) * 10 ** (-6 / 20) for clip in audio[0].clips], rel=0.02)


def test_a_labeller_that_is_there_already_is_not_run_again(tmp_path: Path) -> None:
    unit, audio = unit_of_two_clips()
    first = context(tmp_path)
    assert VoiceMeasures(first).run(unit, audio).calls == 2
    assert VoiceMeasures(first).run(unit, audio).calls == 0


def test_a_clip_that_breaks_a_labeller_has_no_label_and_the_others_have_theirs(tmp_path: Path) -> None:
    unit, audio = unit_of_two_clips()
    stage = VoiceMeasures(context(tmp_path))
    whole = stage.label["gender"]

    def breaks(clips: Clips) -> Sequence[Label[object]]:
        if any(len(audio) < 3.5 * 16000 for _, audio in clips):
            raise ValueError("odd clip")
        return whole(clips)

    stage.label["gender"] = breaks
    stage.run(unit, audio)
    labels = LabelStore(tmp_path, context(tmp_path).voice_attributes).read(0, unit.unit_id)[0]
    short, long = (labels[candidate.clip_id].gender for candidate in unit.results[0].candidates)
    assert short is not None and short.error == "ValueError: odd clip" and long is not None and not long.error


def test_a_model_that_does_not_load_is_the_users_mistake(tmp_path: Path) -> None:
    attributes = VoiceAttributesConfig.model_validate(
        {"labellers": ["age"], "age": {"model": str(tmp_path / "nothing")}}
    )
    with pytest.raises(UserError, match="age.model"):
        VoiceModels(dataclasses.replace(context(tmp_path), voice_attributes=attributes))
