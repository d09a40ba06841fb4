"""What the benchmark of given texts counts, on made sentences, phones and clips."""

import random
from pathlib import Path

import pytest

from benchmarks.alignment import Mark, TextClip, damage, found, measure
from samples.narration import SpokenWord, place_words, read_phones

LABELS = """#
0.10000 125 pau
0.20000 125 j
0.30000 125 a
0.40000 125 r
0.50000 125 a
0.60000 125 d
0.90000 125 pau
1.00000 125 v
1.10000 125 aa
1.20000 125 m
"""


def spoken(text: str, start: float = 0.0) -> tuple[SpokenWord, ...]:
    """Words of half a second, with a tenth between them."""
    return tuple(
        SpokenWord(word=word, start=start + number * 0.6, end=start + number * 0.6 + 0.5)
        for number, word in enumerate(text.split())
    )


def test_words_begin_and_end_with_their_phones(tmp_path: Path) -> None:
    (tmp_path / "a.lab").write_text(LABELS)
    phones = read_phones(tmp_path / "a.lab")
    assert place_words(["Я", "рад,", "вам!"], phones) == (
        SpokenWord(word="Я", start=0.1, end=0.3),
        SpokenWord(word="рад,", start=0.3, end=0.6),
        SpokenWord(word="вам!", start=0.9, end=1.2),
    )
    assert place_words(["Совсем", "другое"], phones) is None and place_words(["hello"], phones) is None


def test_kept_clips_are_measured_by_the_words_that_lie_in_them() -> None:
    said = {"a": spoken("one two three four five six")}
    words = tuple(SpokenWord(word=word.word, start=word.start + 0.02, end=word.end - 0.04) for word in said["a"][:3])
    kept = TextClip(start=0.0, end=1.8, text="one two too", language="en", kept=True, words=words, marks=())
    other = TextClip(start=1.8, end=3.6, text="four", language="en", kept=False, words=(), marks=())
    measured = measure(said, {"a": [kept, other]}, timed=True)
    assert (measured.errors, measured.words, measured.said) == (1, 3, 6) and measured.kept == 0.5
    assert sorted(round(edge, 3) for edge in measured.edges) == [0.02] * 3 + [0.04] * 3
    assert measured.edge_ms(90) == pytest.approx(40.0)


def test_damaged_places_are_found_where_marks_are() -> None:
    words = spoken(" ".join(f"word{number}" for number in range(400)))
    text, places = damage(words, random.Random(3))
    assert {place.kind for place in places} == {"deleted", "added", "changed"} and 8 <= len(places) <= 40
    assert text != " ".join(word.word for word in words)
    marks = tuple(Mark(start=place.start, end=place.end, likely=place.kind == "changed") for place in places[1:])
    clip = TextClip(start=0.0, end=240.0, text="", language="en", kept=True, words=(), marks=marks)
    assert found(places, [clip], likely=False) == len(places) - 1
    assert found(places, [clip], likely=True) == sum(place.kind == "changed" for place in places[1:])
