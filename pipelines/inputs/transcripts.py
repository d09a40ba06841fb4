"""Texts that exist for a recording, as files: plain text, subtitles (SRT, WebVTT), Praat's TextGrid, labels.

What is wrong with one is a warning of its recording, whose clips then have their recognised texts.
"""

import math
import re
from collections.abc import Container, Sequence
from pathlib import PurePosixPath

from pipelines.inputs.entries import Entry
from voxmill.core.storage import to_path
from voxmill.data.records import GivenPart, RecordingWarning
from voxmill.data.scripts import joined

SUFFIXES = (".txt", ".srt", ".vtt", ".TextGrid", ".lab")
"""Of texts beside a recording, the first one that there is."""
MAX_BYTES = 20_000_000
"""The text of some 300 hours; a larger file is no recording's."""
OVERLAP_SECONDS = 0.05
OUTSIDE_SECONDS = 0.1
"""So far behind the end of the sound a segment may end: headers and codecs differ by less."""
NO_WORDS = frozenset(("", "#", "sil", "sp", "spn", "pau", "<eps>", "<s>", "</s>", "silence"))
"""Labels of stretches in which nothing is said."""
PHONE_TIERS = frozenset(("phones", "phone", "phonemes", "segments", "mau"))

Given = tuple[tuple[GivenPart, ...], tuple[RecordingWarning, ...]]


class _BadTextError(Exception):
    """Why a text cannot be used."""


def text_beside(name: str, siblings: Container[str]) -> str | None:
    """The name of the text of a recording among the files that lie beside it."""
    stem = name.rpartition(".")[0]
    return next((stem + suffix for suffix in SUFFIXES if stem + suffix in siblings), None)


def given_parts(entry: Entry, seconds: float) -> Given:
    """The text that is given for an entry of `seconds`, in parts, and what is wrong with it.

    Raises:
        OSError: the storage does not answer.
    """
    parts, warnings = _given_parts(entry)
    outside = [part for part in parts if is_outside(part, seconds)]
    if outside:
        first = f"{outside[0].start:g} to {outside[0].end:g} s of {seconds:.3f} s"
        detail = f"{len(outside)} of {len(parts)}, such as {first}"
        warnings = (*warnings, RecordingWarning(kind="segment_outside", detail=detail))
    return parts, warnings


def is_outside(part: GivenPart, seconds: float) -> bool:
    """Whether a part lies, or ends, where a recording of `seconds` has no sound."""
    if part.start is None or part.end is None:
        return False
    return part.start >= seconds or part.end > seconds + OUTSIDE_SECONDS


def _given_parts(entry: Entry) -> Given:
    if entry.text_warnings:
        return entry.segments, entry.text_warnings
    if entry.segments:
        return clean(entry.segments, keep_untold=True)
    if entry.text is not None:
        return clean([GivenPart(text=entry.text)])
    if entry.text_path is None:
        return (), ()
    path = to_path(entry.text_path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return (), (_unreadable(path.name, error.strerror or "no such file"),)
    return parse(content, path.name)


def parse(content: bytes, name: str) -> Given:
    """The parts of a text file by its suffix, and what is wrong with it."""
    suffix = PurePosixPath(name).suffix.lower()
    try:
        text = _decoded(content)
        if suffix in (".srt", ".vtt"):
            parts = _subtitles(text)
        elif suffix == ".textgrid":
            parts = _text_grid(text)
        elif suffix == ".lab":
            parts = _labels(text)
        else:
            parts = [GivenPart(text=text)]
    except _BadTextError as error:
        return (), (_unreadable(name, str(error)),)
    return clean(parts, name)


def clean(parts: Sequence[GivenPart], name: str = "text", *, keep_untold: bool = False) -> Given:
    """Parts in the order of their times without what is no words, and warnings of what is wrong with them.

    Args:
        keep_untold: keep parts of which only the times are given.
    """
    warnings: list[RecordingWarning] = []
    spoken = [part for part in parts if has_words(part.text) or (keep_untold and not part.text)]
    if not spoken:
        return (), (RecordingWarning(kind="text_empty", detail=f"{name}: no words"),)
    backward = [part for part in spoken if part.start is not None and not _is_forward(part)]
    if backward:
        detail = f"{name}: {len(backward)} of {len(spoken)}, such as {backward[0].start} to {backward[0].end} s"
        warnings.append(RecordingWarning(kind="segment_reversed", detail=detail))
        spoken = [part for part in spoken if part.start is None or _is_forward(part)]
    spoken.sort(key=lambda part: part.start or 0.0)
    overlaps, reached = list[float](), dict[int | None, float]()
    for part in spoken:
        if part.start is not None and part.end is not None:
            before = reached.get(part.channel, -math.inf)
            if part.start < before - OVERLAP_SECONDS:
                overlaps.append(part.start)
            reached[part.channel] = max(before, part.end)
    if overlaps:
        detail = f"{name}: {len(overlaps)} of {len(spoken)}, such as the one from {overlaps[0]:g} s on"
        warnings.append(RecordingWarning(kind="segments_overlap", detail=detail))
    return tuple(spoken), tuple(warnings)


def has_words(text: str) -> bool:
    """Whether anything in a text can be said."""
    return any(char.isalnum() for char in text)


def _is_forward(part: GivenPart) -> bool:
    return part.start is not None and part.end is not None and 0 <= part.start < part.end < math.inf


def _unreadable(name: str, why: str) -> RecordingWarning:
    return RecordingWarning(kind="text_unreadable", detail=f"{name}: {why}")


def _decoded(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _BadTextError(f"more than {MAX_BYTES // 10**6} MB")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _BadTextError(f"not {encoding.removesuffix('-sig').upper()} (byte {error.start})") from None


_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)"
_CUE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")


def _subtitles(text: str) -> list[GivenPart]:
    """Cues of SRT or WebVTT; markup in them is left out."""
    parts: list[GivenPart] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.strip("\n").split("\n")
        place = next((number for number, line in enumerate(lines) if "-->" in line), None)
        if place is None:
            continue
        match = _CUE.match(lines[place])
        if match is None:
            raise _BadTextError(f"no times in {lines[place].strip()[:60]!r}")
        start, end = _seconds(*match.groups()[:3]), _seconds(*match.groups()[3:])
        spoken = re.sub(r"<[^>]*>|\{\\[^}]*\}", "", joined(lines[place + 1 :], within_phrases=True))
        parts.append(GivenPart(text=spoken.strip(), start=start, end=end))
    if not parts and text.strip().removeprefix("WEBVTT").strip():
        raise _BadTextError("holds no subtitles")
    return parts


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


_VALUE = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(<exists>|<absent>|-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)')


def _text_grid(text: str) -> list[GivenPart]:
    """The words of a TextGrid, long or short: of its tier of words, or else of its first tier of intervals.

    As Praat reads it, only texts in quotes and numbers that stand by themselves count.
    """
    values = iter(_VALUE.finditer(text))

    def next_text() -> str:
        return next(values)[1].replace('""', '"')

    def next_number() -> float:
        return float(next(values)[2])

    tiers: list[tuple[str, list[GivenPart]]] = []
    try:
        if next_text() != "ooTextFile" or next_text() != "TextGrid":
            raise _BadTextError("no TextGrid")
        next_number(), next_number()
        if next(values)[2] != "<exists>":
            return []
        for _ in range(int(next_number())):
            kind, name = next_text(), next_text()
            next_number(), next_number()
            parts = []
            for _ in range(int(next_number())):
                start = next_number()
                end = next_number() if kind == "IntervalTier" else start
                parts.append(GivenPart(text=next_text().strip(), start=start, end=end))
            if kind == "IntervalTier":
                tiers.append((name.lower(), parts))
    except (StopIteration, TypeError, ValueError, AttributeError):
        raise _BadTextError("a damaged TextGrid") from None
    spoken = [(name, parts) for name, parts in tiers if not name.endswith(tuple(PHONE_TIERS))]
    words = next((parts for name, parts in spoken if "word" in name), spoken[0][1] if spoken else [])
    return [part for part in words if part.text.lower() not in NO_WORDS]


def _labels(text: str) -> list[GivenPart]:
    """Labels with times in seconds or, as HTK has them, in 100 ns; without times a plain text, as MFA reads it."""
    rows = [line.split(maxsplit=2) for line in text.splitlines() if line.strip() and line.strip() != "#"]
    if not rows or any(len(row) < 3 or not _is_number(row[0]) or not _is_number(row[1]) for row in rows):
        return [GivenPart(text=text)]
    scale = 1e-7 if all(row[0].isdigit() and row[1].isdigit() for row in rows) and int(rows[-1][1]) > 10**5 else 1.0
    return [
        GivenPart(text=label, start=float(start) * scale, end=float(end) * scale)
        for start, end, label in rows
        if label.strip().lower() not in NO_WORDS
    ]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None
