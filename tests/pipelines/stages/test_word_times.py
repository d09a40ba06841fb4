"""Clips whose words an aligner places, or nobody."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from annotation.speech.aligners.aligner import BY_SHARES, AlignedWords, SpokenClip
from annotation.speech.aligners.config import AlignmentConfig
from pipelines.stages.word_times import with_word_times
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.data.records import Candidate, Word

CLIPS = [np.zeros(48000, dtype=np.float32)] * 2


class Second:
    """Places the words of every second clip a tenth of a second later, one of them between others."""

    name = "second"

    def align(self, clips: Sequence[SpokenClip]) -> list[AlignedWords | None]:
        assert all(len(clip.audio) == 48000 and clip.language == "en" for clip in clips)
        moved = [
            tuple(dataclasses.replace(word, start=word.start + 0.1, end=word.end + 0.1) for word in clip.words)
            for clip in clips
        ]
        return [AlignedWords(words, 1) if number % 2 else None for number, words in enumerate(moved)]


def candidates() -> list[Candidate]:
    words = (Word("hi", 0.5, 0.6, 0.9), Word("there,", 1.0, 1.5, 0.3), Word("you", 1.5, 2.7, 0.7))
    return [dataclasses.replace(made_clip().candidate, words=own, language="en") for own in (words, words)]


def test_the_index_says_who_placed_the_words_of_a_clip() -> None:
    before = candidates()
    first, second = with_word_times(CLIPS, before, AlignmentConfig(backend="ctc", model="some"), Second())
    assert first == before[0]
    assert second.transcript is not None
    assert (second.transcript.aligner, second.transcript.words_between) == ("second", 1)
    assert [word.start for word in second.words] == [0.6, 1.1, 1.6] and second.text == before[1].text


def test_without_an_aligner_words_share_the_time_of_their_clip() -> None:
    before = [*candidates()[:1], dataclasses.replace(candidates()[0], words=())]
    worded, empty = with_word_times(CLIPS, before, AlignmentConfig(backend="none"), None)
    assert [(word.start, word.end) for word in worded.words] == [(0.5, 0.9), (0.9, 2.1), (2.1, 2.7)]
    assert [word.probability for word in worded.words] == [0.9, 0.3, 0.7]
    assert {one.transcript.aligner for one in (worded, empty) if one.transcript} == {BY_SHARES} and empty.words == ()


def test_whisper_s_own_times_stay_as_they_are() -> None:
    assert with_word_times(CLIPS, candidates(), AlignmentConfig(letters=False), None) == candidates()
