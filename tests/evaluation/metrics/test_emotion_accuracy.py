"""CV3-Eval's emotions as the official script counts them, with a small random classifier."""

import json
from pathlib import Path

import pytest

from annotation.voice.emotion import EmotionClassifier, EmotionConfig
from evaluation.benchmarks import read_benchmark
from evaluation.metrics.audio_files import load
from evaluation.metrics.emotion_accuracy import NO_MODEL, EmotionScorer, EmotionScoringConfig
from evaluation.metrics.measurement import RecognisedEmotion
from evaluation.metrics.utterance_score import EmotionScore
from evaluation.results.comparison import scores_of
from evaluation.results.records import read_scores
from samples.fabricate import cut, turns
from tests.evaluation.utterances import score_of
from tests.support.saved_classifier import save_classifier
from voxmill.cli.app import run as voxmill
from voxmill.core.errors import UserError

IDS = ("happy_high_uttid_1", "happy_low_uttid_2", "sad_high_uttid_1", "angry_low_uttid_7")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark in CV3-Eval's layout, and a system's wavs of it."""
    folder = tmp_path_factory.mktemp("cv3")
    spoken = turns("en-1", len(IDS))
    en = folder / "emotion_zeroshot" / "en"
    en.mkdir(parents=True)
    (en / "text").write_text("".join(f"{id_} {text}\n" for id_, (_, _, text) in zip(IDS, spoken, strict=True)))
    (en / "prompt_wav.scp").write_text("".join(f"{id_} waveform/{id_}.wav\n" for id_ in IDS))
    for id_, (start, end, _) in zip(IDS, spoken, strict=True):
        cut("en-1", start, end, folder / "wavs" / f"{id_}.wav")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_classifier(tmp_path_factory.mktemp("model") / "emotions", ["生气/angry", "<unk>", "开心/happy", "sad"])


def test_the_likeliest_class_counts_however_unsure(data: Path, model: str) -> None:
    recognise = EmotionScorer(EmotionScoringConfig(model=model))
    samples_T = load(data / "wavs" / f"{IDS[0]}.wav").samples_T
    label = EmotionClassifier(EmotionConfig(model=model))([samples_T])[0]
    emotion = recognise(samples_T)
    # A random model is never sure: the labeller abstains where the benchmark counts.
    assert label.value is None and label.withheld is not None and emotion.heard == label.withheld.label
    assert emotion.probability == label.withheld.probability
    assert recognise(samples_T[:100]) == RecognisedEmotion(heard=None, probability=None)
    with pytest.raises(UserError, match="cannot load it"):
        EmotionScorer(EmotionScoringConfig(model=str(data)))


def test_ids_hold_the_emotion_and_its_level(data: Path) -> None:
    utterances = read_benchmark(f"cv3-eval:{data / 'emotion_zeroshot'}").utterances
    assert [(one.emotion, one.emotion_level) for one in utterances] == [
        ("happy", "high"),
        ("happy", "low"),
        ("sad", "high"),
        ("angry", "low"),
    ]


def test_a_run_scores_emotions_with_a_model_and_reports_that_there_is_none(
    data: Path, model: str, tmp_path: Path
) -> None:
    command = ["evaluate", f"cv3-eval:{data / 'emotion_zeroshot' / 'en'}", "--system", f"peer=wavs:{data / 'wavs'}"]
    command += ["--out", str(tmp_path), "tracking.enabled=false", "scoring.metrics=[]", "progress=false"]
    assert voxmill(command) == 0
    assert NO_MODEL in (tmp_path / "report.md").read_text() and NO_MODEL in (tmp_path / "report.html").read_text()
    assert not json.loads((tmp_path / "results.json").read_text())["scores"]
    assert voxmill([*command, f"scoring.emotion.model={model}"]) == 0
    emotions = [score.emotion for score in read_scores(tmp_path)[("cv3-eval", "peer")]]
    assert all(one is not None and one.heard in ("angry", "happy", "sad", "unknown") for one in emotions)
    assert "emotion accuracy" in (tmp_path / "report.md").read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["runs"][0]["models"]["emotion"] == model and results["computed"] == 4
    assert voxmill([*command, f"scoring.emotion.model={model}"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["computed"] == 0


def test_accuracies_are_over_all_and_by_level() -> None:
    recognised = [("high", "happy"), ("high", "sad"), ("high", None), ("low", "happy"), ("low", "unknown")]
    scores = [
        score_of(f"u{number}", emotion=EmotionScore(wanted="happy", level=level, heard=name, probability=0.5))
        for number, (level, name) in enumerate(recognised)
    ]
    scores.append(score_of("u9", status="silent", wants_errors=False))
    estimates = {score.metric: score.estimate for score in scores_of("b", "s", scores)}
    assert (estimates["emotion"].value, estimates["emotion"].n) == (2 / 5, 5)
    assert (estimates["emotion_high"].value, estimates["emotion_high"].n) == (1 / 3, 3)
    assert (estimates["emotion_low"].value, estimates["emotion_low"].n) == (0.5, 2)
