"""Long clips or their parts: which of them enter the dataset.

A long clip does where each of its parts could and it could itself. Where one could not, whatever the reason, the parts
stand in for it, and only that one is lost.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from annotation.speech.long_clips import joined_words, num_words
from pipelines.config import SelectConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.select import apply_thresholds
from voxmill.data.records import ClipId, Ending, TextDifference


class LongClips:
    """The clips of a bucket, long ones apart from the others.

    parts: all that were transcribed by themselves, whether part of a long one or not, in order.
    """

    def __init__(self, clips: Sequence[CorpusClip]) -> None:
        self._clips = clips
        self._parts: dict[ClipId, list[CorpusClip]] = {}
        for clip in clips:
            if clip.candidate.part_of:
                self._parts.setdefault(clip.candidate.part_of, []).append(clip)
        self.parts = [clip for clip in clips if clip.clip_id not in self._parts]

    def chosen(self, config: SelectConfig, rejection: Callable[[CorpusClip], Ending | None]) -> Iterator[CorpusClip]:
        """The clips in order, of each long one and its parts either it, with their texts, or them.

        Args:
            rejection: what keeps a clip from the dataset.
        """
        whole: set[ClipId] = set()
        for clip in self._clips:
            parts = self._parts.get(clip.clip_id)
            if parts is None:
                if clip.candidate.part_of not in whole:
                    yield clip
            elif all(apply_thresholds(part, config, of_any_length=True) is None for part in parts):
                long = _with_texts(clip, parts)
                if long is not None and rejection(long) is None:
                    whole.add(clip.clip_id)
                    yield long


def _with_texts(clip: CorpusClip, parts: Sequence[CorpusClip]) -> CorpusClip | None:
    """A long clip with what was found out on its parts' texts; None where some texts are given and others are not."""
    if len({part.text_source for part in parts}) > 1:
        return None
    weights = [num_words(part.candidate) for part in parts]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return round(sum(value * weight for value, weight in zip(known, weights, strict=True)) / sum(weights), 4)

    long = dataclasses.replace(clip, predicted_wer=mean([part.predicted_wer for part in parts]))
    if parts[0].text_source == "recognised":
        return long
    text, words = joined_words([part.candidate for part in parts], clip.window.sample_rate)
    return dataclasses.replace(
        long,
        candidate=dataclasses.replace(clip.candidate, text=text, words=words),
        text_source=parts[0].text_source,
        recognised_text=clip.candidate.text,
        given_agreement=mean([part.given_agreement for part in parts]),
        text_differences=tuple(
            _moved(difference, part.start - clip.start) for part in parts for difference in part.text_differences
        ),
    )


def _moved(difference: TextDifference, seconds: float) -> TextDifference:
    return dataclasses.replace(
        difference, start=round(difference.start + seconds, 3), end=round(difference.end + seconds, 3)
    )
