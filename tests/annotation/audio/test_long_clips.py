"""Long clips: which neighbours may be joined, how many are drawn in which lengths, and what a joined clip says."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from annotation.audio.long_clips import draw, follows, in_a_row, is_quiet, is_sure, join, seconds_of
from annotation.audio.segmentation import SegmentationConfig
from annotation.speech.transcription import Transcript, TranscriptionConfig
from voxmill.data.records import Candidate, Word

CONFIG = SegmentationConfig()
RATE = 16000


def clip(start: float, text: str, language: str = "en", log_probability: float = -0.3) -> Candidate:
    """A clip of as many seconds as its text has words."""
    words = tuple(Word(word, float(number), number + 0.9, 0.9) for number, word in enumerate(text.split()))
    seconds = float(len(words))
    transcript = Transcript(text=text, words=words, mean_log_probability=log_probability)
    return Candidate(
        clip_id=f"clip-{start:g}",
        start_sample=round(start * RATE),
        end_sample=round((start + seconds) * RATE),
        turn=0,
        cut="pause",
        text=text,
        words=words,
        language=language,
        language_probability=0.9,
        transcript=transcript.check(language, seconds),
    )


def test_a_joined_clip_has_one_text_and_all_words_at_their_times() -> None:
    first, second = clip(10.0, "One two three."), clip(14.5, "Four five six seven, eight nine.", log_probability=-0.6)
    joined = join([first, second], RATE, "joined")
    assert joined.text == "One two three. Four five six seven, eight nine."
    assert [(word.word, word.start) for word in joined.words[2:5]] == [("three.", 2.0), ("Four", 4.5), ("five", 5.5)]
    assert (joined.start_sample, joined.end_sample) == (first.start_sample, second.end_sample)
    # By words: three of one and six of the other.
    assert joined.transcript is not None
    assert joined.transcript.mean_log_probability == pytest.approx((3 * -0.3 + 6 * -0.6) / 9)


def test_a_text_without_spaces_gets_none() -> None:
    pieces = [dataclasses.replace(clip(start, "今天天气很好。"), language="zh") for start in (0.0, 2.0)]
    assert join(pieces, RATE, "joined").text == "今天天气很好。今天天气很好。"


def test_a_long_text_is_not_taken_for_a_loop_because_it_is_long() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("абвгдежзиклмнопрст"), 6)) for _ in range(40)]
    pieces = [clip(40.0 * n, " ".join(rng.choice(words, 30))) for n in range(9)]
    checks = join(pieces, RATE, "joined").transcript
    single = pieces[0].transcript
    assert checks is not None and single is not None
    assert Transcript(text=" ".join(piece.text for piece in pieces)).check("ru", 1.0).compression_ratio > 2.4
    assert checks.compression_ratio == pytest.approx(single.compression_ratio, abs=0.2)


@pytest.mark.parametrize(
    "change",
    [
        {"text": "", "words": ()},
        {"cut": "forced"},
        {"text": "Subtitles by the Amara.org community"},
        {"transcript": {"mean_log_probability": -0.9}},
        {"transcript": {"compression_ratio": 2.5}},
        {"transcript": {"repeated_ngram": 0.4}},
        {"transcript": {"no_speech_probability": 0.7}},
        {"transcript": {"language_confidence": 0.5}},
        {"transcript": {"seconds_after_words": 0.8}},
        {"transcript": {"agreement": 0.5}},
    ],
)
def test_a_clip_whose_text_is_in_doubt_stays_by_itself(change: dict[str, object]) -> None:
    sure = clip(0.0, "One two three.")
    assert is_sure(sure, TranscriptionConfig())
    checks = change.pop("transcript", None)
    if isinstance(checks, dict):
        assert sure.transcript is not None
        change["transcript"] = dataclasses.replace(sure.transcript, **checks)
    assert not is_sure(dataclasses.replace(sure, **change), TranscriptionConfig())  # type: ignore[arg-type]


def test_another_speaker_language_or_a_long_pause_ends_a_clip() -> None:
    before, after = clip(0.0, "One two three."), clip(3.5, "Four five.")
    assert follows(before, after, RATE, CONFIG)
    assert not follows(before, dataclasses.replace(after, turn=1), RATE, CONFIG)
    assert not follows(before, dataclasses.replace(after, language="fr"), RATE, CONFIG)
    assert not follows(dataclasses.replace(before, cut="overlap"), after, RATE, CONFIG)
    assert not follows(before, clip(5.5, "Four five."), RATE, CONFIG)
    # One inside the other: joined, they would end where the inner one does.
    assert not follows(before, clip(1.0, "Two."), RATE, CONFIG)


def test_noise_between_clips_is_no_pause() -> None:
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, RATE).astype(np.float32)
    assert is_quiet(np.zeros(RATE // 2, np.float32), speech, RATE) and is_quiet(np.zeros(0, np.float32), speech, RATE)
    noise = np.zeros(RATE // 2, np.float32)
    noise[4000:6000] = 0.1
    assert not is_quiet(noise, speech, RATE)


def test_runs_are_what_may_be_joined_in_a_row() -> None:
    assert in_a_row([True, True, False, False, True]) == [range(3), range(4, 6)]
    assert in_a_row([]) == [] and in_a_row([False]) == []


def spans_of(seed: int, seconds: float) -> list[tuple[float, float]]:
    rng = np.random.default_rng(seed)
    spans, position = [], 0.0
    while position < seconds:
        length = float(rng.uniform(2, 29))
        spans.append((position, position + length))
        position += length + float(rng.uniform(0.2, 1.5))
    return spans


def test_over_many_windows_lengths_have_their_shares() -> None:
    total, by_length = 0.0, dict.fromkeys((30.0, *CONFIG.lengths), 0.0)
    for seed in range(400):
        spans = spans_of(seed, 330.0)
        drawn = draw(spans, [range(len(spans))], CONFIG, f"recording {seed}")
        for before, after in pairwise(drawn):
            assert before.stop <= after.start
        inside = {number for run in drawn for number in run}
        lengths = [seconds_of(spans, run) for run in drawn]
        lengths += [spans[number][1] - spans[number][0] for number in range(len(spans)) if number not in inside]
        assert all(len(run) > 1 and 30 < seconds_of(spans, run) <= 300 for run in drawn)
        for length in lengths:
            total += length
            by_length[next(bound for bound in by_length if length <= bound)] += length
    for bound, share in CONFIG.lengths.items():
        assert by_length[bound] / total == pytest.approx(share, abs=0.04), bound


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    spans = spans_of(1, 330.0)
    everything = [range(len(spans))]
    first = draw(spans, everything, CONFIG, "a")
    assert draw(spans, everything, CONFIG, "a") == first
    assert any(draw(spans, everything, CONFIG, f"b{n}") != first for n in range(5))


def test_a_run_that_is_too_short_or_has_other_speakers_inside_is_never_crossed() -> None:
    config = SegmentationConfig(lengths={60: 1.0})
    spans = [(10.0 * number, 10.0 * number + 9.5) for number in range(12)]
    for n in range(20):
        drawn = draw(spans, [range(3), range(4, 12)], config, str(n))
        assert drawn and all(run.start >= 4 for run in drawn)
    assert draw(spans, [range(3)], config, "0") == []
    assert draw(spans, [], config, "0") == []
