"""Of a long clip and its parts either it or they enter the dataset, and one bad part costs no other."""

from typing import Any

import pytest

from annotation.audio.long_clips import join
from pipelines.config import SelectConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.corrections.csv_file import Correction
from pipelines.corpus.select import LongClips, apply_thresholds
from tests.pipelines.corpus.made_clips import RATE, made_clip
from voxmill.data.records import Ending, StageName, TextDifference, Word

CONFIG = SelectConfig()
WORDS = (Word("hello", 0.5, 1.0, 0.9), Word("there", 1.5, 2.0, 0.9))


def part(number: int, **changes: Any) -> CorpusClip:
    return made_clip(number, words=WORDS, part_of="long", **{"predicted_wer": 0.1, **changes})


def with_long(*parts: CorpusClip, **changes: Any) -> list[CorpusClip]:
    """A clip by itself, a long clip with its parts, and another one by itself."""
    candidate = join([one.candidate for one in parts], RATE, "long")
    fields = {name: getattr(candidate, name) for name in ("start_sample", "end_sample", "text", "words", "transcript")}
    return [made_clip(0), made_clip(**{"clip_id": "long", **fields, **changes}), *parts, made_clip(9)]


def chosen(clips: list[CorpusClip]) -> list[CorpusClip]:
    return list(LongClips(clips).chosen(CONFIG, lambda clip: apply_thresholds(clip, CONFIG)))


def names(clips: list[CorpusClip]) -> list[str]:
    return [clip.clip_id for clip in clips]


def test_a_long_clip_stands_for_its_parts() -> None:
    # A part that is too short by itself is none too many.
    clips = with_long(part(1, predicted_wer=0.1), part(2, predicted_wer=0.3, text="so it is now"), part(3, seconds=1.0))
    assert names(LongClips(clips).parts) == ["s0000", "s0001", "s0002", "s0003", "s0009"]
    found = chosen(clips)
    assert names(found) == ["s0000", "long", "s0009"]
    # By words: two, four and two.
    assert found[1].predicted_wer == pytest.approx((0.2 + 1.2 + 0.2) / 8, abs=1e-4)
    assert found[1].candidate.text == "hello there so it is now hello there"


def test_clips_that_come_twice_are_joined_once() -> None:
    clips = with_long(part(1), part(2))
    found = chosen(clips + clips)
    assert names(found) == 2 * ["s0000", "long", "s0009"] and found[4].candidate.text == "hello there hello there"


@pytest.mark.parametrize(
    "bad",
    [
        {"predicted_wer": 0.5, "seconds": 5.0},
        {"dnsmos_ovr": 1.2},
        {"clipping": 0.2},
        {"language_confidence": 0.2},
        {"text": ""},
    ],
)
def test_a_bad_part_leaves_the_others(bad: dict[str, Any]) -> None:
    found = chosen(with_long(part(1), part(2, **bad), part(3)))
    assert names(found) == ["s0000", "s0001", "s0002", "s0003", "s0009"]
    assert [clip.clip_id for clip in found if apply_thresholds(clip, CONFIG) is not None] == ["s0002"]


def test_the_error_rate_of_a_short_part_counts_by_its_words() -> None:
    few = part(2, predicted_wer=0.9, seconds=2.0, text="yes")
    sure = part(1, text="so it is now as it always was", predicted_wer=0.1)
    assert names(chosen(with_long(sure, few))) == ["s0000", "long", "s0009"]
    # And where it is no small part of them, the clip is none.
    assert names(chosen(with_long(part(1, text="so it is", predicted_wer=0.2), few))) == [
        "s0000",
        "s0001",
        "s0002",
        "s0009",
    ]


def test_a_long_clip_that_is_not_wanted_itself_leaves_its_parts() -> None:
    assert names(chosen(with_long(part(1), part(2), dnsmos_ovr=1.2))) == ["s0000", "s0001", "s0002", "s0009"]

    def where(clip: CorpusClip) -> Ending | None:
        return Ending(stage=StageName.SELECTION, reason="where") if clip.duration > 8 else None

    left = list(LongClips(with_long(part(1), part(2))).chosen(CONFIG, where))
    assert names(left) == ["s0000", "s0001", "s0002", "s0009"]


def test_a_correction_holds_for_the_clip_that_it_names() -> None:
    """A long clip that is dropped leaves no part behind, and a part that is corrected stays one."""
    drop, text = Correction(clip_id="long", drop=True), Correction(clip_id="long", text="Hello there.")
    for correction, source, ending in ((drop, "recognised", "dropped_by_hand"), (text, "corrected", None)):
        found = chosen(with_long(part(1), part(2, predicted_wer=0.9), correction=correction, text_source=source))
        assert names(found) == ["s0000", "long", "s0009"]
        rejected = apply_thresholds(found[1], CONFIG)
        assert (rejected.reason if rejected else None) == ending
    corrected = part(2, correction=Correction(clip_id="s0002", text="hello there"), text_source="corrected")
    assert names(chosen(with_long(part(1), corrected))) == ["s0000", "s0001", "s0002", "s0009"]


def test_parts_that_a_corpus_gives_to_several_speakers_are_not_one_clip() -> None:
    parts = [part(1), part(2)]
    parts[1].speaker = "somebody else"
    assert names(chosen(with_long(*parts))) == ["s0000", "s0001", "s0002", "s0009"]


def given(number: int, text: str, likely: bool = False) -> CorpusClip:
    difference = TextDifference(
        kind="changed", given="here", recognised="there", start=1.5, end=2.0, similarity=0.8, likely=likely
    )
    return part(
        number,
        text=text,
        text_source="given",
        recognised_text="hello there",
        given_agreement=0.9,
        text_differences=(difference,),
        predicted_wer=None,
    )


def test_a_long_clip_has_the_given_texts_of_its_parts() -> None:
    clips = with_long(given(1, "Hello, here!"), given(2, "Hello again."))
    long = chosen(clips)[1]
    assert (long.clip_id, long.candidate.text, long.text_source) == ("long", "Hello, here! Hello again.", "given")
    assert long.recognised_text == "Hello, here! Hello again."
    assert [(one.start, one.end) for one in long.text_differences] == [(1.5, 2.0), (6.5, 7.0)]
    assert [word.start for word in long.candidate.words] == [0.5, 1.5, 5.5, 6.5]
    assert long.given_agreement == pytest.approx(0.9) and long.predicted_wer is None


def test_a_part_that_its_text_does_not_fit_or_that_has_none_leaves_the_others() -> None:
    parts = ["s0000", "s0001", "s0002", "s0009"]
    assert names(chosen(with_long(given(1, "Hello here"), given(2, "Hello again", likely=True)))) == parts
    assert names(chosen(with_long(given(1, "Hello here"), part(2)))) == parts
