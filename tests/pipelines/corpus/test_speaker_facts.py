"""Register and texture are the speaker's, over all its clips in all buckets; pitch stays the clip's."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.labels import add_facts
from pipelines.corpus.measures import corpus_path, measures_table
from pipelines.corpus.norms import NormSums, fit
from pipelines.corpus.speakers import decide_speakers, read_traits
from tests.annotation.descriptions.test_facts import PLAIN
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.data.records import Fact, Gender, Label, VoiceLabels
from voxmill.data.schemas import write_parquet

# A deep-voiced woman: one of her five clips is spoken high, and one sounds clear.
PITCHES = (150.0, 152.0, 155.0, 158.0, 320.0)
CLARITIES = (9.0, 9.0, 9.1, 9.2, 20.0)


def voiced(num: int, speaker: str | None) -> CorpusClip:
    prosody = replace(PLAIN, f0_median_hz=PITCHES[num], hnr_db=CLARITIES[num], jitter=0.02 if num == 4 else 0.08)
    labels = VoiceLabels(prosody=Label(value=prosody), gender=Label(value=Gender(label="female", female=0.95)))
    return made_clip(num, session=f"s{num}", speaker=speaker, voice=labels)


def facts_of(out: Path, buckets: list[list[CorpusClip]]) -> list[list[dict[str, Fact]]]:
    config = AnnotateConfig()
    for number, clips in enumerate(buckets):
        write_parquet(corpus_path(out, number, "parquet"), measures_table(clips))
    tables = decide_speakers(out, range(len(buckets)), sum(map(len, buckets)), config, ())
    norms = fit(NormSums({}, {}), config)
    for number, clips in enumerate(buckets):
        traits = read_traits(out, number, len(tables))
        for clip in clips:
            clip.traits = traits.get((clip.speaker or "", clip.speaker != clip.cluster))
        add_facts(clips, norms, config)
    return [[{fact.attribute: fact for fact in clip.facts} for clip in clips] for clips in buckets]


def test_a_speakers_register_and_texture_are_those_of_all_clips(tmp_path: Path) -> None:
    (facts,) = facts_of(tmp_path, [[voiced(num, "Anna") for num in range(5)]])
    # 155 Hz is 4.41 semitones below 200, 1.63 widths of 2.7; 9.1 dB is 1.7 widths of 2 below 12.5.
    assert {one["register"].word for one in facts} == {"very low"}
    assert all(one["register"].z == pytest.approx(-1.63, abs=0.03) for one in facts)
    assert all(one["register"].source == one["texture"].source == "speaker" for one in facts)
    assert {one["texture"].word for one in facts} == {"rough"}
    assert [one["pitch"].word for one in facts][-1] == "very high"


def test_a_clip_of_nobody_stands_for_itself(tmp_path: Path) -> None:
    (facts,) = facts_of(tmp_path, [[voiced(num, None) for num in range(5)]])
    assert [one["register"].word for one in facts] == [one["pitch"].word for one in facts]
    assert facts[-1]["texture"].word == "clear" and facts[-1]["texture"].source == "measured"


@pytest.mark.slow
def test_buckets_do_not_matter(tmp_path: Path, ray_here: None) -> None:
    (one,) = facts_of(tmp_path / "one", [[voiced(num, "Anna") for num in range(5)]])
    many = facts_of(tmp_path / "many", [[voiced(num, "Anna")] for num in range(5)])
    assert [bucket[0] for bucket in many] == one
