"""The network of inaSpeechSegmenter against its original: features of its own code, answers of Keras on its weights."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from annotation.voice.audio_classifier import RATE
from annotation.voice.gender import GenderClassifier, GenderConfig
from annotation.voice.gender_cnn import FILE, PATCH, STEP, GenderCnn, mel_bands, speech_patches
from samples.turns import SAMPLES, sample_turns
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError

# Of inaSpeechSegmenter 0.6.8's own features and Keras 3.15.1 on seconds 2 to 8 of it-1.flac, a patch every 34 frames.
MEL_100 = [
    -21.395,
    -20.486,
    -19.053,
    -18.948,
    -18.759,
    -17.836,
    -18.297,
    -16.521,
    -16.530,
    -16.804,
    -16.891,
    -15.661,
    -16.501,
    -17.182,
    -16.733,
    -15.617,
    -15.844,
    -14.820,
    -14.629,
    -14.731,
    -14.832,
    -14.842,
    -14.567,
    -14.453,
]
ENERGIES = {0: -0.75631, 100: -10.66248, 300: -10.4959}
FEMALE = [
    0.0,
    4.9e-05,
    0.034054,
    0.01037,
    0.003641,
    0.0009,
    0.991297,
    0.303284,
    0.944109,
    0.931654,
    0.995971,
    0.928382,
    0.956749,
    8.5e-05,
    0.4691,
    0.000315,
]


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    samples, rate = soundfile.read(SAMPLES / "recordings" / "it-1.flac", dtype="float32")
    assert rate == RATE
    return np.asarray(samples[2 * RATE : 8 * RATE])


@pytest.fixture(scope="module")
def network() -> GenderCnn:
    return GenderCnn(asset_path("gender-cnn") / FILE)


def test_bands_and_energies_are_the_original_s(audio: np.ndarray) -> None:
    mel_TM, energy_T = mel_bands(audio)
    assert mel_TM.shape == (598, 24) and energy_T.shape == (598,)
    assert mel_TM[100] == pytest.approx(MEL_100, abs=6e-4)
    assert {frame: float(energy_T[frame]) for frame in ENERGIES} == pytest.approx(ENERGIES, abs=1e-5)


def test_answers_are_those_of_keras(network: GenderCnn, audio: np.ndarray) -> None:
    mel_TM, _ = mel_bands(audio)
    patches = np.stack([mel_TM[start : start + PATCH] for start in range(0, len(mel_TM) - PATCH + 1, STEP)])
    flat = patches.reshape(len(patches), -1)
    patches = ((flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)).reshape(patches.shape)
    assert network.of_patches(patches) == pytest.approx(FEMALE, abs=1e-5)


def test_what_is_no_speech_has_no_answer_and_a_short_clip_has_one(network: GenderCnn, audio: np.ndarray) -> None:
    assert network(np.zeros(RATE, np.float32)) is None
    answer = network(np.full(RATE, 0.25, np.float32))
    assert answer is None or 0 <= answer <= 1
    assert network(audio[: RATE // 2]) is not None
    # Digital silence before and after the words is left out, not heard.
    silence = np.zeros(2 * RATE, np.float32)
    quiet = np.concatenate([silence, audio[: 2 * RATE], silence])
    assert len(speech_patches(*mel_bands(quiet))) <= len(speech_patches(*mel_bands(audio[: 2 * RATE])))
    assert network(quiet) == pytest.approx(network(audio[: 2 * RATE]), abs=0.35)


def test_the_italian_man_is_a_man_and_where_the_models_disagree_nobody_knows() -> None:
    trees, cnn = asset_path("voice2gender"), asset_path("gender-cnn")
    classifier = GenderClassifier(GenderConfig(), trees, cnn=cnn)
    turns = sample_turns()
    chosen = {name: [turn.audio for turn in turns if turn.speaker == name] for name in ("carlo-flora", "june-wallack")}
    man = classifier(chosen["carlo-flora"][:7])
    assert all(label.value is None or label.value.label == "male" for label in man)
    assert "disagree" in {label.reason for label in man}
    shares = {
        name: np.mean([label.measured.by_model[name] for label in man if label.measured]) for name in ("cnn", "trees")
    }
    assert shares["cnn"] < 0.4 and shares["trees"] > 0.5
    woman = classifier(chosen["june-wallack"][:1])
    assert [label.value and label.value.label for label in woman] == ["female"]
    # The trees find a voice in a click.
    click = np.zeros(RATE, np.float32)
    click[8000] = 1.0
    assert [label.reason for label in classifier([click])] == ["no_speech"]
    alone = GenderClassifier(GenderConfig(embedded=("cnn",)), trees, cnn=cnn)(chosen["june-wallack"][:1])
    assert alone[0].value is not None and alone[0].value.by_model.keys() == {"cnn"}


def test_another_file_is_refused_with_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for path in (tmp_path / FILE, tmp_path / "none.hdf5"):
        with pytest.raises(UserError, match="voxmill fetch"):
            GenderCnn(path)
