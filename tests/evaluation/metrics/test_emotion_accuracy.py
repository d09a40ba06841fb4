"""CV3-Eval's emotions as the official script counts them, by a small random classifier: loading and counting are tested."""

import json
from pathlib import Path

import pytest

from annotation.voice.emotion import EmotionClassifier, EmotionConfig
from evaluation.benchmarks import read_benchmark
from evaluation.metrics.audio_files import Audio, load
from evaluation.metrics.emotion_accuracy import NO_MODEL, EmotionHearer, EmotionScoringConfig
from evaluation.results.comparison import scores_of
from evaluation.results.records import read_rows
from tests.support.saved_classifier import save_classifier
from tests.support.speech import cut, turns
from voxmill.cli.app import run as voxmill
from voxmill.core.errors import UserError

IDS = ("happy_high_uttid_1", "happy_low_uttid_2", "sad_high_uttid_1", "angry_low_uttid_7")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark in CV3-Eval's layout, and a system's wavs of it."""
    folder = tmp_path_factory.mktemp("cv3")
    said = turns("en-1", len(IDS))
    en = folder / "emotion_zeroshot" / "en"
    en.mkdir(parents=True)
    (en / "text").write_text("".join(f"{id_} {text}\n" for id_, (_, _, text) in zip(IDS, said, strict=True)))
    (en / "prompt_wav.scp").write_text("".join(f"{id_} waveform/{id_}.wav\n" for id_ in IDS))
    for id_, (start, end, _) in zip(IDS, said, strict=True):
        cut("en-1", start, end, folder / "wavs" / f"{id_}.wav")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_classifier(tmp_path_factory.mktemp("model") / "emotions", ["生气/angry", "<unk>", "开心/happy", "sad"])


def test_the_likeliest_class_is_heard_however_unsure(data: Path, model: str) -> None:
    hear = EmotionHearer(EmotionScoringConfig(model=model))
    audio = load(data / "wavs" / f"{IDS[0]}.wav")
    assert isinstance(audio, Audio)
    label = EmotionClassifier(EmotionConfig(model=model))([audio.samples])[0]
    found = hear(audio.samples)
    # A random model is never sure: the labeller abstains where the benchmark counts.
    assert label.value is None and label.withheld is not None and found["heard"] == label.withheld.label
    assert found["probability"] == label.withheld.probability
    assert hear(audio.samples[:100]) == {"heard": None, "probability": None}
    with pytest.raises(UserError, match="cannot load"):
        EmotionHearer(EmotionScoringConfig(model=str(data)))


def test_ids_say_the_emotion_and_its_level(data: Path) -> None:
    found = read_benchmark(f"cv3-eval:{data / 'emotion_zeroshot'}").utterances
    assert [(one.emotion, one.emotion_level) for one in found] == [
        ("happy", "high"),
        ("happy", "low"),
        ("sad", "high"),
        ("angry", "low"),
    ]


def test_a_run_scores_emotions_with_a_model_and_says_so_without(data: Path, model: str, tmp_path: Path) -> None:
    command = ["evaluate", f"cv3-eval:{data / 'emotion_zeroshot' / 'en'}", "--system", f"peer=wavs:{data / 'wavs'}"]
    command += ["--out", str(tmp_path), "tracking.enabled=false", "scoring.metrics=[]", "progress=false"]
    assert voxmill(command) == 0
    assert NO_MODEL in (tmp_path / "report.md").read_text() and NO_MODEL in (tmp_path / "report.html").read_text()
    assert not json.loads((tmp_path / "results.json").read_text())["scores"]
    assert voxmill([*command, f"scoring.emotion.model={model}"]) == 0
    rows = read_rows(tmp_path)[("cv3-eval", "peer")]
    assert all(row["emotion"]["heard"] in ("angry", "happy", "sad", "unknown") for row in rows)
    assert "emotion accuracy" in (tmp_path / "report.md").read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["runs"][0]["models"]["emotion"] == model and results["computed"] == 4
    assert voxmill([*command, f"scoring.emotion.model={model}"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["computed"] == 0


def test_accuracies_are_over_all_and_by_level() -> None:
    heard = [("high", "happy"), ("high", "sad"), ("high", None), ("low", "happy"), ("low", "unknown")]
    rows = [
        {
            "id": f"u{number}",
            "group": "en-happy",
            "language": "en",
            "text": "x",
            "seed": 0,
            "status": "ok",
            "similarity": None,
            "emotion": {"wanted": "happy", "level": level, "heard": name, "probability": 0.5},
        }
        for number, (level, name) in enumerate(heard)
    ]
    rows.append(dict(rows[0], id="u9", status="silent", emotion=None, wants_errors=False))
    found = {score.metric: score.estimate for score in scores_of("b", "s", rows)}
    assert (found["emotion"].value, found["emotion"].n) == (pytest.approx(2 / 5), 5)
    assert (found["emotion_high"].value, found["emotion_high"].n) == (pytest.approx(1 / 3), 3)
    assert (found["emotion_low"].value, found["emotion_low"].n) == (0.5, 2)
