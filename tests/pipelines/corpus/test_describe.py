"""Descriptions of a corpus: by actors as in one process, and by an endpoint that is sent the clips of the shards."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import AnnotateConfig
from pipelines.corpus import describe as job
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.describe import DescriptionJob
from tests.pipelines.corpus.made_clips import made_clip
from tests.support.chat_server import Handler, chat_server
from voxmill.core.audio import decode, encode_flac
from voxmill.core.config import load_config
from voxmill.core.errors import UserError
from voxmill.data.records import Fact


def clips(count: int) -> list[CorpusClip]:
    listed = []
    for number in range(count):
        clip = made_clip(number)
        word, z = (("low", -1.0), ("medium", 0.0), ("high", 1.0))[number % 3]
        clip.facts = [Fact("pitch", "style", word, value=120.0, unit="Hz", z=z)]
        listed.append(clip)
    return listed


def test_actors_write_what_one_process_writes_and_in_order(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AnnotateConfig()
    alone, spread = clips(7), clips(7)
    here, actors = DescriptionJob(tmp_path, config, 2), DescriptionJob(tmp_path, config, 2)
    here.describe(alone, 0)
    monkeypatch.setattr(job, "CLIPS_A_TASK", 2)
    actors.describe(spread, 0)
    assert [clip.descriptions for clip in spread] == [clip.descriptions for clip in alone]
    assert all(clip.descriptions for clip in alone)
    assert here.counts == actors.counts and here.counts["by_template"] > 7 and here.usage is None


def test_an_endpoint_is_sent_the_clip_at_16_khz(tmp_path: Path) -> None:
    times = np.arange(44100, dtype=np.float32) / 44100
    flac = encode_flac((np.sin(2 * np.pi * 440 * times) / 2).astype(np.float32), 44100)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").write_bytes(b"before" + flac + b"after")
    clip = clips(1)[0]
    clip.place = replace(clip.place, shard="shards/0.tar", offset=6, size=len(flac))
    text = {key: "A medium pitch." for key in ("tags", "phrase", "sentence", "paragraph")}

    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.reply(json.dumps({"design": text, "style": text}))

    with chat_server(answer) as server:
        endpoint = {"url": server.url, "model": "m"}
        rule = {"writer": "endpoint", "send_audio": True, "wordings": 1, "endpoint": endpoint}
        config = AnnotateConfig.model_validate({"corpus_labels": {"descriptions": rule}})
        asked = DescriptionJob(tmp_path, config, 1)
        asked.describe([clip], 0)
        content = server.seen[0]["body"]["messages"][0]["content"]
    samples_TC, rate = decode(base64.b64decode(content[1]["input_audio"]["data"]))
    assert rate == 16000 and samples_TC.shape == (16000, 1) and 0.49 < samples_TC.max() < 0.51
    assert asked.usage is not None and asked.usage["requests"] == len(server.seen)


def test_where_no_descriptions_are_wanted_there_are_none(tmp_path: Path) -> None:
    config = AnnotateConfig.model_validate({"corpus_labels": {"labels": ["speakers"]}})
    unwanted, here = DescriptionJob(tmp_path, config, 1), clips(1)
    unwanted.describe(here, 0)
    assert not here[0].descriptions and not unwanted.counts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("run.askers=2", "run.concurrent_requests"),
        ("corpus_labels.descriptions.hears=true", "corpus_labels.descriptions.send_audio"),
    ],
)
def test_old_keys_are_answered_with_the_new_name(old: str, new: str) -> None:
    with pytest.raises(UserError, match=f"it is now '{new}'"):
        load_config(AnnotateConfig, overrides=[old])
