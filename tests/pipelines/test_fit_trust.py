"""A fit made of a dataset on disk and a file of what was said: what it counts, and what it can be used for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.speech.wer_prediction import read_fit
from pipelines.config import AnnotateConfig
from pipelines.corpus.trust import wer_fit
from pipelines.fit_trust import fit_trust
from voxmill.core.errors import UserError
from voxmill.data.schemas import CLIPS, RECORDINGS, REJECTED, write_index

RATE, WORDS = 16_000, ["the", "call", "is", "now", "in", "a", "queue", "and", "will", "be", "answered", "soon"]
VOICES = 6


def make_known(out: Path, recordings: int, **told: object) -> Path:
    """OUT of recordings of one clip each, the less probable the more of its words are wrong; returns the truth's file.

    One in four clips is rejected, one in five recordings is held out, and one has digits. told: of each transcript.
    """
    rng = np.random.default_rng(1)
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    known: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    for number in range(recordings):
        wrong = rng.random()
        heard = [word if rng.random() > wrong else "xx" for word in WORDS]
        probability = float(np.clip(1 - wrong + rng.normal(0, 0.05), 0.02, 0.99))
        name = f"{number:03d}.flac"
        rows[number % 4 == 3].append(
            {
                "clip_id": f"c{number}",
                "recording_id": f"r{number}",
                "session": name,
                "start_sample": 0,
                "end_sample": 4 * RATE,
                "sample_rate": RATE,
                "duration": 4.0,
                "text": "press 1" if number == 0 else " ".join(heard),
                "words": [{"word": w, "start": 0.0, "end": 0.1, "probability": probability} for w in heard],
                "language": "en",
                "language_probability": 0.9,
                "turn": 0,
                "origin": "native",
                "cut": "pause",
                "quality": {"dnsmos_ovr": 3.0, "snr_db": 30.0},
                "transcript": {
                    "compression_ratio": 1.0,
                    "repeated_ngram": 0.0,
                    "characters_per_second": 12.0,
                    "text_language": "en",
                    "text_language_probability": 0.9,
                    "mean_log_probability": float(np.log(probability)),
                    "no_speech_probability": 0.0,
                    "redecoded": False,
                    "aligner": "",
                    "second_language_probability": 0.0,
                    "seconds_after_words": 0.0,
                    **told,
                },
                "shard": "",
                "offset": 0,
                "size": 0,
            }
        )
        inputs.append({"recording_id": f"r{number}", "path": name, "session": name, "state": "kept"})
        known.append({"path": name, "language": "en", "voice": f"v{number % VOICES}", "text": " ".join(WORDS)})
        known[-1] |= {"held_out": True} if number % 5 == 4 else {}
    endings = [row | {"stage": "quality", "reason": "low_snr_db"} for row in rows[True]]
    write_index(out / "clips.parquet", CLIPS, rows[False])
    write_index(out / "rejected.parquet", REJECTED, endings)
    write_index(out / "recordings.parquet", RECORDINGS, inputs)
    (out / "run.json").write_text(json.dumps({"config": AnnotateConfig().model_dump(mode="json")}))
    truth = out / "truth.jsonl"
    truth.write_text("".join(json.dumps(row) + "\n" for row in known))
    return truth


def test_a_fit_of_a_dataset_predicts_and_says_what_it_is_made_of(tmp_path: Path) -> None:
    truth, target = make_known(tmp_path, 400), tmp_path / "fit.json"
    fit = fit_trust(tmp_path, truth, target, "made up")
    assert read_fit(target) == fit
    assert sum(row.clips for row in fit.fitted_on) == 319 and sum(row.clips for row in fit.tried_on) == 80
    assert fit.left_out == 1 and len(fit.fitted_on) == VOICES and fit.recordings == "made up"
    assert all(abs(row.predicted - row.true) <= 0.08 for row in fit.fifths) and fit.fifths[-1].true > 0.7
    assert wer_fit(AnnotateConfig.model_validate({"select": {"wer_fit": str(target)}})) == fit


def test_too_few_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clips of 6 voices have known words"):
        fit_trust(tmp_path, make_known(tmp_path, 40), tmp_path / "fit.json", "")
    assert not (tmp_path / "fit.json").exists()


def test_clips_that_another_recogniser_wrote_are_left_out_and_one_without_probabilities_has_no_fit(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="0 clips of 0 voices have known words"):
        fit_trust(tmp_path, make_known(tmp_path, 120, recogniser="endpoint large-v3"), tmp_path / "fit.json", "")
    own: dict[str, object] = {"recogniser": "whisper-base", "mean_log_probability": None}
    with pytest.raises(UserError, match="whisper-base does not tell how probable its words are"):
        fit_trust(tmp_path, make_known(tmp_path, 120, **own), tmp_path / "fit.json", "")
