"""Cropping the encoder's input keeps the words: the same sentences as with the full 30 s of padding."""

import dataclasses
from pathlib import Path

from annotation.speech.cropped_whisper import FULL_FRAMES, kept_frames
from annotation.speech.text_checks import error_rate
from annotation.speech.transcription import TranscriptionConfig
from annotation.speech.whisper import WhisperRecogniser
from samples import bad_input
from voxmill.core.assets import asset_path


def test_frames_are_even_and_bounded() -> None:
    assert kept_frames(0.1) == kept_frames(4.9) == 1000
    assert kept_frames(12.0) == 1700 and kept_frames(27) == FULL_FRAMES
    assert all(kept_frames(s / 7) % 2 == 0 for s in range(300))


def test_sentences_are_transcribed_through_the_cropped_encoder() -> None:
    import json

    truth = [json.loads(line) for line in (Path(bad_input.RECORDINGS).parent / "truth.jsonl").read_text().splitlines()]
    turns = next(row["turns"] for row in truth if row["path"] == "recordings/en-1.flac")[:4]
    recogniser = WhisperRecogniser(TranscriptionConfig(), str(asset_path("whisper-base")), "cpu", 1)
    pieces = [bad_input.turn("en-1", number).astype("float32") for number in range(4)]
    transcripts = recogniser.transcribe_batch(pieces, "en")
    wer = error_rate(" ".join(t["text"] for t in turns), " ".join(h.text for h in transcripts), "en")
    assert wer is not None and wer < 0.25
    for piece, transcript in zip(pieces, transcripts, strict=True):
        words = [dataclasses.astuple(word)[1:3] for word in transcript.words]
        assert words and all(0 <= a <= b for a, b in words) and words[-1][1] <= len(piece) / 16000 + 0.3
