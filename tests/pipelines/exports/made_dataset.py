"""A dataset of sample speech whose names, texts and times are as awkward as those that broke other exporters."""

from pathlib import Path
from typing import Any

from samples.fabricate import rows, write_dataset

NASTY = 'He said "a --> b" & <i>left</i> {\\an8}'
# Separators of lines that str.splitlines and some readers know, and an empty line.
BROKEN_LINES = "one\n\ntwo\r\nthree\u2028four\x0bfive\x85six\x00seven"


def word(text: str, start: float | None, end: float | None) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, "probability": 0.9}


WORDS = [word("No", 0.0, 0.3), word('"quoted"', 0.3, 0.8), word("end", 0.9, 1.4)]
UNTIMED = [
    word("good", 0.1, 0.4),
    word("none", None, None),
    word("reversed", 0.9, 0.5),
    word("empty", 0.6, 0.6),
    word("nan", float("nan"), 1.0),
    word("again", 0.2, 0.7),
    word("outside", 500.0, 501.0),
]
# (session, path, channel, changes of each of two clips)
TRACKS: list[tuple[str, str | None, int | None, list[dict[str, Any]]]] = [
    ("en-1", "shows/one.wav", None, [{"text": NASTY, "words": WORDS}, {"text": BROKEN_LINES, "words": UNTIMED}]),
    ("it-1", "shows/one.mp3", None, [{"speaker": "Anna Bianchi"}, {"speaker": 'say "NA"'}]),
    ("es-1", "../../etc/Übung späß 你好.wav", None, [{"speaker": "nan"}, {"speaker": "nan"}]),
    ("fr-1", "s3://bucket/calls/7.wav", 0, [{"speaker": "<Zoë & co>"}, {}]),
    ("ru-1", "s3://bucket/calls/7.wav", 1, [{}, {"text": "42"}]),
    ("en-2", None, None, [{}, {"text": "NOTE"}]),
]


def awkward_rows() -> list[tuple[dict[str, Any], bytes]]:
    """Twelve clips; the second of `es-1` begins before the first one has ended."""
    made = []
    for session, path, channel, changes in TRACKS:
        for (row, flac), change in zip(rows((session,), 2), changes, strict=True):
            recording = "call" if channel is not None else session
            made.append((row | {"path": path, "channel": channel, "recording_id": recording} | change, flac))
    first, second = (row for row, _ in made if row["session"] == "es-1")
    length = second["end_sample"] - second["start_sample"]
    second["start_sample"] = first["end_sample"] - 4000
    second["end_sample"] = second["start_sample"] + length
    return made


def awkward_dataset(folder: Path, buckets: int = 4) -> Path:
    return write_dataset(folder, awkward_rows(), buckets)


def files_of(folder: Path) -> dict[str, bytes]:
    """Content by name below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
