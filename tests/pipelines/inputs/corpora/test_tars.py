"""Tars of labelled recordings are read as webdataset reads them; what is wrong in one is named."""

import io
import json
from pathlib import Path

import soundfile

from tests.pipelines.inputs.corpora.made_corpora import (
    RATE,
    TURNS,
    Said,
    clips,
    close,
    encoded,
    ends,
    planned,
    warnings,
    write_tar,
)


def emilia(said: Said) -> dict[str, object]:
    return {
        "_id": said.key,
        "wav": f"{said.key}.mp3",
        "text": f" {said.text}",
        "duration": len(said.audio) / RATE,
        "speaker": "EN_B00000_S00000",
        "language": "en",
        "dnsmos": 3.2927,
        "phone_count": 51,
    }


def test_tars_of_emilia_are_what_webdataset_reads(tmp_path: Path) -> None:
    import webdataset

    members = []
    for said in TURNS:
        label = json.dumps(emilia(said)).encode()
        members += [(f"{said.key}.mp3", encoded(said.audio, "MP3")), (f"{said.key}.json", label)]
    write_tar(tmp_path / "EN-B000000.tar", members)
    peer = list(webdataset.WebDataset(str(tmp_path / "EN-B000000.tar"), shardshuffle=False))
    found = clips(planned(tmp_path / "EN-B000000.tar"))
    assert len(found) == len(peer) == len(TURNS)
    by_name = {read.name: read for read in found}
    for sample in peer:
        read, row = by_name[f"EN-B000000.tar/{sample['__key__']}.mp3"], json.loads(sample["json"])
        assert close(read.audio, soundfile.read(io.BytesIO(sample["mp3"]), dtype="float32")[0])
        assert (read.text, read.speaker) == (row.pop("text").strip(), row.pop("speaker"))
        assert row.pop("language") == "en" and read.given == row


def test_tars_that_lack_labels_or_recordings_or_have_two(tmp_path: Path) -> None:
    one, two, three, four = [encoded(said.audio) for said in TURNS]
    label = [json.dumps(emilia(said)).encode() for said in TURNS]
    members = [
        ("a.flac", one),
        ("a.json", label[0]),
        ("alone.json", label[1]),
        ("bare.flac", two),
        ("broken.flac", three),
        ("broken.json", b"{"),
        ("odd.flac", four),
        ("odd.json", json.dumps({"text": ["a", "b"]}).encode()),
        ("info.json", b'{"version": 1}'),
        ("a.flac", one),
    ]
    write_tar(tmp_path / "x.tar", members)
    plan = planned(tmp_path / "x.tar")
    assert ends(plan) == {
        "x.tar/alone.json": "no_audio",
        "x.tar/info.json": "not_audio",
        "x.tar/a.flac (again)": "duplicate_id",
    }
    assert [row.path for row in plan.recordings if row.state == "other"] == ["x.tar/info.json"]
    assert warnings(plan) == {
        "x.tar/bare.flac": ["labels_missing"],
        "x.tar/broken.flac": ["labels_unreadable"],
        "x.tar/odd.flac": ["labels_unreadable"],
    }
    write_tar(tmp_path / "plain.tar", [("a.flac", one), ("b.flac", two)])
    assert warnings(planned(tmp_path / "plain.tar")) == {}


def test_tars_that_are_not_in_order_or_hold_odd_members(tmp_path: Path) -> None:
    one, two = encoded(TURNS[0].audio), encoded(TURNS[1].audio)
    deep = b"[" * 100_000
    members = [
        ("v1.0/a.flac", one),
        ("v1.0/._a.flac", b"Mac OS X"),
        ("v1.0/b.flac", two),
        ("v1.0/a.json", b'\xef\xbb\xbf{"text": "a", "dnsmos": NaN}'),
        ("v1.0/b.json", deep),
        ("v1.0/a.json", b'{"text": "again"}'),
    ]
    write_tar(tmp_path / "x.tar", members)
    plan = planned(tmp_path / "x.tar")
    assert [(read.name, read.given) for read in clips(plan) if read.text == "a"] == [("x.tar/v1.0/a.flac", {})]
    assert ends(plan) == {"x.tar/v1.0/._a.flac": "not_audio"}
    kinds = ["labels_unreadable"]
    assert warnings(plan) == {"x.tar/v1.0/a.flac": kinds, "x.tar/v1.0/b.flac": kinds}
