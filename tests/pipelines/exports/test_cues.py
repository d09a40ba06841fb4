"""Long clips become cues that are short enough, lose no text, and are cut where it sounds right."""

from dataclasses import replace

import pytest

from annotation.speech.aligners.aligner import BY_SHARES
from pipelines.exports.cues import cues_of
from pipelines.exports.tracks import MICROSECONDS, Placing, TimedClip, placed_words
from voxmill.data.records import Word

RATE = 16_000
TEXT = "One two three. Four five, six seven eight nine ten eleven twelve"


def spoken(text: str, times: list[tuple[float, float]], seconds: float, offset: float = 100.0) -> TimedClip:
    """A clip that begins at `offset` in its recording; times are from its start."""
    pieces = text.split() if " " in text else list(text)
    return TimedClip(
        recording_id="r",
        path="r.wav",
        channel=None,
        clip_id="c",
        start_sample=round(offset * RATE),
        end_sample=round((offset + seconds) * RATE),
        sample_rate=RATE,
        text=text,
        words=tuple(Word(word, start, end, 0.9) for word, (start, end) in zip(pieces, times, strict=True)),
        transcript=Placing(aligner="whisper"),
        speaker=None,
    )


@pytest.fixture
def clip() -> TimedClip:
    """Twelve words, one a second; the seventh is followed by the longest pause."""
    times = [(second + 0.1, second + (0.5 if second == 6 else 0.9)) for second in range(12)]
    return spoken(TEXT, times, 12.0)


def test_words_that_nobody_has_placed_have_no_times(clip: TimedClip) -> None:
    assert len(placed_words(clip)) == 12
    assert placed_words(replace(clip, transcript=Placing(aligner=BY_SHARES))) == []


def test_a_clip_that_is_short_enough_is_one_cue(clip: TimedClip) -> None:
    whole = [(clip.start, clip.end, TEXT)]
    assert cues_of(clip, None) == cues_of(clip, 12.0) == whole


def test_cues_end_with_a_sentence_or_before_a_pause(clip: TimedClip) -> None:
    cues = [
        ((start - clip.start) / MICROSECONDS, (end - clip.start) / MICROSECONDS, text)
        for start, end, text in cues_of(clip, 5.0)
    ]
    assert cues == [
        (0.0, 2.9, "One two three. "),
        (3.1, 6.5, "Four five, six seven "),
        (7.1, 12.0, "eight nine ten eleven twelve"),
    ]


@pytest.mark.parametrize("seconds", [1.0, 1.5, 2.0, 3.3, 7.0, 11.9])
def test_no_text_is_lost_and_none_is_too_long(clip: TimedClip, seconds: float) -> None:
    cues = cues_of(clip, seconds)
    assert "".join(text for _, _, text in cues) == TEXT
    assert all(0 < end - start <= seconds * MICROSECONDS for start, end, _ in cues)
    assert all(one[1] <= other[0] for one, other in zip(cues, cues[1:], strict=False))
    assert (cues[0][0], cues[-1][1]) == (clip.start, clip.end)


def test_texts_without_spaces_are_cut_between_words() -> None:
    clip = spoken("今天天气很好。我们走吧", [(second, second + 0.9) for second in range(11)], 11.0)
    assert [text for _, _, text in cues_of(clip, 8.0)] == ["今天天气很好。", "我们走吧"]


def test_a_word_that_is_longer_stays_whole() -> None:
    clip = spoken("no oooooo yes", [(0.0, 0.5), (0.6, 9.0), (9.1, 9.5)], 9.5)
    assert [text for _, _, text in cues_of(clip, 2.0)] == ["no ", "oooooo ", "yes"]


def test_words_that_are_not_in_the_text_leave_the_clip_whole(clip: TimedClip) -> None:
    for text in ("Another text", "twelve One", ""):
        assert [one for _, _, one in cues_of(replace(clip, text=text), 5.0)] == [text]
    assert len(cues_of(replace(clip, words=()), 5.0)) == 1


def test_words_without_times_go_with_the_word_before(clip: TimedClip) -> None:
    words = (*clip.words[:3], replace(clip.words[3], end=0.0), *clip.words[4:])
    cues = cues_of(replace(clip, words=words), 5.0)
    assert "".join(text for _, _, text in cues) == TEXT
    assert cues[0][2].startswith("One two three. ") and all(end - start <= 5 * MICROSECONDS for start, end, _ in cues)
