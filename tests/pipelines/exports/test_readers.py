"""Every format is read back by a library of its own field, and says what the index says."""

import html
import io
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import praatio.textgrid
import pysubs2
import pytest
import soundfile
import webvtt

from pipelines.exports.export import ExportFormat, export_as
from pipelines.exports.hugging_face import export_hugging_face
from tests.pipelines.exports.made_dataset import NASTY, awkward_dataset, files_of
from voxmill.data.dataset import Dataset

MILLISECOND = 0.00051
ONE_LINE = "one two three four five six seven"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return awkward_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def clips(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of the index by clip, with `start` and `end` in seconds."""
    columns = ["clip_id", "session", "start_sample", "end_sample", "sample_rate", "text", "speaker", "duration", "path"]
    rows = Dataset.open(out).table(columns).to_pylist()
    for row in rows:
        row |= {"start": row["start_sample"] / row["sample_rate"], "end": row["end_sample"] / row["sample_rate"]}
    return {row["clip_id"]: row for row in rows}


def session(clips: dict[str, dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted((row for row in clips.values() if row["session"] == name), key=lambda row: float(row["start"]))


def names(folder: Path, suffix: str) -> dict[str, str]:
    """Files of an export by what they are of."""
    found = [name for name in files_of(folder) if name.endswith(suffix)]
    marks = {"en-1": "shows/one", "es-1": "Übung", "fr-1": ".ch0", "ru-1": ".ch1", "en-2": "en-2"}
    by = {who: next(name for name in found if mark in name) for who, mark in marks.items() if who != "en-1"}
    one, other = sorted(name for name in found if "shows/one" in name)
    texts = [(folder / name).read_text(encoding="utf-8") for name in (one, other)]
    en, it = (one, other) if "seven" in texts[0] or "Anna" in texts[1] else (other, one)
    assert len(found) == 6
    return by | {"en-1": en, "it-1": it}


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles(out: Path, clips: dict[str, dict[str, Any]], tmp_path: Path, kind: str) -> None:
    assert export_as(out, tmp_path, ExportFormat(kind)) == {"clips": 12, "files": 6}
    for who, name in names(tmp_path, f".{kind}").items():
        mine = session(clips, who)
        cues = pysubs2.load(str(tmp_path / name), encoding="utf-8", format_=kind)
        assert [(cue.start, cue.end) for cue in cues] == [
            (round(row["start"] * 1000), round(row["end"] * 1000)) for row in mine
        ]
        if who not in ("en-1", "fr-1"):
            assert [cue.plaintext for cue in cues] == [row["text"] for row in mine]


def test_texts_of_srt(out: Path, tmp_path: Path) -> None:
    export_as(out, tmp_path, ExportFormat.SRT)
    cues = pysubs2.load(str(tmp_path / names(tmp_path, ".srt")["en-1"]))
    assert [cue.plaintext for cue in cues] == ['He said "a --› b" & ‹i›left‹/i› (/an8)', ONE_LINE]


def test_texts_and_voices_of_webvtt(out: Path, clips: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    export_as(out, tmp_path, ExportFormat.VTT)
    cues: dict[str, webvtt.Caption] = {}
    for who, name in names(tmp_path, ".vtt").items():
        found = webvtt.read(str(tmp_path / name)).captions
        assert [cue.identifier for cue in found] == ["1", "2"]
        cues |= {row["clip_id"]: cue for cue, row in zip(found, session(clips, who), strict=True)}
    # This reader leaves escapes as they are.
    assert [html.unescape(cues[clip].text) for clip in ("en10000", "en10001")] == [NASTY, ONE_LINE]
    assert (cues["it10000"].voice, cues["fr10000"].voice) == ("Anna Bianchi", "&lt;Zoë &amp; co&gt;")
    assert cues["en20001"].text == "NOTE" and cues["ru10001"].text == "42"


def test_textgrids(out: Path, clips: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    counts = export_as(out, tmp_path, ExportFormat.TEXTGRID)
    assert counts == {"clips": 12, "files": 6, "words_without_times": 5}
    for who, name in names(tmp_path, ".TextGrid").items():
        # Overlaps, gaps and intervals of no length are errors with this reader.
        grid = praatio.textgrid.openTextgrid(str(tmp_path / name), includeEmptyIntervals=True, reportingMode="error")
        mine = session(clips, who)
        found: list[tuple[float, float, str]] = []
        for tier in grid.tiers:
            assert (
                (tier.minTimestamp, tier.maxTimestamp)
                == (grid.minTimestamp, grid.maxTimestamp)
                == (0, tier.entries[-1].end)
            )
            assert all(one.end == next_one.start for one, next_one in zip(tier.entries, tier.entries[1:], strict=False))
            if tier.name.startswith("text"):
                found += [(one.start, one.end, one.label) for one in tier.entries if one.label]
        expected = [(row["start"], row["end"]) for row in mine]
        np.testing.assert_allclose([(start, end) for start, end, _ in sorted(found)], expected, rtol=0, atol=1e-6)
        if who != "en-1":
            assert [text for _, _, text in sorted(found)] == [row["text"] for row in mine]
        times = re.findall(r"xm(?:in|ax) = (.*)", (tmp_path / name).read_text(encoding="utf-8"))
        assert times and all(re.fullmatch(r"\d+(\.\d{1,6})?", time) for time in times)
    grid = praatio.textgrid.openTextgrid(
        str(tmp_path / names(tmp_path, ".TextGrid")["en-1"]), includeEmptyIntervals=False
    )
    first, second = session(clips, "en-1")
    assert [one.label for one in grid.getTier("text").entries] == [NASTY, ONE_LINE]
    words = [(one.label, one.start, one.end) for one in grid.getTier("words").entries]
    timed = [("No", 0.0, 0.3), ('"quoted"', 0.3, 0.8), ("end", 0.9, 1.4)]
    times = [(text, first["start"] + start, first["start"] + end) for text, start, end in timed]
    times += [
        (text, second["start"] + start, second["start"] + end)
        for text, start, end in [("good", 0.1, 0.4), ("again", 0.4, 0.7)]
    ]
    assert [text for text, _, _ in words] == [text for text, _, _ in times]
    assert all(
        math.isclose(a, b, abs_tol=1e-5)
        for one, two in zip(words, times, strict=True)
        for a, b in zip(one[1:], two[1:], strict=True)
    )


def test_overlapping_clips_have_tiers_of_their_own(out: Path, tmp_path: Path) -> None:
    export_as(out, tmp_path, ExportFormat.TEXTGRID)
    grid = praatio.textgrid.openTextgrid(
        str(tmp_path / names(tmp_path, ".TextGrid")["es-1"]), includeEmptyIntervals=False
    )
    assert grid.tierNames == ("text", "speaker", "words", "text 2", "speaker 2", "words 2")


def test_rttm(out: Path, clips: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    from pyannote.database.util import load_rttm

    assert export_as(out, tmp_path, ExportFormat.RTTM) == {"clips": 12, "files": 6, "no_speaker": 7}
    speakers = {}
    uris = set()
    for who, name in names(tmp_path, ".rttm").items():
        ((uri, annotation),) = load_rttm(str(tmp_path / name)).items()  # type: ignore[no-untyped-call]
        uris.add(uri)
        found = list(annotation.itertracks(yield_label=True))
        for (segment, _, label), row in zip(found, session(clips, who), strict=True):
            assert segment.start == pytest.approx(row["start"], abs=MILLISECOND)
            assert segment.end == pytest.approx(row["end"], abs=2 * MILLISECOND)
            speakers[row["clip_id"]] = label
    assert len(uris) == 6 and not any(isinstance(uri, float) for uri in uris)
    assert (speakers["it10000"], speakers["it10001"]) == ("Anna%20Bianchi", "say%20%22NA%22")
    assert (speakers["es10000"], speakers["fr10000"], speakers["en10000"]) == (
        "%6Ean",
        "%3CZoë%20%26%20co%3E",
        "unknown",
    )


def test_lhotse(out: Path, clips: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    import lhotse

    assert export_as(out, tmp_path, ExportFormat.LHOTSE) == {"clips": 12, "words_without_times": 5}
    recordings = lhotse.load_manifest(tmp_path / "recordings.jsonl.gz")
    supervisions = lhotse.load_manifest(tmp_path / "supervisions.jsonl.gz")
    lhotse.validate_recordings_and_supervisions(recordings, supervisions, read_data=True)
    cuts = lhotse.load_manifest(tmp_path / "cuts.jsonl.gz")
    lhotse.validate(cuts, read_data=True)
    assert {cut.id for cut in cuts} == clips.keys()
    dataset = Dataset.open(out)
    stored = {clip.clip_id: dataset.audio(clip)[0] for clip in dataset.clips()}
    for cut in cuts:
        (supervision,), row = cut.supervisions, clips[cut.id]
        assert (supervision.text, supervision.speaker) == (row["text"], row["speaker"])
        assert supervision.custom["start"] == row["start"] and supervision.custom["recording"] == (
            row["path"] or "en-2"
        )
        np.testing.assert_allclose(cut.load_audio()[0], stored[cut.id], atol=1e-6)
    words = {one.id: one.alignment["word"] for one in supervisions if one.alignment}
    assert [(one.symbol, one.start, one.duration) for one in words["en10000"]] == [
        ("No", 0.0, 0.3),
        ('"quoted"', 0.3, 0.5),
        ("end", 0.9, 0.5),
    ]
    assert [one.symbol for one in words["en10001"]] == ["good", "again"]
    made = lhotse.CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    assert sorted(cut.id for cut in made) == sorted(f"{clip}-0" for clip in clips) or len(made) == 12


def load(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))


def test_hugging_face(
    out: Path, clips: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    counts = export_as(out, tmp_path / "hf", ExportFormat.HF)
    assert counts["clips"] == 12
    table = load(tmp_path / "hf", tmp_path / "cache", monkeypatch)
    assert isinstance(table.features["audio"], datasets.Audio)
    # The decoder of `datasets` needs FFmpeg's libraries; the bytes are what it would be given.
    rows = {row["clip_id"]: row for row in table.cast_column("audio", datasets.Audio(decode=False))}
    assert rows.keys() == clips.keys()
    dataset = Dataset.open(out)
    for clip in dataset.clips():
        row = rows[clip.clip_id]
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        np.testing.assert_array_equal(samples, dataset.audio(clip)[0])
        assert (rate, row["audio"]["path"]) == (clip.sample_rate, f"{clip.clip_id}.flac")
        assert row["text"] == clips[clip.clip_id]["text"]
    assert rows["en10000"]["words"][1] == {"word": '"quoted"', "start": 0.3, "end": 0.8, "probability": 0.9}
    assert rows["en10000"]["descriptions"][0]["verdicts"][0]["verdict"] == "pass"
    assert "shard" not in table.features


def test_files_and_row_groups_are_of_bounded_size(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    folder = tmp_path / "hf"
    sizes = defaultdict(int, {clip.clip_id: clip.size for clip in Dataset.open(out).clips()})
    limit = max(sizes.values())
    export_hugging_face(Dataset.open(out), folder, defaultdict(int), file_bytes=2 * limit, group_bytes=limit)  # type: ignore[arg-type]
    files = sorted((folder / "data").iterdir())
    assert len(files) > 4
    for path in files:
        file = pq.ParquetFile(path)
        groups = [file.read_row_group(number)["clip_id"].to_pylist() for number in range(file.num_row_groups)]
        assert all(len(group) == 1 or sum(sizes[clip] for clip in group) <= limit for group in groups)
        assert sum(sizes[clip] for group in groups for clip in group) <= 2 * limit
    assert len(load(folder, tmp_path / "cache", monkeypatch)) == 12
