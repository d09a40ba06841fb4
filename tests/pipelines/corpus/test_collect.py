"""What is collected from finished units depends on labels and audio, never on how a unit was come by."""

from pathlib import Path

import pytest

from pipelines.config import AnnotateConfig, TextsConfig
from pipelines.corpus.clips import rejected_row
from pipelines.corpus.collect import collect, respell
from pipelines.units.attempts import AttemptLog, attempts_path, with_lost_calls
from pipelines.units.plan_files import read_units
from pipelines.units.store import read_unit, unit_path, write_unit
from samples.finished_work import CLIPS_A_RECORDING, FLAC, make_finished
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.data.layout import bucket_name
from voxmill.data.records import RejectedClip, StageName, TextSource, Word
from voxmill.data.scripts import ChineseScript

CONFIG = AnnotateConfig.model_validate({"write": {"buckets": 1}})


def rejected_rows(out: Path) -> list[RejectedClip]:
    return [rejected_row(clip) for clip in collect(read_units(out, 0, CONFIG.label), out, CONFIG).rejected]


def test_a_worker_killed_among_the_voices_changes_no_row(tmp_path: Path) -> None:
    """The second worker finds their labels, so that the first one's calls are a cost that no other job has."""
    make_finished(tmp_path, 12 * CLIPS_A_RECORDING, CONFIG)
    alone = rejected_rows(tmp_path)
    for planned in read_units(tmp_path, 0, CONFIG.label):
        path = unit_path(tmp_path, 0, planned.unit_id)
        unit = read_unit(path).unit
        for calls, last in ((84, StageName.QUALITY), (0, StageName.WRITE)):
            log = AttemptLog(attempts_path(tmp_path, bucket_name(0), planned.unit_id), "run", "node")
            log.begin(StageName.VOICE_ATTRIBUTES)
            log.count(calls)
            log.begin(last)
        again = with_lost_calls(unit, log.attempts)
        assert again.costs[StageName.VOICE_ATTRIBUTES].lost_calls == 84
        write_unit(path, again, ((clip.clip_id, FLAC) for result in again.results for clip in result.clips))
        assert read_unit(path).unit == again
    assert alone and rejected_rows(tmp_path) == alone


@pytest.mark.parametrize(
    "config, language, text_source, text",
    [
        (TextsConfig(), "zh", "recognised", "发现头发"),
        (TextsConfig(chinese="traditional"), "zh", "recognised", "發現頭髮"),
        (TextsConfig(chinese="traditional"), "zh-yue", "recognised", "發現頭髮"),
        (TextsConfig(chinese="simplified"), "zh", "recognised", "发现头发"),
        (TextsConfig(chinese="traditional"), "zh", "given", "发现头发"),
        (TextsConfig(chinese="traditional", given_too=True), "zh", "given", "發現頭髮"),
        (TextsConfig(chinese="traditional"), "ja", "recognised", "发现头发"),
    ],
)
def test_chinese_is_written_in_the_script_that_is_wanted(
    config: TextsConfig, language: str, text_source: TextSource, text: str
) -> None:
    before = "发现头发"
    words = (Word("发现", 0.0, 1.0, 0.9), Word("头发", 1.0, 2.0, 0.9))
    clip = made_clip(text=before, words=words, language=language, text_source=text_source)
    respell(clip, config)
    assert clip.candidate.text == text and clip.respelt == (text != before)
    assert "".join(word.word for word in clip.candidate.words) == text
    assert [word.end for word in clip.candidate.words] == [1.0, 2.0]
    # Its `.json` in a shard is written anew.
    assert clip.has_other_metadata == (clip.respelt or text_source == "given")


@pytest.mark.parametrize("script", ["simplified", "traditional"])
def test_a_word_that_the_text_does_not_have_is_written_by_itself(script: ChineseScript) -> None:
    clip = made_clip(text="头发", words=(Word("頭", 0.0, 1.0, 0.9), Word("发", 1.0, 2.0, 0.9)), language="zh")
    respell(clip, TextsConfig(chinese=script))
    assert [word.word for word in clip.candidate.words] == (["頭", "髮"] if script == "traditional" else ["头", "发"])
