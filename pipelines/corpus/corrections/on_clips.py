"""Corrections on the clips of a bucket. Runs no model and reads no audio."""

import dataclasses
from collections import Counter
from collections.abc import Iterable

from annotation.speech.given_text import place_words
from annotation.speech.given_words import RecognisedClip
from annotation.voice.prosody import ProsodyConfig, with_other_words
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.corrections.csv_file import Correction, Corrections


def correct(clips: Iterable[CorpusClip], corrections: Corrections, prosody: ProsodyConfig) -> dict[str, int]:
    """Applies corrections to the clips that they name; returns how many of each kind there were, by kind.

    Kinds are text, confirmed, drop, speaker, language, and unchanged: a row whose text is what the clip has anyway, as
    a list that is given back holds it of clips that nobody has looked at. Such a text is as doubtful as it was.
    """
    counts: Counter[str] = Counter()
    for clip in clips if corrections else ():
        correction = corrections.get(clip.clip_id)
        if correction is not None:
            counts.update(_correct(clip, correction, prosody))
    return dict(sorted(counts.items()))


def _correct(clip: CorpusClip, correction: Correction, prosody: ProsodyConfig) -> list[str]:
    clip.correction = correction
    if correction.drop:
        return ["drop"]
    kinds = []
    before = clip.candidate
    if correction.language is not None:
        kinds.append("language")
        clip.candidate = dataclasses.replace(clip.candidate, language=correction.language)
    if correction.speaker is not None:
        kinds.append("speaker")
        clip.speaker = correction.speaker
    text = " ".join(before.text.split())
    is_other = correction.text is not None and correction.text != text
    if is_other or (correction.drop is False and text):
        kinds.append("text" if is_other else "confirmed")
        if clip.text_source == "recognised":
            clip.recognised_text = before.text
        clip.text_source, clip.given_agreement, clip.text_differences = "corrected", None, ()
    if is_other:
        assert correction.text is not None
        heard = RecognisedClip(
            start=0.0, end=clip.duration, words=before.words, language=correction.language or before.language
        )
        words = place_words(correction.text, heard)
        clip.candidate = dataclasses.replace(clip.candidate, text=correction.text, words=words)
    if clip.candidate is not before:
        _measure_pace(clip, prosody)
    return kinds or ["unchanged"]


def _measure_pace(clip: CorpusClip, config: ProsodyConfig) -> None:
    """Rates and pauses again, which are of words."""
    label, candidate = clip.voice.prosody, clip.candidate
    if label is not None and label.value is not None:
        value = with_other_words(label.value, candidate.words, candidate.text, candidate.language, config)
        clip.voice = dataclasses.replace(clip.voice, prosody=dataclasses.replace(label, value=value))
