"""Parquet files with audio in them are read as Hugging Face's datasets read them."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from tests.pipelines.inputs.corpora.made_corpora import (
    TURNS,
    clips,
    close,
    encoded,
    ends,
    planned,
)


def hugging_face(folder: Path, rows: Sequence[dict[str, object]], **features: object) -> Path:
    """A table with the columns and the metadata that `Dataset.to_parquet` writes; its encoder asks for torchcodec."""
    from datasets import Audio, Features, Value

    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: Value("string") for name in rows[0]} | {"audio": Audio(decode=False)} | features
    table = pa.Table.from_pylist([*rows], schema=Features(kinds).arrow_schema)
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    return folder / "train-00000-of-00001.parquet"


def test_parquet_of_hugging_face_is_what_datasets_reads(tmp_path: Path) -> None:
    from datasets import Audio, ClassLabel, Dataset, Value

    emotions = ClassLabel(names=["angry", "happy"])
    table = hugging_face(
        tmp_path / "repo" / "data",
        [
            {
                "audio": {"bytes": encoded(said.audio, "WAV"), "path": f"{said.key}.wav"},
                "sentence": said.text,
                "speaker_id": 19 + number,
                "emotion": number % 2,
                "gender": "female",
                "age": "twenties",
                "chapter": number,
                "locale": "en-US",
            }
            for number, said in enumerate(TURNS)
        ],
        emotion=emotions,
        speaker_id=Value("int64"),
        chapter=Value("int64"),
    )
    (tmp_path / "repo" / "README.md").write_text("# corpus")
    peer = Dataset.from_parquet(str(table), cache_dir=str(tmp_path / "cache")).cast_column("audio", Audio(decode=False))
    plan = planned(tmp_path / "repo")
    found = {read.text: read for read in clips(plan)}
    assert len(found) == len(peer) == len(TURNS)
    for row in peer:
        read = found[row["sentence"]]
        assert close(read.audio, soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0])
        assert read.speaker == str(row["speaker_id"])
        assert read.given == {
            "gender": row["gender"],
            "age": row["age"],
            "emotion": emotions.int2str(row["emotion"]),
            "chapter": row["chapter"],
        }
    assert {result.window.source.language for unit in plan.units for result in unit.results} == {"en"}


def test_parquet_rows_without_audio_end_by_themselves(tmp_path: Path) -> None:
    contents = [encoded(TURNS[0].audio), b"no audio at all, " * 9, b"", None]
    rows: list[dict[str, object]] = [
        {"audio": {"bytes": content, "path": f"{n}.flac"}, "text": "x"} for n, content in enumerate(contents)
    ]
    hugging_face(tmp_path, rows)
    plan = planned(tmp_path)
    here = "train-00000-of-00001.parquet"
    assert ends(plan) == {
        f"1.flac ({here}:2)": "not_audio",
        f"2.flac ({here}:3)": "empty_file",
        f"3.flac ({here}:4)": "empty_file",
    }
    assert len(clips(plan)) == 1


def test_columns_of_any_kind_travel_or_are_left_alone(tmp_path: Path) -> None:
    table = pa.table(
        {
            "audio": [{"bytes": encoded(TURNS[0].audio), "path": None}],
            "text": pa.array(["Hello."]).dictionary_encode(),
            "picture": [{"bytes": b"\x89PNG", "path": "a.png"}],
            "scores": pa.array([[("snr", 20)]], pa.map_(pa.string(), pa.int64())),
            "words": [[{"word": "Hello.", "start": 0.5}]],
            "__index_level_0__": [7],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (read,) = clips(planned(tmp_path / "a.parquet"))
    assert (read.name, read.text) == ("row (a.parquet:1)", "Hello.")
    assert read.given == {"scores": [["snr", 20]], "words": [{"word": "Hello.", "start": 0.5}]}


def test_a_folder_with_recordings_beside_its_tables_is_one_of_recordings(tmp_path: Path) -> None:
    hugging_face(tmp_path / "data", [{"audio": {"bytes": encoded(TURNS[0].audio), "path": "x.flac"}, "text": "x"}])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.flac").write_bytes(encoded(TURNS[1].audio))
    assert [read.name for read in clips(planned(tmp_path))] == ["more/a.flac"]
    (tmp_path / "more" / "data").write_text("a file")
    assert [read.name for read in clips(planned(tmp_path / "more"))] == ["a.flac"]
