"""Recordings of known words: which texts are taken, and how utterances are joined; without the packages."""

import random
from pathlib import Path

import numpy as np
import pytest

from samples.known_text import RATE, Prompt, degraded, plain, recordings


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("  “Activated.” ", "en", "Activated."),
        (
            "At the sound of the tone, the time will be exactly...",
            "en",
            "At the sound of the tone, the time will be exactly",
        ),
        ("Press 1 for help", "en", None),
        ("[this is a simple beep tone]", "en", None),
        ("La conferenza ? piena. pu? essere", "it", None),
        ("Su numero de telefono", "es", None),
        ("Регистрация ГТС", "ru", None),
        ("что бы ответить", "ru", "чтобы ответить"),
    ],
)
def test_only_texts_whose_words_are_known_are_taken(text: str, language: str, spoken: str | None) -> None:
    assert plain(text, language) == spoken


def test_every_utterance_is_in_one_recording() -> None:
    rng = np.random.default_rng(0)
    utterances = [
        (Prompt(voice="v", language="en", text="a", path=Path()), np.zeros(round(seconds * RATE), np.float32))
        for seconds in rng.uniform(0.5, 5, size=60)
    ]
    groups = list(recordings(utterances, random.Random(1)))
    assert sorted(number for group in groups for number in group) == list(range(60))
    assert any(len(group) > 3 for group in groups) and any(len(group) == 1 for group in groups)


def test_what_is_made_worse_keeps_its_length() -> None:
    rng = np.random.default_rng(0)
    voice = (0.3 * rng.standard_normal(3 * RATE)).astype(np.float32)
    music = [rng.standard_normal(20 * RATE).astype(np.float32)]
    made = {kind.split()[0]: worse for worse, kind in (degraded(voice, rng, music) for _ in range(20))}
    assert set(made) == {"noise", "music", "telephone"}
    assert all(len(worse) == len(voice) and not np.array_equal(worse, voice) for worse in made.values())
