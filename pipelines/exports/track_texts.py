"""A track as a text file: subtitles (SRT, WebVTT), a TextGrid of Praat, RTTM.

Times are those of the recording. What a format cannot hold is written in another way, see each; words without times and
clips whose text is empty then are counted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from pipelines.exports.cues import cues_of
from pipelines.exports.plain import one_field, one_line
from pipelines.exports.tracks import MICROSECONDS, TimedClip, TrackClips, placed_words

_MILLISECOND = 1000
# SRT has no escapes: players read tags in angle brackets, and settings in braces with a backslash.
_SRT = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")", "\\": "/"})
_VTT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def srt(track: TrackClips, counts: Counter[str], cue_seconds: float | None = None) -> str:
    """SubRip. Brackets and backslashes, which players would read as tags, become others."""
    cues: list[str] = []
    for _, start, end, text in _cues(track, counts, cue_seconds):
        times = f"{_clock(start, ',')} --> {_clock(end, ',')}"
        cues.append(f"{len(cues) + 1}\n{times}\n{text.translate(_SRT)}\n")
    return "\n".join(cues)


def vtt(track: TrackClips, counts: Counter[str], cue_seconds: float | None = None) -> str:
    """WebVTT, the speaker as a cue's voice. Cues have numbers: some readers take a name for text."""
    cues = ["WEBVTT\n"]
    for clip, start, end, text in _cues(track, counts, cue_seconds):
        speaker = one_line(clip.speaker or "").translate(_VTT)
        voice = f"<v {speaker}>" if speaker else ""
        times = f"{_clock(start, '.')} --> {_clock(end, '.')}"
        cues.append(f"{len(cues)}\n{times}\n{voice}{text.translate(_VTT)}\n")
    return "\n".join(cues)


def _cues(
    track: TrackClips, counts: Counter[str], cue_seconds: float | None
) -> Iterator[tuple[TimedClip, int, int, str]]:
    """(clip, start, end, text) of every cue, in milliseconds, on one line; by time."""
    cues = [(start, end, text, clip) for clip in track.clips for start, end, text in cues_of(clip, cue_seconds)]
    for start, end, text, clip in sorted(cues, key=lambda cue: cue[:2]):
        if one_line(text):
            first, last = _milliseconds(start, end)
            yield clip, first, last, one_line(text)
    counts["clips"] += sum(bool(one_line(clip.text)) for clip in track.clips)
    counts["no_text"] += sum(not one_line(clip.text) for clip in track.clips)


def _milliseconds(start: int, end: int) -> tuple[int, int]:
    first = round(start / _MILLISECOND)
    return first, max(round(end / _MILLISECOND), first + 1)


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def rttm(track: TrackClips, counts: Counter[str]) -> str:
    """RTTM: a line a clip, the channel counted from 1.

    The file's own name is the name of the recording. White space and marks in names become %XX; a clip of no known
    speaker is of `unknown`, and counted.
    """
    name = one_field(track.name.removesuffix(".rttm"))
    lines = []
    for clip in track.clips:
        start, end = _milliseconds(clip.start, clip.end)
        speaker = one_field(one_line(clip.speaker or ""))
        counts["clips"] += 1
        counts["no_speaker"] += not speaker
        times = f"{start / 1000:.3f} {(end - start) / 1000:.3f}"
        lines.append(f"SPEAKER {name} {(clip.channel or 0) + 1} {times} <NA> <NA> {speaker or 'unknown'} <NA> <NA>\n")
    return "".join(lines)


Interval = tuple[int, int, str]


def textgrid(track: TrackClips, counts: Counter[str]) -> str:
    """A TextGrid in Praat's long format, tiers `text`, `speaker` and `words`.

    Intervals of a tier cannot overlap: clips that do are in further tiers, `text 2` and so on.
    """
    tiers: list[tuple[str, list[Interval]]] = []
    for number, clips in enumerate(_layers(track.clips), 1):
        which = f" {number}" if number > 1 else ""
        words = [placed_words(clip) for clip in clips]
        counts["clips"] += len(clips)
        counts["words_without_times"] += sum(len(clip.words) for clip in clips) - sum(map(len, words))
        tiers.append((f"text{which}", [(clip.start, clip.end, clip.text) for clip in clips]))
        if any(clip.speaker for clip in clips):
            tiers.append((f"speaker{which}", [(clip.start, clip.end, clip.speaker or "") for clip in clips]))
        tiers.append((f"words{which}", [word for placed in words for word in placed]))
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_decimal(track.length)}",
    ]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, labelled) in enumerate(tiers, 1):
        intervals = _filled(labelled, track.length)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {_decimal(track.length)}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for place, (start, end, text) in enumerate(intervals, 1):
            lines += [f"        intervals [{place}]:", f"            xmin = {_decimal(start)}"]
            lines += [f"            xmax = {_decimal(end)}", f"            text = {_quoted(text)}"]
    return "\n".join(lines) + "\n"


def _layers(clips: Sequence[TimedClip]) -> list[list[TimedClip]]:
    """Clips in as many layers as are needed for none to overlap within one; by time."""
    layers: list[list[TimedClip]] = []
    for clip in clips:
        layer = next((layer for layer in layers if layer[-1].end <= clip.start), None)
        if layer is None:
            layers.append([clip])
        else:
            layer.append(clip)
    return layers


def _filled(labelled: Sequence[Interval], length: int) -> list[Interval]:
    """Intervals from 0 to `length` without a gap, as Praat wants them; never of no length."""
    filled: list[Interval] = []
    before = 0
    for start, end, text in labelled:
        if start > before:
            filled.append((before, start, ""))
        filled.append((start, end, text))
        before = end
    if before < length:
        filled.append((before, length, ""))
    return filled


def _decimal(microseconds: int) -> str:
    """Seconds, exactly."""
    seconds, rest = divmod(microseconds, MICROSECONDS)
    return f"{seconds}.{rest:06d}".rstrip("0").rstrip(".") if rest else str(seconds)


def _quoted(text: str) -> str:
    return '"' + one_line(text).replace('"', '""') + '"'
