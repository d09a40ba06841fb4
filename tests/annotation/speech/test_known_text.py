"""Errors of clips against what is known to have been said, and the file that tells it."""

import json
from pathlib import Path

import pytest

from annotation.speech.known_text import ClipErrors, HeardClip, KnownTurn, clip_errors, read_known_text
from voxmill.core.errors import UserError


def turn(start: float, end: float, text: str, language: str = "en") -> KnownTurn:
    return KnownTurn(start=start, end=end, language=language, text=text)


def heard(start: float, end: float, text: str) -> HeardClip:
    return HeardClip(start=start, end=end, text=text)


def counts(errors: ClipErrors | None) -> tuple[int, int] | None:
    return None if errors is None else (errors.errors, errors.length)


def test_each_clip_is_compared_with_the_turns_in_it() -> None:
    turns = [turn(0, 2, "One fine day."), turn(2.5, 4, "It rains."), turn(6, 8, "Good night, all.")]
    clips = [heard(0, 4.1, "one fine day it drains"), heard(5.9, 8.1, "Good all")]
    assert [counts(errors) for errors in clip_errors(clips, turns)] == [(1, 5), (1, 3)]


def test_a_turn_cut_into_two_clips_counts_every_word_once() -> None:
    turns = [turn(0, 10, "a b c d e f")]
    clips = [heard(5.2, 10, "d x f g"), heard(0, 5, "a c")]
    # In the order given: 'e' was replaced and 'g' invented in the second half, 'b' lost in the first.
    assert [counts(errors) for errors in clip_errors(clips, turns)] == [(2, 3), (1, 3)]


def test_a_text_without_times_is_of_all_clips() -> None:
    clips = [heard(0, 2, "hello"), heard(2, 4, "word"), heard(4, 6, "")]
    assert [counts(errors) for errors in clip_errors(clips, [turn(0, float("inf"), "Hello, world!")])] == [
        (0, 1),
        (1, 1),
        (0, 0),
    ]


def test_what_nobody_knows_is_not_counted() -> None:
    half_left_out = clip_errors([heard(3, 6, "of the day")], [turn(0, 6, "It was the middle of the day")])
    between = clip_errors([heard(7, 9, "Bye")], [turn(0, 6, "It was the middle of the day")])
    two_languages = clip_errors([heard(0, 4, "Hola hello")], [turn(0, 2, "Hola", "es"), turn(2, 4, "Hello")])
    assert [*half_left_out, *between, *two_languages] == [None, None, None]


def test_digits_are_marked_and_an_empty_transcript_is_all_wrong() -> None:
    (digits,) = clip_errors([heard(0, 2, "press 1")], [turn(0, 2, "Press one.")])
    (empty,) = clip_errors([heard(0, 2, "")], [turn(0, 2, "Press one.")])
    assert digits is not None and digits.numbers
    assert empty is not None and not empty.numbers and counts(empty) == (2, 2) and empty.rate == 1.0


def test_characters_where_words_are_not_written_apart() -> None:
    assert [
        counts(errors) for errors in clip_errors([heard(0, 2, "今天天汽好")], [turn(0, 2, "今天天气好。", "zh")])
    ] == [(1, 5)]


def test_the_file_is_read_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    rows = [
        {"path": "a.flac", "language": "en", "text": "Hello."},
        {
            "path": "b.flac",
            "voice": "v",
            "held_out": True,
            "turns": [{"start": 0, "end": 1, "text": "A", "language": "fr"}],
        },
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    a, b = read_known_text(path).values()
    assert (a.voice, a.held_out, a.turns[0].end, a.turns[0].language) == ("a.flac", False, float("inf"), "en")
    assert (b.voice, b.held_out, b.turns[0].end, b.turns[0].language) == ("v", True, 1.0, "fr")
    path.write_text(json.dumps(rows[0]) + '\n{"path": "c.flac", "text": "no language"}\n')
    with pytest.raises(UserError, match=r"truth\.jsonl, line 2: KeyError\('language'\)"):
        read_known_text(path)
