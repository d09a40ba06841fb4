"""Cropping the encoder's input keeps the words, and the text of a clip depends on no other."""

import dataclasses
import json

import numpy as np
import pytest

from annotation.speech.cropped_whisper import FULL_SECONDS, SIZES_SECONDS, padded_seconds
from annotation.speech.text_checks import error_rate
from annotation.speech.transcription import RATE, TranscriptionConfig
from annotation.speech.whisper import WhisperRecogniser
from samples import bad_input
from voxmill.core.assets import asset_path


@pytest.fixture(scope="module")
def recogniser() -> WhisperRecogniser:
    return WhisperRecogniser(TranscriptionConfig(), asset_path("whisper-base"))


@pytest.fixture(scope="module")
def sentences() -> list[np.ndarray]:
    return [bad_input.turn("en-1", number).astype("float32") for number in range(13)]


def test_sizes_are_few_and_hold_what_is_padded_to_them() -> None:
    assert padded_seconds(0.1) == padded_seconds(5.0) == SIZES_SECONDS[0]
    assert padded_seconds(5.1) == 12.5 and padded_seconds(25.1) == padded_seconds(30.0) == FULL_SECONDS
    assert all(padded_seconds(s / 7) >= min(s / 7 + 5, FULL_SECONDS) for s in range(210))


def test_sentences_are_transcribed_through_the_cropped_encoder(
    recogniser: WhisperRecogniser, sentences: list[np.ndarray]
) -> None:
    truth = [json.loads(line) for line in (bad_input.RECORDINGS.parent / "truth.jsonl").read_text().splitlines()]
    turns = next(row["turns"] for row in truth if row["path"] == "recordings/en-1.flac")[:4]
    transcripts = recogniser.transcribe_batch(sentences[:4], "en")
    wer = error_rate(" ".join(t["text"] for t in turns), " ".join(h.text for h in transcripts), "en")
    assert wer is not None and wer < 0.25
    for piece, transcript in zip(sentences, transcripts, strict=False):
        words = [dataclasses.astuple(word)[1:3] for word in transcript.words]
        assert words and all(0 <= a <= b for a, b in words) and words[-1][1] <= len(piece) / RATE


def test_the_end_of_a_sentence_is_there_whatever_stands_beside_it(
    recogniser: WhisperRecogniser, sentences: list[np.ndarray]
) -> None:
    """Decoded beside a longer clip, it was "The conference is now unm"."""
    sentence, longer = sentences[9][int(0.25 * RATE) :], np.concatenate(sentences[1:3])
    alone = recogniser.transcribe_batch([sentence], "en")
    beside = recogniser.transcribe_batch([longer, sentence, sentences[4]], "en")[1:2]
    assert alone == beside and alone[0].text == "The conference is now unmuted."


def test_no_length_of_a_clip_breaks_its_batch(recogniser: WhisperRecogniser, sentences: list[np.ndarray]) -> None:
    """121,760 samples and others were looked up by a time that had been rounded twice (KeyError 810)."""
    clip = np.concatenate(sentences[:3])[:121_760]
    assert len(clip) == 121_760
    transcripts = recogniser.transcribe_batch([clip, sentences[3]], "en")
    assert all(transcript.text and transcript.words for transcript in transcripts)
