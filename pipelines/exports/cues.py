"""Cues of subtitles: a clip each, or parts of it where it is too long to be read at once."""

from pydantic import Field

from pipelines.exports.tracks import MICROSECONDS, TimedClip, placed_words
from voxmill.core.config import Config

Cue = tuple[int, int, str]
"""(start, end, text), in µs of the recording."""
_ENDS_OF_SENTENCES = tuple(".!?…。！？؟।")


class SubtitleConfig(Config):
    """Of `--as srt` and `--as vtt`."""

    cue_seconds: float | None = Field(None, ge=1)
    """With srt and vtt: longer clips become several cues, cut between words; null: a cue a clip."""


def cues_of(clip: TimedClip, seconds: float | None) -> list[Cue]:
    """The clip's text in cues of at most `seconds`, cut after sentences or in pauses where there are any.

    A clip of which a timed word is not in the text, in its place, stays one cue. So does a word, however long.
    """
    limit = None if seconds is None else round(seconds * MICROSECONDS)
    words = [] if limit is None or clip.end - clip.start <= limit else _words_in_text(clip)
    if limit is None or not words:
        return [(clip.start, clip.end, clip.text)]
    # The first and the last cue reach to the clip's ends.
    words[0] = (0, clip.start, words[0][2])
    words[-1] = (*words[-1][:2], clip.end)
    cues: list[Cue] = []
    first = 0
    while first < len(words):
        last = _last_word(clip.text, words, first, limit)
        stop = words[last + 1][0] if last + 1 < len(words) else len(clip.text)
        cues.append((words[first][1], words[last][2], clip.text[words[first][0] : stop]))
        first = last + 1
    return cues


def _words_in_text(clip: TimedClip) -> list[tuple[int, int, int]]:
    """(first character in the text, start, end) of the timed words; none where one is not found."""
    found = []
    place = 0
    for start, end, word in placed_words(clip):
        at = clip.text.find(word.strip(), place)
        if at < 0 or not word.strip():
            return []
        found.append((at, start, end))
        place = at + len(word.strip())
    return found


def _last_word(text: str, words: list[tuple[int, int, int]], first: int, limit: int) -> int:
    """The last word of the cue that begins with word `first`.

    Of the words that end in the second half of the time that it may take, the last one of a sentence, or else the one
    before the longest pause.
    """
    begin = words[first][1]
    if words[-1][2] - begin <= limit:
        return len(words) - 1
    fitting = [index for index in range(first, len(words) - 1) if words[index][2] - begin <= limit]
    late = [index for index in fitting if words[index][2] - begin > limit // 2]
    if not late:
        return fitting[-1] if fitting else first
    sentences = [index for index in late if text[: words[index + 1][0]].rstrip(" \"'»”’)").endswith(_ENDS_OF_SENTENCES)]
    return sentences[-1] if sentences else max(late, key=lambda index: (words[index + 1][1] - words[index][2], index))
