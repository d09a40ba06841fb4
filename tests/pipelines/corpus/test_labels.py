"""Labels over the whole corpus: speakers, expressiveness, references and modes of rows made by hand."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from annotation.corpus.expressiveness import SCORE_CELLS
from annotation.corpus.grid_counts import GridCounts
from pipelines.config import AnnotateConfig, CorpusLabelsConfig
from pipelines.corpus.clips import CorpusClip, index_row
from pipelines.corpus.collect import CollectedClips, number
from pipelines.corpus.describe import DescriptionJob
from pipelines.corpus.labels import (
    Cutoff,
    add_eligibility,
    add_facts,
    add_references,
    add_scores,
    errors_of,
    not_described,
)
from pipelines.corpus.measures import Measures, SpeakerSums, in_order, measures_table, name_clips, sum_clips
from pipelines.corpus.norms import NormSums, fit, scores_of, with_scores
from tests.pipelines.corpus.made_clips import made_clip
from tests.support.chat_server import Handler, chat_server
from voxmill.core.config import load_config
from voxmill.core.errors import JobError, UserError
from voxmill.data.records import Clip, Gender, Label, Prosody, VoiceLabels, from_json_text, to_json_text
from voxmill.data.schemas import to_table, write_parquet

RNG = np.random.default_rng(0)
VOICES = RNG.standard_normal((2, 16)).astype(np.float32)


def clip(num: int, session: str = "s", voice: int | None = 0, **changes: Any) -> CorpusClip:
    """Clip `num` of a session, 4 s of every 5, by one of two voices or by none that can be measured."""
    speaker: Label[np.ndarray] = Label(reason="too_short")
    if voice is not None:
        vector = VOICES[voice] + 0.05 * RNG.standard_normal(16).astype(np.float32)
        speaker = Label(value=(vector / np.linalg.norm(vector)).astype(np.float32))
    prosody = Prosody(
        f0_median_hz=120.0,
        f0_std_semitones=2.0 + num % 5,
        f0_range_semitones=8.0,
        voiced_share=0.7,
        energy_std_db=7.0,
        energy_range_db=20.0,
        rate=5.0,
        articulation_rate=5.5,
        rate_unit="syllables",
        pauses=1,
        pause_share=0.1,
        longest_pause=0.3,
        hnr_db=12.0,
        spectral_tilt_db=15.0,
        jitter=0.02,
        shimmer=0.1,
    )
    labels = VoiceLabels(
        prosody=Label(value=prosody),
        speaker=speaker,
        gender=Label(value=Gender(label="male", female=0.1)),
        emotion=Label(reason="no_model"),
        age=Label(reason="no_model"),
    )
    text = f"{' '.join(chr(97 + (num * k) % 26) * 4 for k in (1, 3, 7))} number {num}"
    return made_clip(num, session=session, text=text, voice=labels, **changes)


def collected(*clips: CorpusClip) -> CollectedClips:
    return CollectedClips(kept=list(clips))


def label_corpus(corpus: CollectedClips, labels: CorpusLabelsConfig) -> SpeakerSums:
    """What the passes do with a corpus of one bucket, up to facts."""
    config = AnnotateConfig(corpus_labels=labels)
    clips = in_order(corpus)
    speakers = name_clips(clips, config) if "speakers" in labels.labels else SpeakerSums()
    measures = Measures("key", measures_table(clips), sum_clips(clips), speakers)
    norms = fit(NormSums.of(measures), config)
    scores = scores_of(measures, norms, config)
    norms = with_scores(norms, GridCounts.of(scores, SCORE_CELLS))
    if "expressiveness" in labels.labels:
        add_scores(clips, scores, norms)
    add_facts(clips, norms, config)
    return speakers


def test_two_voices_of_a_session_are_two_speakers_and_never_each_other_s_reference() -> None:
    corpus = collected(*(clip(n, voice=n % 2) for n in range(12)), clip(12, voice=None))
    config = CorpusLabelsConfig()
    speakers = label_corpus(corpus, config)
    number(corpus)
    assert speakers.clusters == 2 and speakers.without_voice == 1
    assert len({c.speaker for c in corpus.kept[:12:2]}) == 1
    assert corpus.kept[0].speaker != corpus.kept[1].speaker
    counts = add_references([corpus.kept], config)
    assert counts["rule_violations"] == 0 and counts["reasons"] == {"no_embedding": 1}
    by_id = {c.clip_id: c for c in corpus.kept}
    for target in corpus.kept[:12]:
        assert target.references is not None and 1 <= len(target.references) <= 3
        assert {by_id[reference.clip_id].speaker for reference in target.references} == {target.speaker}


def test_voices_are_counted_across_sessions_and_buckets() -> None:
    rule = CorpusLabelsConfig()
    # Two voices in four sessions of one bucket, and again in a session of another.
    one = label_corpus(collected(*(clip(n, voice=n // 4 % 2, session=f"s{n % 4}") for n in range(24))), rule)
    two = label_corpus(collected(*(clip(n, voice=n % 2, session="other") for n in range(8))), rule)
    assert one.clusters == 8 and one.voices(rule.speakers) == 2
    both = one + two
    assert both.clusters == len(both.sample) == 10 and both.voices(rule.speakers) == 2
    assert both == from_json_text(SpeakerSums, to_json_text(both)) and both.sample == (two + one).sample
    assert SpeakerSums().voices(rule.speakers) == 0


def test_references_stay_inside_their_shard() -> None:
    corpus = collected(*(clip(n) for n in range(10)))
    label_corpus(corpus, CorpusLabelsConfig())
    number(corpus)
    add_references([corpus.kept[:5], corpus.kept[5:]], CorpusLabelsConfig())
    first = {c.clip_id for c in corpus.kept[:5]}
    assert all(reference.clip_id in first for c in corpus.kept[:5] for reference in c.references or ())
    assert all(reference.clip_id not in first for c in corpus.kept[5:] for reference in c.references or ())


def test_a_speaker_of_two_languages_has_references_across_shards_by_language() -> None:
    clips = [clip(n, language="en" if n % 4 < 2 else "fr") for n in range(12)]
    corpus = collected(*clips)
    label_corpus(corpus, CorpusLabelsConfig())
    number(corpus)
    by_language = [[c for c in corpus.kept if c.candidate.language == code] for code in ("en", "fr")]
    counts = add_references(by_language, CorpusLabelsConfig())
    assert counts["across_languages"] == 12 and counts["rule_violations"] == 0
    languages = {c.clip_id: c.candidate.language for c in corpus.kept}
    for c in corpus.kept:
        own = [languages[reference.clip_id] == c.candidate.language for reference in c.references or ()]
        assert own == [True] * 3 + [False]
    before = [c.references for c in corpus.kept]
    add_references([corpus.kept], CorpusLabelsConfig())
    assert [c.references for c in corpus.kept] == before


def test_a_given_speaker_keeps_its_name_and_measures_the_clusters() -> None:
    corpus = collected(*(clip(n, voice=n % 2, speaker=("ann", "bob")[n % 2]) for n in range(8)))
    speakers = label_corpus(corpus, CorpusLabelsConfig())
    assert {c.speaker for c in corpus.kept} == {"ann", "bob"}
    assert speakers.in_cluster == speakers.in_speaker == speakers.known == 8


def test_a_threshold_moves_no_other_clip_s_labels() -> None:
    clips = [clip(n) for n in range(10)]
    everything = collected(*map(copy.copy, clips))
    label_corpus(everything, CorpusLabelsConfig())
    fewer = CollectedClips(kept=[*map(copy.copy, clips[:5])], rejected=[*map(copy.copy, clips[5:])])
    label_corpus(fewer, CorpusLabelsConfig())
    for a, b in zip(everything.kept, fewer.kept, strict=False):
        assert (a.expressiveness, a.facts, a.speaker) == (b.expressiveness, b.facts, b.speaker)


def test_the_pre_screen_describes_the_wanted_share_and_loses_none() -> None:
    config = CorpusLabelsConfig.model_validate({"expressiveness": {"top_share": 0.3}})
    corpus = collected(*(clip(n) for n in range(10)))
    label_corpus(corpus, config)
    best = sorted(corpus.kept, key=lambda c: (-(c.expressiveness or 0.0), c.clip_id))[2]
    assert best.expressiveness is not None
    cutoff = Cutoff(cell=round(best.expressiveness * SCORE_CELLS), clip_id=best.clip_id)
    reasons = [not_described(one, config, cutoff) for one in corpus.kept]
    assert Counter(reasons) == {"": 3, "not_expressive": 7}
    described = [one.expressiveness or 0.0 for one, reason in zip(corpus.kept, reasons, strict=True) if not reason]
    assert min(described) == best.expressiveness
    # Nothing leaves the dataset.
    assert len(corpus.kept) == 10 and not corpus.rejected
    unscored = made_clip(20)
    assert not_described(unscored, config, cutoff) == "not_scored" and not_described(corpus.kept[0], config) != ""
    assert not_described(unscored, CorpusLabelsConfig()) == ""


def test_a_condition_says_what_is_described() -> None:
    config = CorpusLabelsConfig(describe="quality.snr_db > 20 and expressiveness_percentile >= 0.5")
    corpus = collected(*(clip(n, snr_db=10.0 + 10 * (n % 4)) for n in range(12)))
    label_corpus(corpus, CorpusLabelsConfig())
    for one in corpus.kept:
        assert one.percentile is not None and one.candidate.quality is not None
        meant = one.candidate.quality.snr_db > 20 and one.percentile >= 0.5
        assert not_described(one, config) == ("" if meant else "not_meant")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"describe": "expressive"}, "set expressiveness.top_share"),
        ({"describe": "expressive", "labels": ["speakers"]}, "labels has no expressiveness"),
        ({"describe": "all", "expressiveness": {"threshold": 1}}, "drop either"),
        ({"describe": "flat"}, "neither all nor expressive"),
        ({"describe": "quality.snr_db"}, "neither all nor expressive"),
        ({"describe": "descriptions is None"}, "neither all nor expressive"),
        ({"describe": "__import__('os').system('ls')"}, "neither all nor expressive"),
    ],
)
def test_a_screen_that_says_nothing_is_refused_in_a_line(labels: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(AnnotateConfig, overrides=[f"corpus_labels={json.dumps(labels)}"])
    assert "\n" not in str(caught.value)


def test_everything_can_be_switched_off_and_missing_labels_are_no_facts() -> None:
    corpus = collected(*(made_clip(n) for n in range(2)))
    config = CorpusLabelsConfig(labels=())
    label_corpus(corpus, config)
    assert [not_described(one, config) for one in corpus.kept] == ["", ""]
    assert [c.facts for c in corpus.kept] == [[], []] and len(corpus.kept) == 2
    broken = collected(made_clip(0, voice=VoiceLabels(prosody=Label(error="ValueError: x"))))
    label_corpus(broken, CorpusLabelsConfig())
    assert errors_of(broken.kept) == {"prosody": 1}
    assert broken.kept[0].facts == [] and broken.kept[0].expressiveness is None


def described(corpus: CollectedClips, out: Path, config: AnnotateConfig) -> DescriptionJob:
    label_corpus(corpus, config.corpus_labels)
    number(corpus)
    add_references([corpus.kept], config.corpus_labels)
    job = DescriptionJob(out, config, workers=1)
    job.describe(corpus.kept, 0)
    add_eligibility(corpus.kept, config.corpus_labels)
    return job


def endpoint_config(url: str, **more: Any) -> AnnotateConfig:
    endpoint = {"url": url, "model": "m", "retries": 0, "requests_per_minute": 1e6} | more
    labels = {"descriptions": {"writer": "endpoint", "endpoint": endpoint}}
    return AnnotateConfig.model_validate({"corpus_labels": labels})


def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
    texts = {"tags": "male voice", "phrase": "a male voice", "sentence": "A man speaks.", "paragraph": "A man speaks."}
    style = {key: "a medium pitch" for key in texts}
    handler.reply(json.dumps({"design": texts, "style": style}))


def test_an_endpoint_writes_and_no_request_is_sent_twice(tmp_path: Path) -> None:
    with chat_server(answer) as server:
        job = described(collected(*(clip(n) for n in range(6))), tmp_path, endpoint_config(server.url))
        sent = len(server.seen)
        assert sent >= 6 and job.usage is not None and job.usage["requests"] == sent
        corpus = collected(*(clip(n) for n in range(6)))
        described(corpus, tmp_path, endpoint_config(server.url))
        assert len(server.seen) == sent
    assert all(description.verdicts for c in corpus.kept for description in c.descriptions)
    write_parquet(tmp_path / "clips.parquet", to_table([index_row(c) for c in corpus.kept], Clip))
    rows = pq.read_table(tmp_path / "clips.parquet").to_pylist()
    assert [len(row["descriptions"]) for row in rows] == [len(c.descriptions) for c in corpus.kept]
    assert rows[0]["gender"] == {"label": "male", "probability": 0.9, "reason": ""}
    assert rows[0]["emotion"] == {"label": None, "probability": None, "reason": "no_model"}
    assert [entry["stage"] for entry in rows[0]["stage_modes"]] == rows[0]["stages"]


def test_an_endpoint_that_is_down_ends_the_job_with_one_line(tmp_path: Path) -> None:
    config = endpoint_config("http://127.0.0.1:9/v1", give_up_after=2)
    with pytest.raises(JobError, match="127.0.0.1:9"):
        described(collected(*(clip(n) for n in range(6))), tmp_path, config)
