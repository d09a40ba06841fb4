"""What is decided of a speaker is that of all its clips, however they are divided; a dataset that grows keeps it."""

from pathlib import Path

import pytest

from annotation.corpus.speaker_traits import SpeakerTally, SpeakerTraits, TraitsConfig, Votes, decide_gender
from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip, index_row
from pipelines.corpus.labels import add_facts, class_probabilities
from pipelines.corpus.measures import Measures, SpeakerSums, corpus_path, measures_table, sum_clips
from pipelines.corpus.norms import NormSums, fit
from pipelines.corpus.speakers import decide_part, read_traits, write_tallies
from tests.pipelines.corpus.made_clips import made_clip
from tests.pipelines.corpus.test_labels import clip as measured_clip
from voxmill.data.records import Gender, GivenLabels, Label, VoiceLabels, from_json_text, to_json_text
from voxmill.data.schemas import from_table, read_parquet, write_parquet


def clip(
    num: int, speaker: str | None, *, session: str = "s", cluster: str | None = None, **female: float
) -> CorpusClip:
    """A clip with each model's probability of a female voice."""
    mean = sum(female.values()) / len(female)
    gender = Gender(label="female" if mean >= 0.5 else "male", female=mean, by_model=female)
    made = made_clip(num, session=session, speaker=speaker, voice=VoiceLabels(gender=Label(value=gender)))
    made.cluster = cluster
    return made


def decided(
    out: Path,
    buckets: list[list[CorpusClip]],
    *,
    parts: int = 1,
    group: int = 1,
    before: tuple[str, ...] = (),
    **labels: object,
) -> tuple[str, ...]:
    config = AnnotateConfig.model_validate({"corpus_labels": labels})
    for number, clips in enumerate(buckets):
        write_parquet(corpus_path(out, number, "parquet"), measures_table(clips))
    numbers = range(len(buckets))
    groups = [numbers[i : i + group] for i in range(0, len(numbers), group)]
    for number, chosen in enumerate(groups):
        write_tallies(out, chosen, number, parts)
    return tuple(decide_part(out, part, parts, len(groups), config, before) for part in range(parts))


def table(out: Path, names: tuple[str, ...]) -> list[SpeakerTraits]:
    rows = [row for name in names for row in from_table(SpeakerTraits, read_parquet(out / name))]
    return sorted(rows, key=lambda row: row.speaker)


@pytest.mark.parametrize(
    ("votes", "answer"),
    [
        # The man with a lively delivery: most of the trees' votes are wrong, but they are mixed.
        ({"trees": [0.9, 0.8, 0.7, 0.1], "cnn": [0.1, 0.2, 0.05, 0.0]}, ("male", 0.9125, "")),
        ({"trees": [0.99, 0.985], "cnn": [0.05, 0.1]}, (None, None, "disagree")),
        ({"trees": [0.55, 0.5], "cnn": [0.4, 0.6]}, (None, None, "mixed")),
        ({"trees": [0.99], "cnn": [0.8]}, ("female", 0.895, "")),
        ({"trees": [0.97], "cnn": [0.22]}, ("male", 0.78, "")),
        ({"trees": [0.8], "model": [0.6]}, (None, None, "mixed")),
        ({}, (None, None, "no_votes")),
    ],
)
def test_gender_is_what_classifiers_that_decide_agree_on(
    votes: dict[str, list[float]], answer: tuple[str | None, float | None, str]
) -> None:
    tallies = [
        SpeakerTally(clips=1, gender={source: Votes.of(female)}) for source, all_ in votes.items() for female in all_
    ]
    total = sum(tallies, start=SpeakerTally())
    assert total == sum(reversed(tallies), start=SpeakerTally())
    assert total == from_json_text(SpeakerTally, to_json_text(total))
    gender, probability, reason = decide_gender(total.gender, TraitsConfig())
    assert (gender, reason) == (answer[0], answer[2])
    assert probability == (None if answer[1] is None else pytest.approx(answer[1], abs=1e-4))


def test_the_same_is_decided_whatever_the_buckets_parts_and_tasks(tmp_path: Path) -> None:
    clips = [
        clip(
            num, f"voice {num % 7}", session=f"s{num % 9}", cnn=0.1 + 0.8 * (num % 7 > 2), trees=(num * 37 % 100) / 100
        )
        for num in range(90)
    ]
    one = decided(tmp_path / "one", [clips])
    many = decided(tmp_path / "many", [clips[i::9] for i in range(9)], parts=3, group=2)
    other = decided(tmp_path / "other", [clips[i::9] for i in (3, 1, 8, 0, 2, 7, 4, 6, 5)], parts=3, group=4)
    rows = table(tmp_path / "one", one)
    assert [(row.clips, row.gender) for row in rows] == [(13, "male")] * 3 + [(13, "female")] * 3 + [(12, "female")]
    assert rows == table(tmp_path / "many", many) and many == other
    by_name = {(row.speaker, row.named): row for row in rows}
    for bucket in range(9):
        traits = read_traits(tmp_path / "many", bucket, 3)
        assert traits == {key: by_name[key] for key in traits}
        assert {name for name, _ in traits} == {str(one.speaker) for one in clips[bucket::9]}


def test_a_named_speaker_keeps_what_was_decided_and_a_cluster_does_not(tmp_path: Path) -> None:
    def voices(female: float) -> list[CorpusClip]:
        return [clip(0, "Anna", cnn=female), clip(1, "s:0", cluster="s:0", cnn=female)]

    names = decided(tmp_path, [voices(0.95)])
    assert [row.gender for row in table(tmp_path, names)] == ["female", "female"]
    grown = [*voices(0.95), *(clip(num, "Anna", session="t", cnn=0.0) for num in range(9)), clip(0, "Bob", cnn=0.1)]
    kept = table(tmp_path, decided(tmp_path, [grown], before=names))
    assert [(row.speaker, row.gender) for row in kept] == [("Anna", "female"), ("Bob", "male"), ("s:0", "female")]
    # A cluster's name may mean another voice once its session has grown.
    later = table(tmp_path, decided(tmp_path, [voices(0.0)], before=names))
    assert [row.gender for row in later] == ["female", "male"]
    for changed in ({"norms": "refit"}, {"traits": {"gender_share": 0.8}}):
        again = table(tmp_path, decided(tmp_path, [grown], before=names, **changed))
        assert [row.gender for row in again] == ["male", "male", "female"]


def test_facts_and_verification_go_by_the_speaker(tmp_path: Path) -> None:
    clips = [clip(num, "Marco", cnn=0.02, trees=[0.9, 0.8, 0.2][num]) for num in range(3)]
    clips[2].given = GivenLabels(gender="f")
    clips.append(clip(3, None, cnn=0.9))
    names = decided(tmp_path, [clips])
    traits = read_traits(tmp_path, 0, len(names))
    for one in clips:
        one.traits = traits.get((one.speaker or "", True))
    config = AnnotateConfig()
    measures = Measures("key", measures_table(clips), sum_clips(clips), SpeakerSums())
    add_facts(clips, fit(NormSums.of(measures), config), config)
    assert index_row(clips[0]).gender is not None
    columns = [index_row(one).gender for one in clips]
    assert [(column.label, column.reason) for column in columns if column] == [
        ("male", "speaker"),
        ("male", "speaker"),
        ("female", "given"),
        ("female", ""),
    ]
    measured = measured_clip(4)
    measured.traits = clips[0].traits
    add_facts([measured], fit(NormSums.of(measures), config), config)
    (fact,) = (fact for fact in measured.facts if fact.attribute == "gender")
    assert (fact.word, fact.source, fact.probability) == ("male", "speaker", 0.98)
    assert class_probabilities(clips[0]) == {"gender": {"male": 0.98, "female": pytest.approx(0.02)}}
    assert class_probabilities(clips[2])["gender"] == {"female": 1.0}
    assert class_probabilities(clips[3]) == {"gender": {"female": 0.9, "male": pytest.approx(0.1)}}
