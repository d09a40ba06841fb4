"""CTC aligners on small random weights: spelling, frames, times, and words and models that broke other tools."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.speech.aligners.aligner import AlignedWords, SpokenClip, load_aligner, placed
from annotation.speech.aligners.config import AlignmentConfig
from annotation.speech.aligners.ctc import CtcAligner
from annotation.speech.aligners.ctc_letters import Letters
from pipelines.config import AnnotateConfig
from tests.annotation.speech.aligners.saved_ctc import MMS, WAV2VEC2, save_ctc
from tests.support.saved_classifier import save_classifier
from voxmill.core.config import load_config
from voxmill.core.errors import UserError
from voxmill.data.records import Word

RATE, HOP = 16000, 320
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<blank>"]


def letters_of(vocabulary: list[str]) -> Letters:
    return Letters.of({token: number for number, token in enumerate(vocabulary)}, SPECIAL)


def words(*texts: str) -> tuple[Word, ...]:
    return tuple(Word(text, 0.0, 0.0, 0.5) for text in texts)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(round(seconds * RATE)).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> CtcAligner:
    folder = save_ctc(tmp_path_factory.mktemp("wav2vec2"), WAV2VEC2)
    return CtcAligner(folder, folder, romanise=False, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("vocabulary", "word", "spelt"),
    [
        (WAV2VEC2, "Hello,", "HELLO"),
        (MMS, "Hello,", "hello"),
        (WAV2VEC2, "don’t", "DON'T"),
        (WAV2VEC2, "café", "CAFE"),
        (WAV2VEC2, "cafe\u0301", "CAFE"),
        (WAV2VEC2, "İstanbul", "ISTANBUL"),
        (WAV2VEC2, "Straße", "STRASSE"),
        (WAV2VEC2, "ﬁne", "FINE"),
        (WAV2VEC2, "4,9", ""),
        (WAV2VEC2, "£13.60", ""),
        (WAV2VEC2, "20th", "TH"),
        (WAV2VEC2, "'", ""),
        (WAV2VEC2, "|", ""),
        (WAV2VEC2, "<unk>", "UNK"),
        (WAV2VEC2, "Привет", ""),
        ([*MMS, *"привет"], "Привет", "привет"),
        ([*MMS, *"你好"], "你好。", "你好"),
        (["<pad>", "|", "ä", "a"], "Ä", "ä"),
    ],
)
def test_words_are_spelt_as_the_vocabulary_has_their_letters(vocabulary: list[str], word: str, spelt: str) -> None:
    assert "".join(vocabulary[token] for token in letters_of(vocabulary).spell(word)) == spelt


def test_words_begin_and_end_with_their_letters(wav2vec2: CtcAligner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that are sure of "GO |" at 0.4 s and "ON" at 1.0 s; a figure between them is not in the vocabulary."""
    said = {20: "G", 22: "O", 35: "|", 50: "O", 53: "N"}
    scores = np.full((100, len(WAV2VEC2)), -20.0, dtype=np.float32)
    scores[:, 0] = 0.0
    for frame, letter in said.items():
        scores[frame, 0], scores[frame, WAV2VEC2.index(letter)] = -20.0, 0.0
    monkeypatch.setattr(wav2vec2, "log_probabilities", lambda _: scores)
    audio = np.zeros(2 * RATE, dtype=np.float32)
    audio[round(0.3 * RATE) : round(1.2 * RATE)] = noise(0.9)
    (aligned,) = wav2vec2.align([SpokenClip(audio, words("Go", "9", "on."), "en")])
    assert aligned is not None and aligned.between == 1
    first, second, third = aligned.words
    assert [one.word for one in aligned.words] == ["Go", "9", "on."]
    assert first.start == 0.4 and third.start == 1.0
    # The last one goes on as long as its sound does.
    assert third.end == pytest.approx(1.2, abs=0.02)
    assert first.end <= second.start < second.end <= third.start
    assert {one.probability for one in aligned.words} == {0.5}


def test_frames_are_the_model_s_own(wav2vec2: CtcAligner) -> None:
    import torch
    from transformers import Wav2Vec2ForCTC

    models: Any = Wav2Vec2ForCTC
    model = models.from_pretrained(wav2vec2.name.removeprefix("ctc (").removesuffix(")")).eval()
    audio = noise(31.5)
    scaled = torch.from_numpy((audio - audio.mean()) / np.sqrt(audio.var() + 1e-7))
    with torch.inference_mode():
        expected = model(scaled[None]).logits[0].log_softmax(-1).numpy()
    np.testing.assert_allclose(wav2vec2.log_probabilities(audio), expected, atol=1e-4)


@pytest.mark.parametrize("seconds", [0.1, 29.99, 30.0, 32.0, 62.01, 95.0])
def test_long_clips_have_each_frame_once(wav2vec2: CtcAligner, seconds: float) -> None:
    samples = round(seconds * RATE)
    assert len(wav2vec2.log_probabilities(noise(seconds))) == (samples - 400) // HOP + 1


@pytest.mark.parametrize(
    ("texts", "seconds"),
    [
        (("!!!!!!!!!",), 2.0),
        (("4,9", "£13.60"), 2.0),
        (("Привет",), 2.0),
        ((), 2.0),
        (("you",), 0.05),
        (("you",) * 60, 1.0),
    ],
)
def test_a_clip_of_which_no_word_can_be_placed_stays_as_it_is(
    wav2vec2: CtcAligner, texts: tuple[str, ...], seconds: float
) -> None:
    assert wav2vec2.align([SpokenClip(noise(seconds), words(*texts), "en")]) == [None]


def test_a_clip_depends_on_no_other_and_its_words_lie_in_it(wav2vec2: CtcAligner) -> None:
    one = SpokenClip(noise(2.0), words("$5", "you", "2014.", "and", "me", "7"), "en")
    other = SpokenClip(noise(5.0), words("Hello", "there"), "en")
    alone, together = wav2vec2.align([one]), wav2vec2.align([other, one])
    assert alone[0] == together[1] and alone[0] is not None and alone[0].between == 3
    times = [time for word in alone[0].words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= 2.0


def test_the_blank_of_mms_is_not_its_padding(tmp_path: Path) -> None:
    folder = save_ctc(tmp_path, MMS)
    aligner = CtcAligner(folder, folder, romanise=False, device="cpu", threads=1)
    assert aligner._blank == 0 and aligner._letters.delimiter is None
    assert aligner.align([SpokenClip(noise(2.0), words("good", "day"), "en")])[0] is not None


def test_words_without_times_lie_between_their_neighbours() -> None:
    given = words("a", "bb", "c", "d")
    assert placed(given, {}, 3.0) is None
    found = placed(given, {0: (-1.0, 0.5), 3: (2.0, 9.0)}, 3.0)
    assert found == AlignedWords(
        (Word("a", 0.0, 0.5, 0.5), Word("bb", 0.5, 1.5, 0.5), Word("c", 1.5, 2.0, 0.5), Word("d", 2.0, 3.0, 0.5)), 2
    )
    # An aligner that turns words around is put in order.
    turned = placed(words("a", "b"), {0: (1.0, 2.0), 1: (0.2, 0.4)}, 3.0)
    assert turned is not None and [(word.start, word.end) for word in turned.words] == [(1.0, 2.0), (2.0, 2.0)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["backend=ctc"], "needs a model"),
        (["backend=qwen3"], "needs a model"),
        (["model=some"], "has no model of its own"),
        (["backend=qwen3", "model=some", "romanise=true"], "of backend ctc alone"),
        (["backend=mfa"], "Input should be 'whisper', 'ctc', 'qwen3' or 'none'"),
    ],
)
def test_a_wrong_configuration_is_named(settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(AnnotateConfig, None, [f"label.alignment.{one}" for one in settings])
    with pytest.raises(UserError, match="it is now 'label.alignment.letters'"):
        load_config(AnnotateConfig, None, ["label.transcription.word_times=attention"])


@pytest.mark.parametrize("backend", ["ctc", "qwen3"])
def test_a_model_that_is_no_aligner_is_named(backend: str, tmp_path: Path) -> None:
    for model, message in [
        (str(tmp_path / "none"), "transformers cannot load it"),
        (save_classifier(tmp_path / "other", ["a", "b"]), "label.alignment.model="),
    ]:
        config = AlignmentConfig.model_validate({"backend": backend, "model": model})
        with pytest.raises(UserError, match=message):
            load_aligner(config, "cpu", 1)


@pytest.mark.parametrize(
    ("vocabulary", "adapters", "message"),
    [
        (["<pad>", "<s>", "</s>", "<unk>", "|", "1", "2"], None, "has no letters"),
        (WAV2VEC2, 4, "has adapters by language, which are not read"),
    ],
)
def test_a_model_that_cannot_be_used_is_named(
    vocabulary: list[str], adapters: int | None, message: str, tmp_path: Path
) -> None:
    folder = save_ctc(tmp_path, vocabulary, adapters=adapters)
    with pytest.raises(UserError, match=message):
        CtcAligner(folder, folder, romanise=False, device="cpu", threads=1)


@pytest.mark.slow
def test_words_of_other_scripts_are_romanised(tmp_path: Path) -> None:
    """uroman reads its tables for some seconds."""
    folder = save_ctc(tmp_path, MMS)
    aligner = CtcAligner(folder, folder, romanise=True, device="cpu", threads=1)
    assert aligner.name.endswith(", uroman)")
    spelt = ["".join(MMS[token] for token in aligner._letters.spell(word)) for word in ("Привет,", "你好", "4,9")]
    assert spelt == ["privet", "nihao", ""]
