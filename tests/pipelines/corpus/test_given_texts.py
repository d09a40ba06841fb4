"""Recordings that have a text give it to their clips, whatever windows these were cut from; what is wrong is named."""

import dataclasses

from pipelines.corpus.clips import CorpusClip, index_row
from pipelines.corpus.given import give_texts
from pipelines.units.plan_files import GivenRecording
from tests.pipelines.corpus.made_clips import RATE, made_clip
from voxmill.data.records import GivenPart, Word

SAID = ("the conference is now unmuted", "please enter your password", "followed by the pound key")
GIVEN = "The conference is now un-muted! Please, enter your password; followed by the pound key."


def clips(*said: str, channel: int | None = None, split_at: int = 0) -> list[CorpusClip]:
    """A clip a text, 5 s apart; those from number `split_at` on are of a second window."""
    made = []
    for number, text in enumerate(said):
        words = tuple(Word(word, n * 0.5, n * 0.5 + 0.5, 0.9) for n, word in enumerate(text.split()))
        clip = made_clip(number, text=text, words=words)
        start = split_at * 5 * RATE if number >= split_at else 0
        clip.window = dataclasses.replace(clip.window, start_sample=start, channel=channel)
        made.append(clip)
    return made


def give(made: list[CorpusClip], *parts: GivenPart) -> list[str]:
    given = {"s": GivenRecording(recording_id="s", parts=parts)}
    return [warning.kind for warning in give_texts(made, given)["s"]]


def test_clips_have_their_part_whatever_their_windows_and_order() -> None:
    texts = []
    for made in (clips(*SAID), clips(*SAID, split_at=1), clips(*SAID, split_at=2)[::-1]):
        assert give(made, GivenPart(text=GIVEN)) == []
        rows = {row.clip_id: row for row in map(index_row, made)}
        texts.append({name: (row.text, row.words, row.given_agreement) for name, row in rows.items()})
        assert {row.text_source for row in rows.values()} == {"given"}
        assert [rows[f"s000{n}"].recognised_text for n in range(3)] == list(SAID)
    assert texts[0] == texts[1] == texts[2]
    assert [text for text, _, _ in texts[0].values()] == [
        "The conference is now un-muted!",
        "Please, enter your password;",
        "followed by the pound key.",
    ]


def test_what_is_wrong_with_a_text_is_named() -> None:
    other = "In winter nobody would have dreamt of swimming across our lake, although many had skated over it."
    assert give(clips(*SAID), GivenPart(text=other)) == ["text_of_another_recording"]
    assert give(clips(*SAID), GivenPart(text="Пожалуйста, введите пароль и нажмите решётку.")) == [
        "text_of_another_recording"
    ]
    made = clips(*SAID)
    assert give(made, GivenPart(text=" ".join([other] * 5 + [GIVEN] + [other] * 5))) == ["text_not_read"]
    assert [clip.candidate.text for clip in made] == [
        "The conference is now un-muted!",
        "Please, enter your password;",
        "followed by the pound key.",
    ]
    made = clips(*SAID)
    assert give(made, GivenPart(text="Elsewhere.", start=60.0, end=70.0)) == ["text_not_read"]
    assert {clip.text_source for clip in made} == {"recognised"} and [clip.candidate.text for clip in made] == [*SAID]


def test_channels_that_share_a_text_have_their_own_words() -> None:
    one, other = clips(SAID[0], channel=0), clips("", SAID[1], channel=1)[1:]
    assert give([*one, *other], GivenPart(text=f"{SAID[0].title()}. {SAID[1].title()}.")) == []
    assert (
        one[0].candidate.text == "The Conference Is Now Unmuted."
        and other[0].candidate.text == "Please Enter Your Password."
    )


def test_a_text_of_one_channel_is_none_of_the_other() -> None:
    """What the caller says is in the sound of the other channel, too, quietly."""
    one, other = clips(SAID[0], channel=0), clips(SAID[0], channel=1)
    assert give([*one, *other], GivenPart(text=SAID[0].upper(), start=0.0, end=4.0, channel=1)) == []
    assert (one[0].text_source, other[0].text_source) == ("recognised", "given")
    assert other[0].candidate.text == SAID[0].upper()


def test_a_recording_without_a_text_is_left_alone() -> None:
    made = clips(*SAID)
    assert give_texts(made, {}) == {} and {clip.text_source for clip in made} == {"recognised"}
