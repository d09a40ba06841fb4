"""Readers on files in the official layouts, whole and damaged."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.benchmarks import READERS, read_benchmark
from voxmill.core.errors import UserError


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_seed_tts_eval_reads_2_to_5_fields_and_names_malformed_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "en" / "meta.lst",
        "two|Just a text.",
        "three.wav|A text and its voice.|prompt-wavs/a.wav",
        "four|What is message.|prompt-wavs/b.wav|What to say.",
        "five|What is message.|prompt-wavs/b.wav|What to say now.|wavs/five.wav",
        "",
        "one field only",
        "a|b|c|d|e|f",
        "four|again|prompt-wavs/b.wav|The same id.",
        "../up|message|a.wav|Out of the folder.",
        "empty|message|a.wav|  ",
    )
    benchmark = read_benchmark(f"seed-tts-eval:{path}")
    assert [(u.id, u.text, u.language, u.group) for u in benchmark.utterances] == [
        ("two", "Just a text.", "en", "test-en"),
        ("three", "A text and its voice.", "en", "test-en"),
        ("four", "What to say.", "en", "test-en"),
        ("five", "What to say now.", "en", "test-en"),
    ]
    assert benchmark.utterances[0].reference is None
    assert benchmark.utterances[1].reference == tmp_path / "en" / "prompt-wavs" / "a.wav"
    assert benchmark.utterances[1].reference_text is None
    assert benchmark.utterances[3].reference_text == "What is message."
    assert [line.line for line in benchmark.malformed] == [6, 7, 8, 9, 10]
    assert "1 fields" in benchmark.malformed[0].reason and "line 3's already" in benchmark.malformed[2].reason
    assert str(benchmark.malformed[1]).startswith(f"{path}, line 7: 6 fields")


def test_seed_tts_eval_knows_the_hard_set_and_sees_a_language_from_the_texts(tmp_path: Path) -> None:
    hard = write(tmp_path / "zh" / "hardcase.lst", "a|说|p.wav|四是四，十是十。")
    assert read_benchmark(f"seed-tts-eval:{hard}").utterances[0].group == "test-zh-hard"
    own = write(tmp_path / "mine" / "meta.lst", "a|说|p.wav|四是四。", "b|说|p.wav|十是十。")
    assert {u.language for u in read_benchmark(f"seed-tts-eval:{own}").utterances} == {"zh"}


def test_cv3_eval_reads_a_tree_and_finds_references_from_the_repositorys_root(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, line in (
        ("zero_shot/ja", "静かでした"),
        ("zero_shot/hard_zh", "四是四"),
        ("cross_lingual_zeroshot/to_ko", "네"),
    ):
        folder = data / name
        write(folder / "text", f"uttid_1 {line}", "uttid_2 no reference", "uttid_3")
        write(folder / "prompt_text", "uttid_1 what is said")
        write(folder / "prompt_wav.scp", f"uttid_1 data/{name.replace('/', '//')}/waveform/a.wav")
        write(folder / "waveform" / "a.wav", "not heard here")
    write(data / "emotion_zeroshot" / "en" / "text", "happy_high_uttid_1 Hooray!", "sad_low_uttid_1 Oh.")
    write(data / "emotion_zeroshot" / "en" / "prompt_wav.scp", "happy_high_uttid_1 x/h.wav", "sad_low_uttid_1 x/s.wav")
    benchmark = read_benchmark(f"cv3-eval:{data}")
    by_id = {u.id: u for u in benchmark.utterances}
    ja = by_id["zero_shot/ja/uttid_1"]
    assert (ja.language, ja.group, ja.reference_text) == ("ja", "ja", "what is said")
    assert ja.reference is not None and ja.reference.samefile(data / "zero_shot" / "ja" / "waveform" / "a.wav")
    assert by_id["zero_shot/hard_zh/uttid_1"].group == "hard-zh"
    assert by_id["cross_lingual_zeroshot/to_ko/uttid_1"].language == "ko"
    assert {u.group for u in benchmark.utterances if "emotion" in u.id} == {
        "emotion-zeroshot/en-happy",
        "emotion-zeroshot/en-sad",
    }
    assert len(benchmark.malformed) == 6 and all(line.line in (2, 3) for line in benchmark.malformed)
    one = read_benchmark(f"cv3-eval:{data / 'zero_shot' / 'ja'}")
    assert [(u.id, u.group) for u in one.utterances] == [("uttid_1", "ja")]


def test_minimax_mls_reads_speakers_and_their_texts(tmp_path: Path) -> None:
    write(tmp_path / "text" / "english.txt", "english_female|First.", "english_male|Second.", "nobody|Third.", "Fourth")
    write(tmp_path / "text" / "cantonese.txt", "cantonese_female|你好")
    for speaker in ("english_female/common_voice_en_1", "english_male/common_voice_en_2"):
        write(tmp_path / "speaker" / "english" / f"{speaker}.mp3", "audio")
    write(tmp_path / "speaker" / "cantonese" / "cantonese_female" / "common_voice_yue_3.mp3", "audio")
    write(tmp_path / "speaker" / "prompt_text.txt", "common_voice_en_1.mp3|What she says.", "broken")
    benchmark = read_benchmark(f"minimax-mls:{tmp_path}")
    assert [(u.id, u.language, u.group, u.reference_text) for u in benchmark.utterances] == [
        ("cantonese/cantonese_female-001", "zh-yue", "cantonese", None),
        ("english/english_female-001", "en", "english", "What she says."),
        ("english/english_male-002", "en", "english", None),
    ]
    assert (
        benchmark.utterances[1].reference is not None and benchmark.utterances[1].reference.stem == "common_voice_en_1"
    )
    assert sorted((line.path.name, line.line) for line in benchmark.malformed) == [
        ("english.txt", 3),
        ("english.txt", 4),
        ("prompt_text.txt", 2),
    ]


def test_instruct_tts_eval_reads_both_forms(tmp_path: Path) -> None:
    records = [
        {"id": "1", "text": "Stop it!", "APS": {"instruction": "Fast and high."}, "DSD": "Angry.", "RP": "A sailor."},
        {"id": "2", "text": "Go on.", "APS": {"gen_path": "x.wav"}, "RP": {"instruction": "A queen."}},
    ]
    path = write(
        tmp_path / "set_en.jsonl", *map(json.dumps, records), "{broken", "[1]", json.dumps({"id": "3", "text": 5})
    )
    benchmark = read_benchmark(f"instruct-tts-eval:{path}")
    assert [(u.id, u.group, u.description) for u in benchmark.utterances] == [
        ("APS/1", "en-APS", "Fast and high."),
        ("DSD/1", "en-DSD", "Angry."),
        ("RP/1", "en-RP", "A sailor."),
        ("RP/2", "en-RP", "A queen."),
    ]
    assert sorted(line.line for line in benchmark.malformed) == [2, 3, 4, 5]
    table = pa.table(
        {"id": ["a"], "text": ["停下！"], "APS": ["快"], "DSD": ["怒"], "RP": ["水手"], "reference_audio": [b"x"]}
    )
    pq.write_table(table, tmp_path / "part-0.parquet")
    assert [u.group for u in read_benchmark(f"instruct-tts-eval:{tmp_path / 'part-0.parquet'}").utterances] == [
        "zh-APS",
        "zh-DSD",
        "zh-RP",
    ]


def test_thirty_languages_reads_common_voice_and_fleurs_and_clones_from_another_row(tmp_path: Path) -> None:
    write(
        tmp_path / "sv-SE" / "test.tsv",
        "client_id\tpath\tsentence\tage",
        'x\ta.mp3\tHej "du".\t',
        "y\tb.mp3\tGod natt.\t",
        'z\tc.mp3\tHej "du".\t',
        "short",
    )
    write(tmp_path / "sv-SE" / "clips" / "b.mp3", "audio")
    write(
        tmp_path / "es_419" / "test.tsv",
        "17\t11.wav\tHola a todos.\thola a todos\th o\t1\tMALE",
        "18\t12.wav\tAdiós.\t\t\t1\tMALE",
    )
    write(tmp_path / "es_419" / "audio" / "test" / "12.wav", "audio")
    write(tmp_path / "eo" / "test.tsv", "client_id\tpath\tsentence", "x\ta.mp3\tSaluton.")
    benchmark = read_benchmark(f"thirty-languages:{tmp_path}")
    assert [(u.id, u.language, u.text) for u in benchmark.utterances] == [
        ("es/11", "es", "Hola a todos."),
        ("es/12", "es", "Adiós."),
        ("sv/a", "sv", 'Hej "du".'),
        ("sv/b", "sv", "God natt."),
    ]
    assert benchmark.utterances[0].reference == tmp_path / "es_419" / "audio" / "test" / "12.wav"
    assert benchmark.utterances[2].reference == tmp_path / "sv-SE" / "clips" / "b.mp3"
    assert benchmark.utterances[2].reference_text == "God natt."
    assert {(line.path.parent.name, line.line) for line in benchmark.malformed} == {("sv-SE", 5), ("eo", 1)}


def test_null_is_not_there(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": None, "text": "Hello.", "language": "en", "reference": None, "description": None}),
        json.dumps({"text": None, "language": "en"}),
        json.dumps({"text": 3, "language": "en"}),
    ]
    benchmark = read_benchmark(f"texts:{write(tmp_path / 'list.jsonl', *lines)}")
    (one,) = benchmark.utterances
    assert (one.id, one.reference, one.description) == ("000001", None, None)
    assert [(line.line, line.reason.partition(";")[0]) for line in benchmark.malformed] == [
        (2, "no text"),
        (3, "must be an object whose values are strings or null"),
    ]


def test_fingerprints_follow_contents_and_not_places(tmp_path: Path) -> None:
    lines = [json.dumps({"id": "a", "text": "Hello.", "language": "en", "reference": "r.wav"})]
    prints = []
    for name, heard in (("one", "voice"), ("two", "voice"), ("three", "another voice")):
        write(tmp_path / name / "r.wav", heard)
        prints.append(read_benchmark(f"texts:{write(tmp_path / name / 'list.jsonl', *lines)}").fingerprint())
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("kind", sorted(READERS))
def test_what_holds_no_utterance_is_a_users_mistake_in_one_line(kind: str, tmp_path: Path) -> None:
    for place in (tmp_path, write(tmp_path / "x.jsonl", "nothing"), write(tmp_path / "x.lst", "nothing")):
        with pytest.raises(UserError) as caught:
            read_benchmark(f"{kind}:{place}")
        assert str(place) in str(caught.value) or str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_benchmark_that_is_not_there_is_named(tmp_path: Path) -> None:
    for named, message in (
        (f"seed-tts-eval:{tmp_path}/none", "not there"),
        ("seed:x", "KIND:PATH"),
        ("meta.lst", "KIND:PATH"),
    ):
        with pytest.raises(UserError, match=message):
            read_benchmark(named)
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    with pytest.raises(UserError, match="not UTF-8"):
        read_benchmark(f"texts:{tmp_path / 'latin.jsonl'}")
