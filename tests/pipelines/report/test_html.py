"""The report and the card over a small but real output folder: FLAC in tars, hostile names, no clips."""

import base64
import html
import io
import json
import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

from pipelines.report.card import write_card
from pipelines.report.formatting import visible
from pipelines.report.html import funnel, write_report
from pipelines.report.previews import EXAMPLE_RATE, EXAMPLE_SECONDS
from pipelines.report.tables import load_outcome
from voxmill.core.errors import UserError

HOSTILE = "<script>alert(1)</script>"
EVIL_PATH = 'in/two\nlines "quoted" \u202egnp.exe 🎙️ <img src=x onerror=alert(2)>.wav'
RATE = 24_000

QUALITY = (
    "dnsmos_sig",
    "dnsmos_bak",
    "dnsmos_ovr",
    "dnsmos_p808",
    "snr_db",
    "clipping",
    "bandwidth_hz",
    "loudness_lufs",
)
CLIP = pa.schema(
    [
        *[(name, pa.string()) for name in ("clip_id", "recording_id", "session")],
        ("position", pa.int32()),
        ("start_sample", pa.int64()),
        ("end_sample", pa.int64()),
        ("sample_rate", pa.int32()),
        ("duration", pa.float64()),
        ("text", pa.string()),
        (
            "words",
            pa.list_(
                pa.struct(
                    [
                        ("word", pa.string()),
                        ("start", pa.float64()),
                        ("end", pa.float64()),
                        ("probability", pa.float64()),
                    ]
                )
            ),
        ),
        ("language", pa.string()),
        ("language_probability", pa.float64()),
        ("speaker", pa.string()),
        ("origin", pa.string()),
        ("quality", pa.struct([(name, pa.float64()) for name in (*QUALITY, "gain_db", "dc_offset")])),
        (
            "transcript",
            pa.struct(
                [
                    ("compression_ratio", pa.float64()),
                    ("characters_per_second", pa.float64()),
                    ("redecoded", pa.bool_()),
                    ("aligner", pa.string()),
                ]
            ),
        ),
        ("licence", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
    ]
)
REJECTED = pa.schema(
    [
        *CLIP,
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)
RECORDING = pa.schema(
    [
        *[(name, pa.string()) for name in ("recording_id", "path", "session", "state", "stage", "reason")],
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("detail", pa.string()),
        ("duration", pa.float64()),
        ("sample_rate", pa.int32()),
        ("channels", pa.int32()),
        ("codec", pa.string()),
        ("num_clips", pa.int32()),
        ("num_kept", pa.int32()),
        ("licence", pa.string()),
    ]
)
LOST = (
    ("transcription", "characters_per_second", 31.0, 25.0),
    ("quality", "dnsmos_ovr", 2.3, 3.0),
    ("quality", "dnsmos_ovr", 2.9, 3.0),
    ("quality", "snr_db", 6.0, 15.0),
    ("quality", HOSTILE, None, None),
)
TEXTS = (
    HOSTILE,
    "We left before the rain came.",
    "مرحبا بكم في هذا التسجيل",
    "今天天气很好，我们去散步吧。",
    "Guten Morgen, wie geht es?",
)


def flac(seconds: float, rng: np.random.Generator, noise: float) -> bytes:
    time = np.arange(int(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (180 + 120 * np.sin(time)) * time) * (0.6 + 0.4 * np.sin(9 * time))
    packed = io.BytesIO()
    soundfile.write(packed, np.clip(tone + noise * rng.standard_normal(len(time)), -1, 1), RATE, format="FLAC")
    return packed.getvalue()


def make_out(out: Path, kept: int = 40, lost: int = 24) -> Path:
    """A run's output folder as the annotation job leaves it."""
    rng = np.random.default_rng(7)
    (out / "shards").mkdir(parents=True)
    (out / "work").mkdir()

    def rows(shard: str, count: int, dropped: bool) -> list[dict[str, Any]]:
        made = []
        with tarfile.open(out / shard, "w") as tar:
            for i in range(count):
                seconds = 17.0 if i == 0 else float(rng.uniform(1.5, 5.0))
                data, clip = flac(seconds, rng, 0.2 if dropped else 0.01), f"rec{i % 3:02d}-{i:05d}"
                for ending, content in (("flac", data), ("json", json.dumps({"text": "x"}).encode())):
                    info = tarfile.TarInfo(f"{clip}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                quality = dict.fromkeys(CLIP.field("quality").type.names)
                good = 2.3 if dropped else 3.4
                quality |= {
                    "dnsmos_ovr": rng.normal(good, 0.2),
                    "snr_db": rng.normal(good * 8, 4),
                    "bandwidth_hz": rng.normal(9e3, 1e3),
                }
                row = {
                    "clip_id": clip,
                    "recording_id": f"rec{i % 3:02d}",
                    "position": i,
                    "sample_rate": RATE,
                    "duration": seconds,
                    "text": TEXTS[i % len(TEXTS)],
                    "words": [],
                    "language": ("en", "en", "ar", "zh", "de")[i % 5],
                    "language_probability": 0.97,
                    "speaker": f"s{i % 4}",
                    "origin": "separated" if i % 6 == 0 else "native",
                    "quality": quality,
                    "transcript": {"characters_per_second": rng.normal(22 if dropped else 14, 3)},
                    "licence": "CC-BY-4.0" if i % 4 else "a|b\n<i>",
                    "shard": shard,
                    "size": len(data),
                }
                if dropped:
                    stage, reason, value, threshold = LOST[i % len(LOST)]
                    row |= {"stage": stage, "reason": reason, "value": value, "threshold": threshold}
                made.append(row)
        with tarfile.open(out / shard) as tar:
            offsets = [member.offset_data for member in tar if member.name.endswith(".flac")]
        return [row | {"offset": offset} for row, offset in zip(made, offsets, strict=True)]

    recordings = [
        {
            "recording_id": f"rec{i:02d}",
            "path": f"in/talk-{i}.mp3",
            "state": "kept",
            "duration": 900.0 + i,
            "num_clips": 20,
            "num_kept": 13,
            "licence": "CC-BY-4.0",
        }
        for i in range(3)
    ]
    recordings += [
        {"path": EVIL_PATH, "state": "unreadable", "stage": "decode", "reason": "no audio stream", "detail": HOSTILE},
        {
            "path": "in/تسجيل.wav",
            "state": "rejected",
            "stage": "events",
            "reason": "too little speech",
            "value": 0.04,
            "threshold": 0.1,
            "duration": 61.0,
            "num_clips": 0,
            "num_kept": 0,
        },
        {
            "path": "in/talk-0-copy.mp3",
            "state": "duplicate",
            "reason": "same audio",
            "detail": "in/talk-0.mp3",
            "duration": 900.0,
        },
    ]
    lost_rows = rows("work/rejected-000.tar", lost, True)
    if len(lost_rows) > 9:
        lost_rows[4] |= {"shard": None, "offset": None, "size": None}
        lost_rows[9] |= {"shard": "work/swept.tar"}
    pq.write_table(pa.Table.from_pylist(rows("shards/clips-000000.tar", kept, False), CLIP), out / "clips.parquet")
    pq.write_table(pa.Table.from_pylist(lost_rows, REJECTED), out / "rejected.parquet")
    pq.write_table(pa.Table.from_pylist(recordings, RECORDING), out / "recordings.parquet")
    names = ("decode", "events", "separation", "segmentation", "transcription", "quality", "prosody")
    run = {
        "config": {
            "seed": 7,
            "select": {
                "min_dnsmos_ovr": 3.0,
                "min_snr_db": 15,
                "max_characters_per_second": 25,
                "min_seconds": 1.0,
                "max_seconds": 300.0,
                "min_bandwidth_hz": 8000.0,
                "note": HOSTILE,
            },
        },
        "versions": {"torch": "2.11.0", HOSTILE: "1"},
        "models": [
            {
                "stage": "transcription",
                "name": "large-v3",
                "source": "Systran/faster-whisper-large-v3",
                "sha256": "ab" * 32,
                "licence": "MIT",
            },
            {"stage": "quality", "name": HOSTILE, "source": "speechmos", "sha256": None, "licence": None},
        ],
        "stages": [
            {"name": name, "seconds": 2.0 + 9 * i, "audio_seconds": 420.0 - 30 * i, "calls": 6}
            for i, name in enumerate(names)
        ],
        "separation": {
            "mode": "auto",
            "rule": "music_share > 0.05",
            "recordings_separated": 1,
            "recordings_total": 4,
            "seconds_spent": 20.0,
            "seconds_saved": 60.0,
        },
        "found_done": 2,
        "started": "2025-01-02T03:04:05Z",
        "finished": "2025-01-02T03:08:05Z",
        "wall_seconds": 240.0,
        "seed": 7,
    }
    (out / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return out


class Page(HTMLParser):
    """Collects the tags, so that an injected one cannot hide in text that merely looks escaped."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def sources(self) -> list[str]:
        return [attrs["src"] or "" for tag, attrs in self.tags if tag == "audio"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_out(tmp_path_factory.mktemp("run") / "out")


@pytest.fixture(scope="module")
def source(out: Path) -> str:
    return write_report(out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_hostile_text_stays_text(source: str, page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "iframe", "object", "link"}
    assert not any(attr.startswith("on") for _, attrs in page.tags for attr in attrs)
    assert html.escape(HOSTILE) in source
    assert any(HOSTILE in text for text in page.text)
    # The name's newline and direction override are shown, not obeyed.
    assert any("two⏎lines" in text and "‹U+202E›" in text and "🎙️" in text for text in page.text)
    assert "\u202e" not in source


def test_nothing_comes_from_the_network(source: str, page: Page) -> None:
    for tag, attrs in page.tags:
        for name in ("src", "href"):
            if name in attrs:
                assert (attrs[name] or "").startswith(("data:audio/ogg;base64,", "#")), (tag, attrs[name])
    assert not re.search(r"url\(|@import|https?://", source)


def test_examples_play_and_are_small(page: Page) -> None:
    # Six kept and three for each of four reasons, less those whose tar was swept.
    assert 6 + 9 <= len(sources := page.sources()) <= 6 + 4 * 3
    longest = 0.0
    for uri in sources:
        data = base64.b64decode(uri.split(",", 1)[1])
        audio, rate = soundfile.read(io.BytesIO(data))
        assert rate == EXAMPLE_RATE and audio.ndim == 1 and np.abs(audio).max() > 0.05
        assert len(data) < 120_000
        longest = max(longest, len(audio) / rate)
    assert longest <= EXAMPLE_SECONDS + 0.1


def test_numbers_reach_the_page(page: Page) -> None:
    text = " ".join(" ".join(page.text).split())
    for expected in (
        "too little speech",
        "0.04",
        "Clips found 64",
        "Clips kept 40",
        "music_share > 0.05",
        "slowest",
        "ab" * 32,
    ):
        assert expected in text, expected
    # Thresholds are drawn from config.select; the 300 s maximum lies far outside the data and is left out.
    for mark in ("≥ 3", "≥ 15", "≤ 25", "≥ 1", "≥ 8,000"):
        assert mark in page.text
    assert not any(text.startswith("≤ 300") for text in page.text)


def test_every_stage_s_compute_stands_at_the_step_it_leads_to(out: Path) -> None:
    rows = {row.label: (row.count, row.compute, row.stages) for row in funnel(load_outcome(out))}
    assert rows == {
        "Recordings in": (6, None, ""),
        "Readable": (5, 2.0, "decode"),
        "Not a duplicate": (4, None, ""),
        "With speech": (3, 11.0, "events"),
        "Clips found": (64, 20.0 + 29.0, "separation, segmentation"),
        "After transcription": (59, 38.0, "transcription"),
        "Clips kept": (40, 47.0 + 56.0, "quality, prosody"),
    }


def test_stages_that_reject_no_clip_count_towards_the_next_that_does(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", 4, 0)
    rows = {row.key: row.stages for row in funnel(load_outcome(out))}
    assert rows["clips"] == "separation, segmentation" and rows["kept"] == "transcription, quality, prosody"
    assert list(rows) == ["in", "readable", "distinct", "speech", "clips", "kept"]


def test_a_run_of_an_older_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", 1, 0)
    (out / "run.json").write_text('{"control": {}}', encoding="utf-8")
    with pytest.raises(UserError, match="older voxmill; run `voxmill annotate` again"):
        write_report(out)


@pytest.mark.parametrize(("kept", "lost"), [(0, 0), (0, 7), (1, 0)])
def test_few_or_no_clips(tmp_path: Path, kept: int, lost: int) -> None:
    out = make_out(tmp_path / "out", kept, lost)
    page = Page(write_report(out).read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert ("No clip was kept" in text) == (kept == 0)
    assert ("No clip was rejected" in text) == (lost == 0)
    assert "nan" not in text.lower().split()
    assert write_card(out).is_file()


def test_empty_folder_of_untyped_tables(tmp_path: Path) -> None:
    """A run over nothing may write columns pyarrow could give no type."""
    for name, schema in (("clips", CLIP), ("rejected", REJECTED), ("recordings", RECORDING)):
        untyped = pa.schema([(column, pa.null()) for column in schema.names])
        pq.write_table(pa.Table.from_pylist([], untyped), tmp_path / f"{name}.parquet")
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    assert "No recordings came in" in write_report(tmp_path).read_text(encoding="utf-8")
    assert "no clip was kept" in write_card(tmp_path).read_text(encoding="utf-8")


def test_card(out: Path) -> None:
    text = write_card(out).read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["language"] == ["ar", "de", "en", "zh"] and facts["clips"] == 40
    assert sorted(facts["licences"]) == ["CC-BY-4.0", "a|b\n<i>"] and facts["license"] == "other"
    assert "<script" not in body and "a\\|b⏎&lt;i&gt;" in body
    assert "| min\\_dnsmos\\_ovr | 3 |" in body and "ab" * 32 in body
    # Every table row has as many cells as its head, whatever the names hold.
    for block in re.findall(r"(?:^\|.*\n)+", body, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_card_snippet_reads_the_shards(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"```python\n(.*?)```", write_card(out).read_text(encoding="utf-8"), re.S)
    assert code
    monkeypatch.chdir(out)
    exec(compile(code.group(1), "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 40


def test_visible_keeps_ordinary_text() -> None:
    assert visible("naïve 日本 עברית 🎙️") == "naïve 日本 עברית 🎙️"
    assert visible("a\tb\x7f\u2066") == "a␉b‹U+007F›‹U+2066›"
