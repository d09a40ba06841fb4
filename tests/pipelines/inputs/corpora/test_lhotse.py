"""Cuts, Shar, and recordings with supervisions are read as lhotse reads them."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipelines.config import LabelConfig
from pipelines.inputs.manifest import read_inputs
from tests.pipelines.inputs.corpora.made_corpora import (
    RATE,
    TURNS,
    WHOLE,
    clips,
    close,
    encoded,
    ends,
    planned,
    warnings,
    write_tar,
)
from voxmill.core.errors import UserError


def lhotse_cuts() -> Any:
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    recording = Recording.from_file(WHOLE)
    made = []
    for number, said in enumerate(TURNS):
        supervision = SupervisionSegment(
            id=f"s{number}",
            recording_id=recording.id,
            start=0.0,
            duration=round(said.end - said.start, 3),
            text=said.text,
            language="en",
            speaker=f"speaker-{number}",
            gender="F",
            custom={"style": "news", "snr": 20.5},
        )
        cut = MonoCut(
            id=f"cut.{number}",
            start=said.start,
            duration=supervision.duration,
            channel=0,
            supervisions=[supervision],
            recording=recording,
        )
        made.append(cut)
    # In any order, as they are shuffled for training.
    return CutSet.from_cuts([made[2], made[0], made[3], made[1]])


def of_cut(cut: Any) -> tuple[str, str, dict[str, object]]:
    (supervision,) = cut.supervisions
    return supervision.text, supervision.speaker, {"gender": supervision.gender, **supervision.custom, "id": cut.id}


def test_cuts_are_what_lhotse_reads(tmp_path: Path) -> None:
    from lhotse import CutSet

    lhotse_cuts().to_file(tmp_path / "cuts.jsonl.gz")
    peer = CutSet.from_file(tmp_path / "cuts.jsonl.gz")
    plan = planned(tmp_path / "cuts.jsonl.gz")
    found = {read.given["id"]: read for read in clips(plan)}
    assert len(found) == len(TURNS) and len(plan.recordings) == 1 and ends(plan) == {}
    for cut in peer:
        read = found[cut.id]
        assert close(read.audio, cut.load_audio()[0])
        assert (read.text, read.speaker, read.given) == of_cut(cut)


def test_cuts_of_a_call_are_on_their_own_channels(tmp_path: Path) -> None:
    """Every cut of a call became a clip of both channels, the other one with a text that nobody says there."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    long = max(turn.audio.shape[0] for turn in TURNS)
    call = np.zeros((2, len(TURNS) * long), dtype=np.float32)
    for number, said in enumerate(TURNS):
        call[number % 2, number * long : number * long + len(said.audio)] = said.audio
    soundfile.write(tmp_path / "call.wav", call.T, RATE)
    recording = Recording.from_file(tmp_path / "call.wav")
    cuts = []
    for number, said in enumerate(TURNS):
        where = {"channel": number % 2, "duration": round(len(said.audio) / RATE, 3)}
        own = SupervisionSegment(id=said.key, recording_id=recording.id, start=0.0, text=said.text, **where)
        start = number * long / RATE
        cuts.append(MonoCut(id=said.key, start=start, supervisions=[own], recording=recording, **where))
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    for channels, read in (("split", [0, 1]), ("auto", [0, 1]), (1, [1])):
        plan = planned(tmp_path / "cuts.jsonl", LabelConfig(segmented=True, channels=channels))
        found = clips(plan)
        assert len(found) == len(TURNS) * len(read) // 2, channels
        for one in found:
            said = next(said for said in TURNS if said.text == one.text)
            assert close(one.audio, said.audio)
    (recording,) = plan.recordings
    assert [one.detail.split(";")[0] for one in recording.warnings] == ["2 of 4 are on a channel that is not read"]


def test_shar_is_what_lhotse_reads(tmp_path: Path) -> None:
    from lhotse import CutSet
    from lhotse.shar import SharWriter

    (tmp_path / "shar").mkdir()
    with SharWriter(str(tmp_path / "shar"), fields={"recording": "flac"}, shard_size=3) as writer:
        for cut in lhotse_cuts():
            writer.write(cut)
    peer = list(CutSet.from_shar(in_dir=tmp_path / "shar"))
    plan = planned(tmp_path / "shar")
    found = {read.given["id"]: read for read in clips(plan)}
    assert len(found) == len(peer) == len(TURNS) and ends(plan) == {} and warnings(plan) == {}
    for cut in peer:
        read = found[cut.id]
        assert close(read.audio, cut.load_audio()[0])
        assert (read.text, read.speaker, read.given) == of_cut(cut)
    (tmp_path / "shar" / "cuts.000001.jsonl.gz").unlink()
    with pytest.raises(UserError, match="part 000001 of Shar has recording and no cuts"):
        read_inputs(str(tmp_path / "shar"))


def test_shar_whose_cuts_and_recordings_part(tmp_path: Path) -> None:
    content = [encoded(said.audio) for said in TURNS]
    write_tar(tmp_path / "recording.000000.tar", [("a.1.flac", content[0]), ("a.2.flac", content[1])])
    cut = {"id": "a.1", "start": 0, "duration": 1.0, "supervisions": [], "type": "MonoCut"}
    lines = [cut, cut | {"id": "gone"}, cut, {"start": 0}]
    with gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, lines)))
    plan = planned(tmp_path)
    assert ends(plan) == {
        "recording.000000.tar/gone": "no_audio",
        "cuts.000000.jsonl.gz:3": "duplicate_id",
        "cuts.000000.jsonl.gz:4": "malformed_row",
    }
    assert warnings(plan) == {"recording.000000.tar/a.2.flac": ["labels_missing"]}


def test_recordings_and_supervisions_are_what_lhotse_reads(tmp_path: Path) -> None:
    from lhotse import CutSet, RecordingSet, SupervisionSet

    cuts = lhotse_cuts()
    RecordingSet.from_recordings([cuts[0].recording]).to_file(tmp_path / "recordings.jsonl.gz")
    supervisions = [cut.supervisions[0].with_offset(cut.start) for cut in cuts]
    SupervisionSet.from_segments(supervisions).to_file(tmp_path / "supervisions.jsonl.gz")
    peer = CutSet.from_manifests(
        recordings=RecordingSet.from_file(tmp_path / "recordings.jsonl.gz"),
        supervisions=SupervisionSet.from_file(tmp_path / "supervisions.jsonl.gz"),
    ).trim_to_supervisions()
    found = {read.given["id"]: read for read in clips(planned(tmp_path))}
    assert len(found) == len(TURNS)
    for cut in peer:
        (supervision,) = cut.supervisions
        read = found[supervision.id]
        assert close(read.audio, cut.load_audio()[0]) and read.text == supervision.text


def test_cuts_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = json.loads(next(iter(lines_of(lhotse_cuts(), tmp_path))))
    source = good["recording"]["sources"][0]

    def other(**changes: object) -> object:
        return good | {"recording": good["recording"] | changes}

    rows: list[object] = [
        good,
        good | {"start": 900.0},
        good | {"start": -1.0},
        good | {"type": "MixedCut"},
        {name: value for name, value in good.items() if name != "recording"},
        other(sources=[source | {"type": "command", "source": "cat x.wav"}]),
        other(sources=[source, source]),
        other(transforms=[{"name": "Speed", "kwargs": {"factor": 1.1}}]),
        good | {"duration": "long"},
        good | {"id": "twice"},
    ]
    (tmp_path / "cuts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = planned(tmp_path / "cuts.jsonl")
    details = {row.path: row.detail for row in plan.recordings if row.state != "planned"}
    assert {path: detail.split(";")[0].split(",")[0] for path, detail in details.items()} == {
        "cuts.jsonl:4": "line 4: a MixedCut",
        "cuts.jsonl:5": "line 5: no 'recording' in the cut",
        "cuts.jsonl:6": "line 6: a command",
        "cuts.jsonl:7": "line 7: a recording of several files",
        "cuts.jsonl:8": "line 8: a recording that lhotse transforms when it loads it",
        "cuts.jsonl:9": "line 9: 'duration' is no number of seconds",
    }
    kinds = ["segment_reversed", "segment_outside", "segments_overlap", "segment_repeated"]
    assert warnings(plan) == {str(WHOLE): kinds}
    assert len(clips(plan)) == 1


def test_relative_paths_start_at_the_manifest_or_as_lhotse_has_them_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = lines_of(lhotse_cuts().subset(first=1), tmp_path)
    cut = json.loads(line)
    cut["recording"]["sources"][0]["source"] = "audio/en.flac"
    for folder in ("here", "there"):
        (tmp_path / folder / "audio").mkdir(parents=True)
    (tmp_path / "there" / "cuts.jsonl").write_text(json.dumps(cut))
    (tmp_path / "here" / "audio" / "en.flac").write_bytes(WHOLE.read_bytes())
    monkeypatch.chdir(tmp_path / "here")
    (at_current,) = read_inputs(str(tmp_path / "there" / "cuts.jsonl"))
    (tmp_path / "there" / "audio" / "en.flac").write_bytes(WHOLE.read_bytes())
    (at_manifest,) = read_inputs(str(tmp_path / "there" / "cuts.jsonl"))
    assert at_current.path == str(tmp_path / "here" / "audio" / "en.flac")
    assert at_manifest.path == str(tmp_path / "there" / "audio" / "en.flac")


def lines_of(cuts: Any, folder: Path) -> list[str]:
    cuts.to_file(folder / "lines.jsonl")
    return (folder / "lines.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("given", "language", "detail"),
    [
        (("en", "English", "en-US"), "en", None),
        (("en", "fr", "en"), None, "en, fr: each clip's is detected"),
        (("en", None, "en"), None, "en, none: each clip's is detected"),
        ((None, None, None), None, None),
    ],
)
def test_supervisions_in_several_languages_are_said_to_be(
    tmp_path: Path, given: tuple[str | None, ...], language: str | None, detail: str | None
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(3 * RATE), RATE)
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "sampling_rate": RATE}
    lines = [{"id": f"s{n}", "recording_id": "r", "start": n, "duration": 1} for n in range(len(given))]
    for line, own in zip(lines, given, strict=True):
        line |= {} if own is None else {"language": own}
    for name, rows in (("recordings", [recording]), ("supervisions", lines)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cuts = [
        {"type": "MonoCut", "id": str(n), "start": n, "duration": 1, "recording": recording, "supervisions": [line]}
        for n, line in enumerate(lines)
    ]
    (tmp_path / "cuts.jsonl").write_text("".join(json.dumps(cut) + "\n" for cut in cuts))
    for source in (tmp_path, tmp_path / "cuts.jsonl"):
        (entry,) = read_inputs(str(source))
        assert len(entry.segments) == len(given) and entry.language == language
        told = [warning.detail for warning in entry.label_warnings if warning.kind == "languages_differ"]
        assert told == ([] if detail is None else [detail])
