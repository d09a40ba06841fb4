"""Scores of real speech by the real models; bad wavs; and that what is known is not computed again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.benchmarks.benchmark import Utterance
from evaluation.metrics.audio_files import LONGEST, Audio, Unusable, load
from evaluation.metrics.score_cache import ScoreCache, score_key
from evaluation.metrics.scoring import ScoringConfig, Task, in_process, score_outputs
from evaluation.results.comparison import counts_of, scores_of, verdicts_of
from evaluation.systems.base import SystemOutput
from tests.support.speech import cut, turns
from voxmill.core.errors import UserError

CONFIG = ScoringConfig()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[SystemOutput]:
    """Three spoken, one of them with a wrong text, and one of each kind of bad file."""
    folder = tmp_path_factory.mktemp("wavs")
    found = []
    for recording, language in (("en-1", "en"), ("fr-1", "fr")):
        (a, b, text), (c, d, _) = turns(recording, 2)
        reference = cut(recording, c, d, folder / f"ref-{language}.wav")
        wav = cut(recording, a, b, folder / f"{language}.wav")
        found.append(SystemOutput(utterance=Utterance(language, text, language, language, reference), wav=wav))
    other = cut("it-1", *turns("it-1", 2)[1][:2], folder / "other.wav")
    found.append(
        SystemOutput(
            utterance=Utterance("stranger", "Nothing of this is said here.", "en", "en", other), wav=folder / "en.wav"
        )
    )
    rate8, _ = soundfile.read(folder / "en.wav", dtype="float32")
    soundfile.write(folder / "rate.wav", np.repeat(rate8, 3), 48000)
    text = found[0].utterance.text
    found.append(
        SystemOutput(utterance=Utterance("rate", text, "en", "en", folder / "none.wav"), wav=folder / "rate.wav")
    )
    (folder / "unreadable.wav").write_bytes(b"RIFF....not audio")
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    soundfile.write(folder / "not_numbers.wav", np.full(16000, np.nan, dtype="float32"), 16000, subtype="FLOAT")
    for name in ("missing", "unreadable", "silent", "empty", "not_numbers"):
        found.append(SystemOutput(utterance=Utterance(name, "Two words.", "en", "en"), wav=folder / f"{name}.wav"))
    found.append(
        SystemOutput(
            utterance=Utterance("failed", "Two words.", "en", "en"),
            wav=folder / "failed.wav",
            failure="the program crashed",
        )
    )
    return found


def test_real_speech_and_every_bad_wav_get_their_scores(outputs: list[SystemOutput], tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    rows = score_outputs(outputs, "texts", CONFIG, cache, in_process(CONFIG))
    by_id = {row["id"]: row for row in rows}
    assert [row["id"] for row in rows] == [output.utterance.id for output in outputs]
    for language in ("en", "fr"):
        row = by_id[language]
        assert row["errors"]["strict"]["length"] > 4
        assert row["errors"]["strict"]["substitutions"] + row["errors"]["strict"]["deletions"] <= 2
        # The same person reads the reference; CAM++'s equal error lies at 0.40.
        assert row["similarity"] > 0.5 and 2.0 < row["dnsmos"]["ovr"] < 4.5
    assert by_id["stranger"]["errors"]["strict"]["substitutions"] >= 3 and by_id["stranger"]["similarity"] < 0.4
    assert by_id["rate"]["hypothesis"] == by_id["en"]["hypothesis"] and by_id["rate"]["similarity"] is None
    for name in ("missing", "unreadable", "silent", "empty", "not_numbers", "failed"):
        row = by_id[name]
        assert row["status"] == name and row["hypothesis"] is None and row["detail"], row
    counts = counts_of(rows)
    assert counts["ok"] == 4 and counts["resampled"] == 1 and counts["no similarity"] == 1 and counts["silent"] == 1
    scores = {(s.group, s.metric): s.estimate for s in scores_of("b", "s", rows)}
    # Strict: six failures of two words each are all wrong; official leaves them out.
    strict = scores[("en", "strict")]
    assert strict.n == 9 and scores[("en", "official")].n == 3
    said = [row["errors"]["strict"] for row in rows if row["group"] == "en" and row["errors"]]
    wrong = sum(e["substitutions"] + e["deletions"] + e["insertions"] for e in said) + 12
    assert strict.value == pytest.approx(wrong / (sum(e["length"] for e in said) + 12))

    # Again: nothing is heard, and the rows are the same.
    def refuse(tasks: list[Task]) -> list[tuple[int, dict]]:
        assert not tasks, tasks
        return []

    hits = cache.hits
    assert score_outputs(outputs, "texts", CONFIG, cache, refuse) == rows
    assert cache.hits - hits == sum(
        4 + (row["similarity"] is not None) + 0 for row in rows if row["status"] == "ok"
    ) + sum(row["status"] in ("unreadable", "silent", "empty", "not_numbers") for row in rows)
    # Another text is counted anew from the transcript that is there; another model is not the same score.
    changed = SystemOutput(
        utterance=Utterance("en", "Something else.", "en", "en", outputs[0].utterance.reference), wav=outputs[0].wav
    )
    (row,) = score_outputs([changed], "texts", CONFIG, cache, refuse)
    assert row["errors"]["strict"]["length"] == 2
    other = ScoringConfig.model_validate({"recognition": {"beam_size": 1}})
    with pytest.raises(AssertionError, match="transcript"):
        score_outputs([outputs[0]], "texts", other, cache, refuse)
    verdicts = verdicts_of({("b", "one"): rows, ("b", "two"): rows})
    assert verdicts and all(v.p == 1.0 and v.sentence == "not distinguishable" for v in verdicts)


def test_long_audio_is_heard_to_its_end(tmp_path: Path) -> None:
    samples, rate = soundfile.read(Path("samples/recordings/en-1.flac"), dtype="float32")
    soundfile.write(tmp_path / "long.wav", samples[: 45 * rate], rate)
    words = " ".join(text for _, end, text in turns("en-1", 99) if end < 45)
    config = ScoringConfig(metrics=["transcript"])
    cache = ScoreCache(tmp_path / "c.sqlite")
    output = SystemOutput(utterance=Utterance("long", words, "en", "en"), wav=tmp_path / "long.wav")
    (row,) = score_outputs([output], "texts", config, cache, in_process(config))
    strict = row["errors"]["strict"]
    # Cut off at 30 s, a third of the words would be missing.
    assert row["seconds"] == pytest.approx(45.0) and strict["deletions"] < 0.1 * strict["length"]


def test_loading_keeps_the_signal_and_refuses_what_never_ends(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 300 * np.arange(24000) / 48000).astype("float32")
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, tone], axis=1), 48000, subtype="FLOAT")
    found = load(tmp_path / "stereo.wav")
    assert isinstance(found, Audio) and (found.rate, found.seconds) == (48000, 0.5) and len(found.samples) == 8000
    assert float(np.abs(found.samples).max()) == pytest.approx(0.5, abs=0.02)
    soundfile.write(tmp_path / "endless.flac", np.zeros(int((LONGEST + 1) * 1000), dtype="int16"), 1000)
    endless = load(tmp_path / "endless.flac")
    assert isinstance(endless, Unusable) and endless.reason == "too_long"


def test_keys_differ_in_every_part_and_a_damaged_cache_is_named(tmp_path: Path) -> None:
    parts = {"audio": "a", "text": "t", "metric": "m", "model": "x", "normaliser": "1"}
    keys = {score_key(**parts)} | {score_key(**{**parts, name: "other"}) for name in parts}  # type: ignore[arg-type]
    assert len(keys) == 6
    cache = ScoreCache(tmp_path / "c.sqlite")
    cache.put([("k", {"a": [1, None, "ü"]})])
    cache.close()
    assert ScoreCache(tmp_path / "c.sqlite").get("k") == (True, {"a": [1, None, "ü"]})
    (tmp_path / "bad.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="not a cache of scores"):
        ScoreCache(tmp_path / "bad.sqlite")


def test_a_run_that_is_cut_off_keeps_what_it_had(outputs: list[SystemOutput], tmp_path: Path) -> None:
    config = ScoringConfig(metrics=["dnsmos"])
    asked: list[int] = []

    def cut_off(tasks: list[Task]) -> Iterator[tuple[int, dict]]:
        for task in tasks:
            asked.append(task.index)
            if len(asked) == 4:
                raise KeyboardInterrupt
            yield from in_process(config)([task])

    with pytest.raises(KeyboardInterrupt):
        score_outputs(outputs, "texts", config, ScoreCache(tmp_path / "c.sqlite"), cut_off)
    again: list[int] = []

    def rest(tasks: list[Task]) -> Iterator[tuple[int, dict]]:
        again.extend(task.index for task in tasks)
        yield from in_process(config)(tasks)

    rows = score_outputs(outputs, "texts", config, ScoreCache(tmp_path / "c.sqlite"), rest)
    assert not set(asked[:3]) & set(again) and asked[3] in again
    whole = score_outputs(outputs, "texts", config, ScoreCache(tmp_path / "d.sqlite"), in_process(config))
    assert rows == whole
