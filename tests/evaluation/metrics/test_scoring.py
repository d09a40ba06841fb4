"""Scores of real speech by the real models; bad wavs; and that cached scores are not computed again."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.benchmarks.benchmark import Utterance
from evaluation.metrics.audio_files import LONGEST, load, status_of
from evaluation.metrics.measurement import Measurement
from evaluation.metrics.score_cache import ScoreCache, score_key
from evaluation.metrics.scoring import ScoringConfig, Task, in_process, score_outputs
from evaluation.results.comparison import counts_of, scores_of, verdicts_of
from evaluation.systems.base import SystemOutput
from samples.fabricate import cut, turns
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError

CONFIG = ScoringConfig()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[SystemOutput]:
    """Three spoken, one of them with a wrong text, and one of each kind of bad file."""
    folder = tmp_path_factory.mktemp("wavs")
    outputs = []
    for recording, language in (("en-1", "en"), ("fr-1", "fr")):
        (a, b, text), (c, d, _) = turns(recording, 2)
        reference = cut(recording, c, d, folder / f"ref-{language}.wav")
        wav = cut(recording, a, b, folder / f"{language}.wav")
        outputs.append(SystemOutput(utterance=Utterance(language, text, language, language, reference), wav=wav))
    other = cut("it-1", *turns("it-1", 2)[1][:2], folder / "other.wav")
    outputs.append(
        SystemOutput(
            utterance=Utterance("stranger", "Nothing of this is said here.", "en", "en", other), wav=folder / "en.wav"
        )
    )
    rate8, _ = soundfile.read(folder / "en.wav", dtype="float32")
    soundfile.write(folder / "rate.wav", np.repeat(rate8, 3), 48000)
    text = outputs[0].utterance.text
    outputs.append(
        SystemOutput(utterance=Utterance("rate", text, "en", "en", folder / "none.wav"), wav=folder / "rate.wav")
    )
    (folder / "unreadable.wav").write_bytes(b"RIFF....not audio")
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    soundfile.write(folder / "not_numbers.wav", np.full(16000, np.nan, dtype="float32"), 16000, subtype="FLOAT")
    for name in ("missing", "unreadable", "silent", "empty", "not_numbers"):
        outputs.append(SystemOutput(utterance=Utterance(name, "Two words.", "en", "en"), wav=folder / f"{name}.wav"))
    outputs.append(
        SystemOutput(
            utterance=Utterance("failed", "Two words.", "en", "en"),
            wav=folder / "failed.wav",
            failure="the program crashed",
        )
    )
    return outputs


def test_real_speech_and_every_bad_wav_get_their_scores(outputs: list[SystemOutput], tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    scores = score_outputs(outputs, "texts", CONFIG, cache, in_process(CONFIG))
    by_id = {score.id: score for score in scores}
    assert [score.id for score in scores] == [output.utterance.id for output in outputs]
    for language in ("en", "fr"):
        score = by_id[language]
        assert score.errors and score.errors.strict.length > 4
        assert score.errors.strict.substitutions + score.errors.strict.deletions <= 2
        # The same person reads the reference; CAM++'s equal error lies at 0.40.
        assert score.similarity and score.similarity > 0.5 and score.dnsmos and 2.0 < score.dnsmos.ovr < 4.5
    stranger, resampled = by_id["stranger"], by_id["rate"]
    assert stranger.errors and stranger.errors.strict.substitutions >= 3
    assert stranger.similarity is not None and stranger.similarity < 0.4
    assert resampled.hypothesis == by_id["en"].hypothesis and resampled.similarity is None
    for name in ("missing", "unreadable", "silent", "empty", "not_numbers", "failed"):
        score = by_id[name]
        assert score.status == name and score.hypothesis is None and score.detail, score
    counts = counts_of(scores)
    assert counts["ok"] == 4 and counts["resampled"] == 1 and counts["no similarity"] == 1 and counts["silent"] == 1
    estimates = {(s.group, s.metric): s.estimate for s in scores_of("b", "s", scores)}
    # Strict: six failures of two words each are all wrong; official leaves them out.
    strict = estimates[("en", "strict")]
    assert strict.n == 9 and estimates[("en", "official")].n == 3
    counted = [score.errors.strict for score in scores if score.group == "en" and score.errors]
    wrong = sum(errors.total for errors in counted) + 12
    assert strict.value == pytest.approx(wrong / (sum(errors.length for errors in counted) + 12))

    # Again: nothing is measured, and the scores are the same.
    def refuse(tasks: Sequence[Task]) -> list[tuple[int, Measurement]]:
        assert not tasks, tasks
        return []

    hits = cache.hits
    assert score_outputs(outputs, "texts", CONFIG, cache, refuse) == scores
    assert cache.hits - hits == sum(
        4 + (score.similarity is not None) for score in scores if score.status == "ok"
    ) + sum(score.status in ("unreadable", "silent", "empty", "not_numbers") for score in scores)
    # Another text is counted again from the cached transcript; another model gives another score.
    changed = SystemOutput(
        utterance=Utterance("en", "Something else.", "en", "en", outputs[0].utterance.reference), wav=outputs[0].wav
    )
    (score,) = score_outputs([changed], "texts", CONFIG, cache, refuse)
    assert score.errors and score.errors.strict.length == 2
    other = ScoringConfig.model_validate({"recognition": {"beam_size": 5}})
    with pytest.raises(AssertionError, match="transcript"):
        score_outputs([outputs[0]], "texts", other, cache, refuse)
    verdicts = verdicts_of({("b", "one"): scores, ("b", "two"): scores})
    assert verdicts and all(v.p == 1.0 and v.sentence.startswith("not distinguishable") for v in verdicts)


def test_long_audio_is_transcribed_to_its_end(tmp_path: Path) -> None:
    samples, rate = soundfile.read(Path("samples/recordings/en-1.flac"), dtype="float32")
    soundfile.write(tmp_path / "long.wav", samples[: 45 * rate], rate)
    words = " ".join(text for _, end, text in turns("en-1", 99) if end < 45)
    config = ScoringConfig(metrics=["transcript"])
    cache = ScoreCache(tmp_path / "c.sqlite")
    output = SystemOutput(utterance=Utterance("long", words, "en", "en"), wav=tmp_path / "long.wav")
    (score,) = score_outputs([output], "texts", config, cache, in_process(config))
    # Cut off at 30 s, a third of the words would be missing.
    assert score.seconds == pytest.approx(45.0)
    assert score.errors and score.errors.strict.deletions < 0.1 * score.errors.strict.length


def test_loading_keeps_the_signal_and_refuses_endless_audio(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 300 * np.arange(24000) / 48000).astype("float32")
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, tone], axis=1), 48000, subtype="FLOAT")
    audio = load(tmp_path / "stereo.wav")
    assert (audio.rate, audio.file_rate, audio.file_seconds) == (16000, 48000, 0.5) and len(audio.samples_T) == 8000
    assert float(np.abs(audio.samples_T).max()) == pytest.approx(0.5, abs=0.02)
    soundfile.write(tmp_path / "endless.flac", np.zeros(int((LONGEST + 1) * 1000), dtype="int16"), 1000)
    with pytest.raises(AudioProblem) as caught:
        load(tmp_path / "endless.flac")
    assert status_of(caught.value) == "too_long"


def test_keys_differ_in_every_part_and_a_damaged_cache_is_named(tmp_path: Path) -> None:
    parts = {"audio": "a", "text": "t", "metric": "m", "model": "x", "normaliser": "1"}
    keys = {score_key(**parts)} | {score_key(**{**parts, name: "other"}) for name in parts}
    assert len(keys) == 6
    cache = ScoreCache(tmp_path / "c.sqlite")
    cache.put([("k", {"a": [1, None, "ü"]})])
    cache.close()
    assert ScoreCache(tmp_path / "c.sqlite").get("k") == (True, {"a": [1, None, "ü"]})
    (tmp_path / "bad.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="not a cache of scores"):
        ScoreCache(tmp_path / "bad.sqlite")


def test_an_interrupted_run_keeps_its_scores(outputs: list[SystemOutput], tmp_path: Path) -> None:
    config = ScoringConfig(metrics=["dnsmos"])
    measured: list[int] = []

    def cut_off(tasks: Sequence[Task]) -> Iterator[tuple[int, Measurement]]:
        for task in tasks:
            measured.append(task.index)
            if len(measured) == 4:
                raise KeyboardInterrupt
            yield from in_process(config)([task])

    with pytest.raises(KeyboardInterrupt):
        score_outputs(outputs, "texts", config, ScoreCache(tmp_path / "c.sqlite"), cut_off)
    again: list[int] = []

    def rest(tasks: Sequence[Task]) -> Iterator[tuple[int, Measurement]]:
        again.extend(task.index for task in tasks)
        yield from in_process(config)(tasks)

    scores = score_outputs(outputs, "texts", config, ScoreCache(tmp_path / "c.sqlite"), rest)
    assert not set(measured[:3]) & set(again) and measured[3] in again
    whole = score_outputs(outputs, "texts", config, ScoreCache(tmp_path / "d.sqlite"), in_process(config))
    assert scores == whole
