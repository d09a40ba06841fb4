"""Labels over the whole corpus: speakers, expressiveness, references and modes of rows made by hand."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import AnnotateConfig, ControlConfig
from pipelines.corpus import collect as finish
from pipelines.corpus import labels as control
from pipelines.corpus.collect import Gathered
from pipelines.corpus.describe import describe
from pipelines.report.run_summary import clip as index_clip
from tests.support.chat_server import Handler, chat_server
from voxmill.core.errors import JobError
from voxmill.core.progress import Progress
from voxmill.data.schemas import CLIPS, write_index

RNG = np.random.default_rng(0)
VOICES = RNG.standard_normal((2, 16)).astype(np.float32)


def row(number: int, session: str = "s", voice: int | None = 0, pitch: float = 120.0, **changes: Any) -> dict[str, Any]:
    vector = np.zeros(16, np.float32)
    if voice is not None:
        vector = VOICES[voice] + 0.05 * RNG.standard_normal(16).astype(np.float32)
        vector /= np.linalg.norm(vector)
    encoded = base64.b64encode(vector.astype(np.float32).tobytes()).decode()
    prosody = {
        "f0_median_hz": pitch,
        "f0_std_semitones": 2.0 + number % 5,
        "f0_range_semitones": 8.0,
        "voiced_share": 0.7,
        "energy_std_db": 7.0,
        "energy_range_db": 20.0,
        "rate": 5.0,
        "articulation_rate": 5.5,
        "rate_unit": "syllables",
        "pauses": 1,
        "pause_share": 0.1,
        "longest_pause": 0.3,
        "hnr_db": 12.0,
        "spectral_tilt_db": 15.0,
        "jitter": 0.02,
        "shimmer": 0.1,
    }
    made = {
        "clip_id": f"{session}{number:04d}",
        "recording_id": session,
        "session": session,
        "order": (session, number),
        "start_sample": number * 80000,
        "end_sample": number * 80000 + 64000,
        "sample_rate": 16000,
        "duration": 4.0,
        "text": f"{' '.join(chr(97 + (number * k) % 26) * 4 for k in (1, 3, 7))} number {number}",
        "language": "en",
        "speaker": None,
        "given_speaker": None,
        "origin": "native",
        "quality": {"dnsmos_ovr": 3.5},
        "size": 1000,
        "voice": {
            "prosody": prosody,
            "speaker": {"vector": encoded, "reason": "" if voice is not None else "too_short"},
            "gender": {"label": "male", "female": 0.1, "reason": ""},
            "emotion": {"label": None, "probability": None, "reason": "no_model", "probabilities": {}},
            "age": {"label": None, "probability": None, "reason": "no_model", "probabilities": {}},
        },
    }
    return made | changes


def gathered(*rows: dict[str, Any]) -> Gathered:
    return Gathered(kept=list(rows))


def test_two_voices_of_a_session_are_two_speakers_and_never_each_other_s_reference() -> None:
    found = gathered(*(row(n, voice=n % 2) for n in range(12)), row(12, voice=None))
    config = ControlConfig()
    figures = control.label_corpus(found, config)
    finish.number(found)
    assert figures["speakers"]["clusters"] == 2 and figures["speakers"]["without_voice"] == 1
    assert len({r["speaker"] for r in found.kept[:12:2]}) == 1
    assert found.kept[0]["speaker"] != found.kept[1]["speaker"]
    counts = control.add_references([found.kept], config)
    assert counts["rule_violations"] == 0 and counts["reasons"] == {"no_embedding": 1}
    by_id = {r["clip_id"]: r for r in found.kept}
    for target in found.kept[:12]:
        assert 1 <= len(target["references"]) <= 3
        assert {by_id[r["clip_id"]]["speaker"] for r in target["references"]} == {target["speaker"]}


def test_references_stay_inside_their_shard() -> None:
    found = gathered(*(row(n) for n in range(10)))
    control.label_corpus(found, ControlConfig())
    finish.number(found)
    control.add_references([found.kept[:5], found.kept[5:]], ControlConfig())
    first = {r["clip_id"] for r in found.kept[:5]}
    assert all(ref["clip_id"] in first for r in found.kept[:5] for ref in r["references"])
    assert all(ref["clip_id"] not in first for r in found.kept[5:] for ref in r["references"])


def test_a_given_speaker_keeps_its_name_and_measures_the_clusters() -> None:
    found = gathered(*(row(n, voice=n % 2, speaker=("ann", "bob")[n % 2]) for n in range(8)))
    figures = control.label_corpus(found, ControlConfig())
    assert {r["speaker"] for r in found.kept} == {"ann", "bob"}
    assert figures["speakers"]["cluster_purity"] == figures["speakers"]["speaker_purity"] == 1.0


def test_a_threshold_moves_no_other_clip_s_labels() -> None:
    rows = [row(n) for n in range(10)]
    everything = gathered(*(dict(r) for r in rows))
    control.label_corpus(everything, ControlConfig())
    fewer = Gathered(kept=[dict(r) for r in rows[:5]], rejected=[dict(r) for r in rows[5:]])
    control.label_corpus(fewer, ControlConfig())
    for a, b in zip(everything.kept, fewer.kept, strict=False):
        assert (a["expressiveness"], a["facts"], a["speaker"]) == (b["expressiveness"], b["facts"], b["speaker"])


def test_the_pre_screen_keeps_the_asked_share_and_loses_none() -> None:
    config = ControlConfig.model_validate({"expressiveness": {"top_share": 0.3}})
    found = gathered(*(row(n) for n in range(10)))
    control.label_corpus(found, config)
    control.screen(found, config)
    assert len(found.kept) == 3 and len(found.rejected) == 7
    assert {r["reason"] for r in found.rejected} == {"low_expressiveness"}
    assert min(r["expressiveness"] for r in found.kept) == found.rejected[0]["threshold"]


def test_everything_can_be_switched_off_and_missing_labels_are_no_facts() -> None:
    found = gathered(*(row(n) | {"voice": {}} for n in range(2)))
    config = ControlConfig(labels=())
    control.label_corpus(found, config)
    control.screen(found, config)
    assert [r["facts"] for r in found.kept] == [[], []] and len(found.kept) == 2
    broken = gathered(row(0) | {"voice": {"prosody": {"error": "ValueError: x"}}})
    assert control.label_corpus(broken, ControlConfig())["errors"] == {"prosody": 1}
    assert broken.kept[0]["facts"] == [] and broken.kept[0]["expressiveness"] is None


def described(found: Gathered, out: Path, config: AnnotateConfig) -> dict[str, Any]:
    control.label_corpus(found, config.control)
    finish.number(found)
    control.add_references([found.kept], config.control)
    figures = describe(found.kept, out, config, 1, Progress(enabled=False))
    control.teach(found.kept, config.control)
    return figures


def endpoint_config(url: str, **more: Any) -> AnnotateConfig:
    endpoint = {"url": url, "model": "m", "retries": 0, "first_wait_seconds": 0.0, "requests_per_minute": 1e6} | more
    return AnnotateConfig.model_validate({"control": {"descriptions": {"writer": "endpoint", "endpoint": endpoint}}})


def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
    texts = {"tags": "male voice", "phrase": "a male voice", "sentence": "A man speaks.", "paragraph": "A man speaks."}
    style = {key: "a medium pitch" for key in texts}
    handler.reply(json.dumps({"design": texts, "style": style}))


def test_an_endpoint_writes_and_is_never_asked_twice(tmp_path: Path) -> None:
    with chat_server(answer) as server:
        figures = described(gathered(*(row(n) for n in range(6))), tmp_path, endpoint_config(server.url))
        asked = len(server.seen)
        assert asked >= 6 and figures["usage"]["requests"] == asked
        found = gathered(*(row(n) for n in range(6)))
        described(found, tmp_path, endpoint_config(server.url))
        assert len(server.seen) == asked
    assert all(d.verdicts for r in found.kept for d in r["described"])
    write_index(tmp_path / "clips.parquet", CLIPS, [index_clip(r) for r in found.kept])


def test_an_endpoint_that_is_down_ends_the_job_with_one_line(tmp_path: Path) -> None:
    config = endpoint_config("http://127.0.0.1:9/v1", give_up_after=2)
    with pytest.raises(JobError, match="127.0.0.1:9"):
        described(gathered(*(row(n) for n in range(6))), tmp_path, config)
