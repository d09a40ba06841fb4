"""What a corpus says of its clips beats classifiers, is told from what is measured, and captions are verified."""

import dataclasses
from pathlib import Path

import pytest

from annotation.voice.prosody import ProsodyConfig
from pipelines.config import AnnotateConfig, SelectConfig
from pipelines.corpus.clips import CorpusClip, index_row
from pipelines.corpus.corrections.csv_file import Correction
from pipelines.corpus.corrections.on_clips import correct
from pipelines.corpus.describe import DescriptionJob
from pipelines.corpus.given import give_labels, give_texts
from pipelines.corpus.labels import add_facts, class_probabilities, count_given
from pipelines.corpus.measures import Measures, SpeakerSums, gender_of, measures_table, sum_clips
from pipelines.corpus.norms import NormSums, fit
from pipelines.corpus.select import apply_thresholds
from pipelines.report.run_summary import given_labels
from pipelines.units.plan_files import GivenRecording
from tests.pipelines.corpus.made_clips import RATE, made_clip
from voxmill.data.records import (
    Dialect,
    Emotion,
    Gender,
    GivenLabels,
    GivenPart,
    Label,
    SampleRange,
    VoiceLabels,
    Word,
)

MAN = VoiceLabels(
    gender=Label(value=Gender(label="male", female=0.1)),
    emotion=Label(
        reason="unsure", withheld=Emotion(label="sad", probability=0.4, probabilities={"sad": 0.4, "happy": 0.35})
    ),
)


def given(*parts: GivenPart, **labels: str) -> dict[str, GivenRecording]:
    return {"s": GivenRecording(recording_id="s", parts=parts, labels=GivenLabels(**labels) if labels else None)}


def know(clips: list[CorpusClip]) -> None:
    """Gives clips their facts, by the norms of these alone."""
    config = AnnotateConfig()
    measures = Measures("key", measures_table(clips), sum_clips(clips), SpeakerSums())
    add_facts(clips, fit(NormSums.of(measures), config), config)


def test_labels_of_the_corpus_beat_a_classifier_and_say_so() -> None:
    clip, other = made_clip(voice=MAN), made_clip(1, voice=MAN)
    give_labels([clip], given(gender="F", emotion="happiness", age="twenties", accent="Scottish", extra='{"id":1}'))
    know([clip, other])
    facts = {fact.attribute: (fact.word, fact.source, fact.probability) for fact in clip.facts}
    assert facts == {
        "gender": ("female", "given", None),
        "age": ("young", "given", None),
        "emotion": ("happy", "given", None),
        "accent": ("Scottish", "given", None),
    }
    row = index_row(clip)
    assert row.given == GivenLabels(
        gender="F", emotion="happiness", age="twenties", accent="Scottish", extra='{"id":1}'
    )
    columns = [dataclasses.astuple(one) for one in (row.gender, row.emotion, row.age) if one is not None]
    assert columns == [("female", 0.1, "given"), ("happy", 0.35, "given"), ("young", None, "given")]
    assert class_probabilities(clip) == {"gender": {"female": 1.0}, "emotion": {"happy": 1.0}, "age": {"young": 1.0}}
    assert (gender_of(clip), gender_of(other)) == ("female", "male")
    assert count_given([clip, other]) == {"gender/fail": 1, "age/abstain": 1, "emotion/abstain": 1}
    line = "gender given for 2 clips; the classifier says another for 1 and nothing for 0"
    assert given_labels({"gender/fail": 1, "gender/pass": 1}) == [line]
    agreed = SelectConfig(where="gender.probability is None or gender.probability > 0.2").condition()
    brought = SelectConfig(where="given.gender == 'F'").condition()
    assert agreed is not None and brought is not None
    assert [agreed(index_row(one)) for one in (clip, other)] == [False, True]
    assert [brought(index_row(one)) for one in (clip, other)] == [True, False]
    assert index_row(other).given is None and class_probabilities(other)["gender"]["male"] == pytest.approx(0.9)


def test_a_clip_has_what_all_of_its_parts_say() -> None:
    """Clips of 4 s begin every 5 s; the second one is cut from two parts."""
    made = [made_clip(number, speaker="whoever") for number in range(4)]
    style, other = GivenLabels(style="news", gender="f"), GivenLabels(style="news", gender="m")
    parts = (
        GivenPart(text="", start=0.0, end=4.5, speaker="anna", labels=style),
        GivenPart(text="", start=4.6, end=7.0, speaker="anna", labels=style),
        GivenPart(text="", start=7.0, end=9.0, speaker="ben", labels=other),
        GivenPart(text="", start=14.0, end=15.5, speaker="ben", labels=other),
    )
    give_labels(made, given(*parts, age="34"))
    assert [clip.speaker for clip in made] == ["anna", "whoever", "whoever", "whoever"]
    assert [clip.given for clip in made] == [
        GivenLabels(style="news", gender="f", age="34"),
        GivenLabels(style="news", age="34"),
        GivenLabels(age="34"),
        GivenLabels(age="34"),
    ]


def test_captions_are_verified_like_other_descriptions(tmp_path: Path) -> None:
    captions = {
        "A young woman speaks (happily).": True,
        "An elderly man shouts. He is angry.": False,
        "Recorded in a studio in 1998.": False,
    }
    made = [made_clip(number, voice=MAN) for number in range(len(captions))]
    for clip, caption in zip(made, captions, strict=True):
        give_labels([clip], given(gender="F", emotion="happy", age="20", caption=caption))
    know(made)
    job = DescriptionJob(tmp_path, AnnotateConfig(), 1)
    job.describe(made, 0)
    texts = [[one.text for one in clip.descriptions if one.generator == "given"] for clip in made]
    assert [bool(own) for own in texts] == [*captions.values()]
    (description,) = (one for one in made[0].descriptions if one.generator == "given")
    # Its classifier contradicts the corpus about gender; nobody but the corpus knows the rest.
    said = {verdict.attribute: verdict.verdict for verdict in description.verdicts}
    assert said == {"gender": "abstain", "age": "unjudged", "emotion": "unjudged"} and description.axis == "design"
    assert "(" not in description.text and all(len(clip.descriptions) > 1 for clip in made)
    assert (job.counts["given"], job.counts["given_dropped"]) == (1, 2)
    assert job.dropped["no claim could be confirmed"] == 1 and "age: elderly" in str([*job.dropped])


def kept(text: str, *said: str) -> CorpusClip:
    """A clip that the corpus has cut, and what was recognised in it."""
    words = tuple(Word(word, n * 0.3, n * 0.3 + 0.3, 0.9) for n, word in enumerate(said))
    clip = made_clip(text=" ".join(said), words=words, cut="given")
    clip.window = dataclasses.replace(clip.window, clips=(SampleRange(start=0, end=4 * RATE),))
    known = given(GivenPart(text=text, start=0.0, end=4.0), GivenPart(text="Another one.", start=0.0, end=9.0))
    give_texts([clip], known)
    return clip


def test_clips_that_are_kept_have_their_whole_text_and_what_is_not_read_is_marked() -> None:
    read = kept("“Hello, there!” she said.", "hello", "there", "she", "said")
    assert (read.candidate.text, read.given_agreement) == ("“Hello, there!” she said.", 1.0)
    assert apply_thresholds(read, SelectConfig()) is None
    long = "And then a long passage follows that nobody has ever read aloud in this recording of it, not even once."
    unread = kept(f"Hello there, she said. {long}", "hello", "there", "she", "said")
    assert unread.candidate.text == f"Hello there, she said. {long}"
    (difference,) = unread.text_differences
    assert (difference.kind, difference.likely, difference.given) == ("missing", True, long.lower())
    ending = apply_thresholds(unread, SelectConfig())
    assert ending is not None and ending.reason == "low_given_agreement"
    untold = kept("", "hello", "there")
    assert (untold.text_source, untold.candidate.text) == ("recognised", "hello there")
    silent = kept("Hello there.")
    assert silent.candidate.text == "Hello there." and silent.given_agreement == 0.0


SHANGHAI = VoiceLabels(
    dialect=Label(value=Dialect(label="zh-wu", probability=0.7, probabilities={"zh-wu": 0.7, "zh-yue": 0.3}))
)


@pytest.mark.parametrize(
    ("language", "manifest", "given_dialect", "corrected", "voice", "column", "fact"),
    [
        ("en", None, None, None, SHANGHAI, None, None),
        ("zh", None, None, None, None, (None, None, "no_model"), None),
        ("zh", "zh", None, None, SHANGHAI, ("zh-wu", 0.7, ""), ("Wu", "classified")),
        ("zh-yue", None, None, None, None, ("zh-yue", None, "recognised"), ("Cantonese", "classified")),
        ("zh-yue", "zh-yue", None, None, SHANGHAI, ("zh-yue", 0.3, "given"), ("Cantonese", "given")),
        ("zh", None, "Tianjin", None, SHANGHAI, ("zh-tianjin", 0.0, "given"), ("Tianjin", "given")),
        ("zh", None, "Jiang-Huai", None, None, (None, None, "no_model"), None),
        ("zh", None, "Tianjin", "zh-henan", None, ("zh-henan", None, "given"), ("Henan", "given")),
        ("en", None, "Cantonese", None, None, None, None),
    ],
)
def test_a_dialect_is_what_a_person_the_corpus_the_recogniser_or_a_classifier_says(
    language: str,
    manifest: str | None,
    given_dialect: str | None,
    corrected: str | None,
    voice: VoiceLabels | None,
    column: tuple[str | None, float | None, str] | None,
    fact: tuple[str, str] | None,
) -> None:
    clip = made_clip(language=language, voice=voice)
    source = dataclasses.replace(clip.window.source, language=manifest)
    clip.window = dataclasses.replace(clip.window, source=source)
    if given_dialect is not None:
        give_labels([clip], given(dialect=given_dialect))
    if corrected is not None:
        correct([clip], {clip.clip_id: Correction(clip_id=clip.clip_id, language=corrected)}, ProsodyConfig())
    know([clip])
    row = index_row(clip)
    assert (None if row.dialect is None else dataclasses.astuple(row.dialect)) == column
    assert next(((one.word, one.source) for one in row.facts if one.attribute == "dialect"), None) == fact
    wanted = SelectConfig(where="dialect.label == 'zh-wu'").condition()
    assert wanted is not None and wanted(row) == (column is not None and column[0] == "zh-wu")


def test_a_dialect_that_is_given_is_held_against_a_classifier() -> None:
    clips = [made_clip(n, language="zh", voice=SHANGHAI) for n in range(2)] + [made_clip(2, language="zh")]
    for clip, dialect in zip(clips, ("Shanghainese", "Cantonese", "Henan"), strict=True):
        give_labels([clip], given(dialect=dialect))
    assert count_given(clips) == {"dialect/pass": 1, "dialect/fail": 1, "dialect/abstain": 1}


@pytest.mark.parametrize(
    ("share", "style", "column", "fact"),
    [
        (None, None, None, None),
        (0.49, None, None, None),
        (0.5, None, ("song", None, ""), ("song", "classified", 0.5)),
        (0.0, "Singing", ("song", None, "given"), ("song", "given", None)),
        (0.9, "news", ("news", None, "given"), ("news", "given", None)),
    ],
)
def test_a_song_is_a_style_by_its_sound_or_its_label(
    share: float | None,
    style: str | None,
    column: tuple[str, None, str] | None,
    fact: tuple[str, str, float | None] | None,
) -> None:
    clip = made_clip(singing_share=share)
    if style is not None:
        give_labels([clip], given(style=style))
    know([clip])
    row = index_row(clip)
    assert row.singing_share == share and (None if row.style is None else dataclasses.astuple(row.style)) == column
    assert next(((one.word, one.source, one.value) for one in row.facts if one.attribute == "style"), None) == fact
    ending = apply_thresholds(clip, SelectConfig(max_singing_share=0.3))
    assert (None if ending is None else ending.reason) == (
        "high_singing_share" if share is not None and share > 0.3 else None
    )
    assert apply_thresholds(clip, SelectConfig()) is None
