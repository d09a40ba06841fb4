"""One input as the user named it, before anything of it is read."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from voxmill.data.records import GivenLabels, GivenPart, RecordingWarning

_SUFFIX = re.compile(
    r"[^/]\.(3g2|3gp|8svx|aac|ac3|aifc?|aiff|amr|ape|asf|au|avi|awb|bwf|caf|dts|eac3|f4a|flac|flv|g722|gsm|m2ts|m4a|m4b"
    r"|m4v|mka|mkv|mov|mp[234c]|mpe?g|og[agvx]|opus|ra|rf64|rm|snd|spx|tak|tta|voc|vob|w64|wav|weba|webm|wm[av]|wv)$",
    re.IGNORECASE,
)
"""How recordings are called. What is called so is one, or an unreadable one; any other file is one if it opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One input. `name` is its path as shown and sorted by; `problem`, a code, ends it before it is read.

    path: local path or URI of the file that holds the audio; "" where a row of a manifest names none.
    bytes_offset, bytes_size: where in that file it lies, in a tar for one; None: it is the whole file.
    row: of a Parquet file with the audio inside, from 0; None: the file is no such thing.
    claimed: whether its name, or whoever named it, says that it is a recording; what else does not open is counted.
    stamp: changes when the file does, as far as a listing tells; "" where it does not.
    text, segments, text_path: what is said in it; in parts with times; the file that has it; the first that is given.
    text_warnings: what is wrong with these parts. label_warnings: what is wrong with the labels.
    refused: why the recording is not labelled, whatever is in it: its language is none. line: of the manifest, from 1.
    """

    path: str
    name: str
    bytes_offset: int | None = None
    bytes_size: int | None = None
    row: int | None = None
    claimed: bool = True
    stamp: str = ""
    session: str | None = None
    speaker: str | None = None
    text: str | None = None
    segments: tuple[GivenPart, ...] = ()
    text_path: str | None = None
    text_warnings: tuple[RecordingWarning, ...] = ()
    language: str | None = None
    licence: str | None = None
    labels: GivenLabels | None = None
    label_warnings: tuple[RecordingWarning, ...] = ()
    refused: str = ""
    line: int | None = None
    problem: str | None = None
    detail: str = ""


def has_suffix(name: str) -> bool:
    """Whether a name ends as recordings do."""
    return _SUFFIX.search(name) is not None


def differing(entry: Entry, languages: Collection[str | None]) -> Entry:
    """An entry whose parts have these languages; with a warning where these are several."""
    known = any(warning.kind == "languages_differ" for warning in entry.label_warnings)
    if len(set(languages)) < 2 or known:
        return entry
    detail = f"{', '.join(sorted(language or 'none' for language in set(languages)))}: each clip's is detected"
    warning = RecordingWarning(kind="languages_differ", detail=detail[:200])
    return replace(entry, label_warnings=(*entry.label_warnings, warning))


def joined(one: Entry, other: Entry) -> Entry:
    """Two entries with parts of one recording as one; what they do not agree on it has not."""
    one = differing(one, (one.language, other.language))
    return replace(
        one,
        segments=one.segments + other.segments,
        session=one.session if one.session == other.session else None,
        speaker=one.speaker if one.speaker == other.speaker else None,
        language=one.language if one.language == other.language else None,
        label_warnings=one.label_warnings + other.label_warnings,
    )
