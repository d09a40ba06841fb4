"""The report and the card over a small but real output folder: FLAC in tars, hostile names, no clips."""

import asyncio
import base64
import functools
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

from pipelines.report.bucket_summary import merge
from pipelines.report.card import write_card
from pipelines.report.correct.doubtful import MAX_DOUBTFUL
from pipelines.report.formatting import visible
from pipelines.report.funnel import funnel
from pipelines.report.html import write_report
from pipelines.report.previews import EXAMPLE_RATE, EXAMPLE_SECONDS
from pipelines.report.table_summary import summarize
from pipelines.report.tables import load_outcome
from tests.pipelines.report.made_run import HOSTILE, LOST, make_out
from tests.support.browser import CHROMIUM, open_page
from voxmill.core.errors import UserError
from voxmill.data.layout import part_path
from voxmill.data.schemas import CLIPS, RECORDINGS, REJECTED
from voxmill.data.snapshot import ANNOTATED

LINKS = ("data:audio/ogg;base64,", "data:text/csv;charset=utf-8;base64,", "#")


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
                assert (attrs[name] or "").startswith(LINKS), (tag, attrs[name])
    assert not re.search(r"url\(|@import|https?://", source)


def test_examples_play_and_are_small(page: Page) -> None:
    # Six kept and three for each of four reasons, and those to correct, less those whose tar was swept.
    doubtful = MAX_DOUBTFUL + sum(LOST[i % len(LOST)][0] == "transcription" for i in range(24))
    assert 6 + 9 + MAX_DOUBTFUL <= len(sources := page.sources()) <= 6 + 4 * 3 + doubtful
    longest = 0.0
    for uri in sources:
        data = base64.b64decode(uri.split(",", 1)[1])
        audio, rate = soundfile.read(io.BytesIO(data))
        assert rate == EXAMPLE_RATE and audio.ndim == 1 and np.abs(audio).max() > 0.05
        assert len(data) < 120_000
        longest = max(longest, len(audio) / rate)
    assert longest <= EXAMPLE_SECONDS + 0.1


def test_losses_and_warnings_reach_the_page(page: Page) -> None:
    text = " ".join(" ".join(page.text).split())
    for expected in (
        "kept_in_part",
        "overlapped_speech in segmentation 1 31.0 s in/talk-1.mp3 60.0 to 91.0 s",
        "no_speech in events 1 4.0 s in/talk-1.mp3 91.0 to 95.0 s, channel 1",
        f"timestamp_hole 1 in/talk-1.mp3 {' '.join(HOSTILE.split())}",
        "7 other files are no audio",
        "Dialects of Chinese: 4 unknown (no_model) , 4 Cantonese (zh-yue) .",
        "Singing: 4 clips with some , 4 songs .",
        "in/talk-1.mp3 from 155 s",
    ):
        assert expected in text, expected


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
    # Thresholds are drawn from config.select; a maximum of 500 dB lies far outside the data and is left out.
    for mark in ("≥ 3", "≥ 15", "≤ 25", "≥ 1", "≥ 8,000", "≤ 300"):
        assert mark in page.text
    assert not any(text.startswith("≤ 500") for text in page.text)


def test_the_pages_are_the_same_from_parts_and_from_a_merged_summary(tmp_path: Path, source: str) -> None:
    out = make_out(tmp_path / "out")
    pages = [path.read_text(encoding="utf-8") for path in (write_report(out), write_card(out))]
    assert pages[0] == source
    tables = {name: pq.read_table(out / name) for name in ANNOTATED}
    summaries = []
    for name in tables:
        (out / name).unlink()
        (out / name).mkdir()
    for bucket in range(4):
        parts = [table.take(pa.array(range(bucket, table.num_rows, 4))) for table in tables.values()]
        for name, part in zip(tables, parts, strict=True):
            pq.write_table(part, part_path(out, name, bucket, 4))
        summaries.append(summarize(*parts))
    merged = functools.reduce(merge, reversed(summaries))
    for summary in (merged, None):
        written = (write_report(out, summary), write_card(out, summary))
        assert [path.read_text(encoding="utf-8") for path in written] == pages


def test_what_was_decoded_twice_is_told_with_its_cost(out: Path) -> None:
    told = " ".join(re.sub("<[^>]+>", "", write_report(out).read_text(encoding="utf-8")).split())
    assert (
        "5 of 64 clips were decoded a second time (3 language, 2 cut_short+doubt), which took 6.0 s of 38.0 s" in told
    )


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
    for name, schema in (("clips", CLIPS), ("rejected", REJECTED), ("recordings", RECORDINGS)):
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


def test_the_reliability_curve_and_what_it_was_fitted_on(source: str) -> None:
    section = source[source.index('<section id="trust">') : source.index('<section id="languages">')]
    assert section.count("<circle") == 5 and "700 clips of 2 voices (a-en, &lt;script&gt;" in section
    assert "300 clips of 1 voice in recordings that the fit has not seen" in section and "<b>0.3</b>" in section
    assert "<td>5</td>" in section and "0.800" in section and "0.830" in section


def test_a_dataset_without_a_fit_says_so(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out")
    run = json.loads((out / "run.json").read_text())
    run["trust"] |= {"fit": None, "fifths": []}
    (out / "run.json").write_text(json.dumps(run))
    page = write_report(out).read_text(encoding="utf-8")
    assert "Nothing predicts the word error rates of" in page and "select.without_fit" in page
    assert "Nothing predicts the word error rates of" in write_card(out).read_text(encoding="utf-8")
    del run["trust"]
    (out / "run.json").write_text(json.dumps(run))
    assert 'id="trust"' not in write_report(out).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("voices", "text"), [(2, "4 speakers session by session, about 2 voices in all<"), (4, "4 speakers<")]
)
def test_speakers_of_sessions_are_told_from_voices(voices: int, text: str, tmp_path: Path) -> None:
    out = make_out(tmp_path)
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    speakers = {"clusters": 4, "sampled_clusters": 4, "sampled_voices": voices, "without_voice": 0, "known": 0}
    run["corpus_labels"] = {"speakers": speakers | {"cluster_purity": None, "speaker_purity": None}}
    (out / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert text in write_report(out).read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser_clips_to_correct_are_filtered_and_their_file_is_saved(
    out: Path, page: Page, tmp_path: Path
) -> None:
    cards = "[...document.querySelectorAll('#correct figure')].filter(f => getComputedStyle(f).display != 'none')"
    file = "[...document.querySelectorAll('#correct .csv a')].find(a => a.offsetParent)"

    async def visit() -> tuple[list[int], str, list[str]]:
        async with open_page((out / "report.html").as_uri(), tmp_path / "profile") as tab:
            await tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
            shown = [await tab.value(f"{cards}.length")]
            # Kept ones, and of those the ones in one language.
            for name in ("state-1", "language-1"):
                await tab.value(f"document.querySelector('#correct-{name}').click()")
                shown.append(await tab.value(f"{cards}.length"))
            href = await tab.value(f"{file}.href")
            await tab.call("Runtime.evaluate", expression=f"{file}.click()", userGesture=True)
            for _ in range(400):
                if (tmp_path / "saved" / "corrections.csv").exists():
                    break
                await asyncio.sleep(0.05)
            return shown, href, tab.errors

    (everything, kept, of_one), href, errors = asyncio.run(visit())
    assert everything > kept == MAX_DOUBTFUL > of_one > 0 and not errors
    saved = (tmp_path / "saved" / "corrections.csv").read_bytes()
    assert saved == base64.b64decode(href.split(",", 1)[1]) and saved.count(b"\r\n") == 1 + MAX_DOUBTFUL
