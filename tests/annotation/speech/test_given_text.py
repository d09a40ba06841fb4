"""Given words become those of the clips that they are said in, whatever recognisers make of them."""

import random
import time
import tracemalloc
from dataclasses import replace

import pytest

from annotation.speech.given_text import ClipText, align_given, place_words
from annotation.speech.given_words import RecognisedClip
from voxmill.data.records import GivenPart, Word


def clip(
    start: float, text: str, language: str = "en", probability: float = 0.9, seconds: float = 0.4
) -> RecognisedClip:
    """A clip of which every recognised word takes `seconds`."""
    own = list(text) if language == "zh" else text.split()
    words = tuple(Word(word, n * seconds, (n + 1) * seconds, probability) for n, word in enumerate(own))
    return RecognisedClip(start=start, end=start + len(own) * seconds + 0.2, words=words, language=language)


def texts(given: str, *clips: RecognisedClip) -> list[ClipText]:
    found = align_given([GivenPart(text=given)], clips).clips
    assert all(text is not None for text in found)
    return [text for text in found if text is not None]


def test_clips_get_their_own_part_with_its_spelling_and_punctuation() -> None:
    given = "“Good evening,” said Mr. Ashdown — he was well-known.\n\n— And you?   Fine (thanks)."
    first, second = texts(
        given, clip(1.0, "good evening said mr ashton he was well known"), clip(6.0, "and you fine thanks")
    )
    assert first.text == "“Good evening,” said Mr. Ashdown — he was well-known."
    assert second.text == "— And you? Fine (thanks)."
    assert [word.word for word in second.words] == ["— And", "you?", "Fine", "(thanks)."]
    assert second.agreement == 1.0 and second.differences == () and 0.8 < first.agreement < 1.0
    assert {(one.given, one.recognised, one.likely) for one in first.differences} == {("ashdown", "ashton", False)}
    assert [word.start for word in second.words] == pytest.approx([0.0, 0.4, 0.8, 1.2])
    assert [word.end for word in second.words] == pytest.approx([0.4, 0.8, 1.2, 1.6])


def test_words_that_were_not_recognised_go_where_there_is_room_for_them() -> None:
    roomy = RecognisedClip(start=0.0, end=3.0, words=clip(0.0, "one two three").words, language="en")
    first, second = texts("One two three four. Five six seven.", roomy, clip(5.0, "five six seven"))
    assert (first.text, second.text) == ("One two three four.", "Five six seven.")
    assert first.words[-1].start >= 1.2 and first.words[-1].end <= 3.0 and first.words[-1].probability == 0.0
    (difference,) = first.differences
    assert (difference.kind, difference.given, difference.likely) == ("missing", "four", False)
    inside = texts("One two and three four.", clip(0.0, "one two three four"))[0]
    assert inside.text == "One two and three four."
    ends = [word.end for word in inside.words]
    assert ends == sorted(ends) and all(
        a.end <= b.start + 1e-3 for a, b in zip(inside.words, inside.words[1:], strict=False)
    )


def test_what_was_not_read_is_in_no_clip() -> None:
    """Also where words of it are those beside it."""
    rest = " ".join(f"nobody says the word number {n} and" for n in range(200))
    first, second = texts(
        f"{rest} we begin here and {rest} the story goes on. {rest}",
        clip(0.0, "we begin here and"),
        clip(3.0, "the story goes on"),
    )
    assert (first.text, second.text) == ("we begin here and", "the story goes on.")
    first, second = texts(
        f"We begin here and. {rest} The story goes on.",
        clip(0.0, "we begin here ants"),
        clip(3.0, "a story goes on"),
    )
    assert (first.text, second.text) == ("We begin here", "story goes on.")
    assert [(one.kind, one.recognised) for one in first.differences] == [("added", "ants")]


def test_where_recording_and_text_part_is_marked() -> None:
    said = "the quick brown fox jumps over the lazy dog today"
    for given, kind, at in (
        ("the quick brown fox jumps over the lazy elephant today", "changed", 8),
        ("the quick brown fox over the lazy dog today", "added", 4),
        ("the quick brown fox quietly and carefully jumps over the lazy dog today", "missing", 4),
    ):
        (text,) = texts(given, clip(10.0, said))
        (difference,) = [one for one in text.differences if one.likely]
        assert difference.kind == kind and abs(difference.start - at * 0.4) < 0.05, given
    (misheard,) = texts(said, clip(0.0, said.replace("lazy", "lacy").replace("today", "7", 1), probability=0.3))
    assert misheard.text == said and not any(one.likely for one in misheard.differences)
    # What is said in figures is not another word than what is written out.
    (figures,) = texts("it costs fifteen euros", clip(0.0, "it costs 15 euros"))
    assert figures.text == "it costs fifteen euros" and not any(one.likely for one in figures.differences)


@pytest.mark.parametrize(
    ("given", "recognised", "probability", "likely"),
    [
        ("they", "the", 0.7, False),  # 75 % in common: the same word, misspelt
        ("you are", "or", 0.76, False),
        ("dès", "d", 0.73, False),
        ("epoch", "po", 0.67, False),
        ("epoch", "po", 0.9, True),
        ("Mars", "dog", 0.67, True),
        ("Mars", "dog", 0.5, False),
    ],
)
def test_words_that_sound_alike_are_likelier_misheard_than_another(
    given: str, recognised: str, probability: float, likely: bool
) -> None:
    before, after = (
        ["and", "so", "they", "went", "on", "along", "the", "river"][:4],
        ["until", "the", "sun", "was", "down"],
    )
    heard = clip(0.0, " ".join((*before, recognised, *after)))
    words = tuple(
        replace(word, probability=probability) if word.word in recognised.split() else word for word in heard.words
    )
    (text,) = texts(" ".join((*before, given, *after)), replace(heard, words=words))
    assert any(one.likely for one in text.differences) is likely


def test_a_text_without_spaces_is_aligned_by_characters() -> None:
    first, second = texts(
        "我不知道你在说什么。“再见”，他说。", clip(0.0, "我不知道你在说什么", "zh"), clip(6.0, "再间他说", "zh")
    )
    assert (first.text, second.text) == ("我不知道你在说什么。", "“再见”，他说。")
    assert [word.word for word in second.words] == ["“再", "见”，", "他", "说。"] and second.agreement == pytest.approx(
        0.75, abs=0.15
    )


def test_as_much_is_said_in_a_second_as_the_script_has_it() -> None:
    """Five characters of Chinese take a second; as letters they would fit into what is left of the clips."""
    heard = [clip(0.0, "你好", "zh"), clip(3.0, "谢谢", "zh")]
    first, second = texts("你好我们今天去谢谢", *heard)
    assert (first.text, second.text) == ("你好", "谢谢")


def test_a_given_text_in_the_other_script_agrees_and_stays_as_it_is() -> None:
    (text,) = texts("頭髮乾淨，\n謝謝。", clip(0.0, "头发干净谢谢", "zh"))
    assert (text.text, text.agreement, text.differences) == ("頭髮乾淨，謝謝。", 1.0, ())


def test_texts_that_are_not_of_the_recording_agree_little_and_end() -> None:
    said = [clip(0.0, "the train to the coast leaves at seven"), clip(6.0, "please mind the gap between the doors")]
    for other in (
        "Пожалуйста, введите пароль и нажмите решётку, потом ждите ответа оператора.",
        "In winter nobody would have dreamt of swimming across our lake, although many had skated over it.",
    ):
        alignment = align_given([GivenPart(text=other)], said)
        assert alignment.agreement < 0.4
    alignment = align_given([GivenPart(text="...")], said)
    assert alignment.agreement == 0.0 and [text and text.text for text in alignment.clips] == ["", ""]
    assert align_given([GivenPart(text="one")], []).clips == ()


def test_parts_with_times_speak_for_their_own_times_only() -> None:
    said = [clip(0.0, "yes of course"), clip(20.0, "yes of course"), clip(40.0, "nobody wrote this down")]
    alignment = align_given([GivenPart(text="Yes, of course!", start=20.1, end=21.0)], said)
    assert alignment.clips[0] is None and alignment.clips[2] is None
    assert alignment.clips[1] is not None and alignment.clips[1].text == "Yes, of course!" and alignment.placed == 1.0


def book(words: int, rng: random.Random) -> tuple[str, list[RecognisedClip]]:
    """A long text, and its recognised words with a tenth of them wrong, in clips of some twenty."""
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 9))) for _ in range(3000)]
    given = rng.choices(vocabulary, k=words)
    clips, at = list[RecognisedClip](), 0
    while at < words:
        size = rng.randint(5, 35)
        said = [rng.choice(vocabulary) if rng.random() < 0.1 else word for word in given[at : at + size]]
        clips.append(clip(at * 0.4, " ".join(said)))
        at += size
    return " ".join(given), clips


def test_an_hour_is_aligned_in_bounded_memory() -> None:
    given, clips = book(9000, random.Random(1))
    tracemalloc.start()
    clock = time.perf_counter()
    alignment = align_given([GivenPart(text=given)], clips)
    seconds, (_, peak) = time.perf_counter() - clock, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert " ".join(text.text for text in alignment.clips if text is not None) == given
    assert alignment.placed == 1.0 and peak < 60e6 and seconds < 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello there, my friends!", clip(0.0, "hello their friends")),
        ("many more words than were ever heard in so short a clip", clip(0.0, "hello")),
        ("well, well, well: hello there and so on", clip(0.0, "hello there")),
        ("completely other", clip(0.0, "nothing of this")),
        ("nothing was heard", clip(0.0, "")),
        ("今天天气很好，ok 我们去散步吧。", clip(0.0, "今天天气好我们散步", "zh")),
    ],
)
def test_a_text_that_is_known_to_be_said_has_all_its_words_in_the_clip(text: str, said: RecognisedClip) -> None:
    words = place_words(text, said)
    assert "".join(word.word for word in words).replace(" ", "") == text.replace(" ", "")
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= said.end
    if not said.words:
        assert times[0] == 0 and times[-1] == said.end
