"""Recordings of which the words are known: what was said when, and the errors of each clip that was cut from them.

`truth.jsonl` has a row a recording: `path` as the manifest has it, `language`, and `text` or `turns` of `start`, `end`
(seconds) and `text`; `voice` and `held_out` may be given.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.speech.text_checks import tokens
from voxmill.core.errors import UserError
from voxmill.data.records import Seconds

# A turn of which less than this share lies in clips was partly left out of them: nobody recognised the rest.
COVERED_SHARE = 0.8
# Clips reach a little beyond the speech (`edge_margin`), and may touch the turn before or after.
SHARED_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTurn:
    """What was said in a stretch of a recording; `end` is infinite where no times are known."""

    start: Seconds
    end: Seconds
    language: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRecording:
    """One recording; `voice` groups recordings that no fit may split, `held_out` keeps them from it altogether."""

    path: str
    voice: str
    turns: tuple[KnownTurn, ...]
    held_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardClip:
    """A clip of a recording and what was recognised in it."""

    start: Seconds
    end: Seconds
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipErrors:
    """Errors of one clip, in words or, where the language is written without spaces, characters.

    length: of what was said. numbers: what was said or recognised has digits, of which nobody knows how they were read.
    """

    errors: int
    length: int
    numbers: bool

    @property
    def rate(self) -> float:
        """Word error rate, 0 and up."""
        return self.errors / max(self.length, 1)


def read_known_text(path: Path) -> dict[str, KnownRecording]:
    """Recordings by path, as the manifest has it.

    Raises:
        UserError: there is no such file, or a line is not as the module describes it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it should name recordings of known words") from None
    recordings = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            recording = known_recording(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number}: {error!r}; a row has path, language, and text or turns of start, end and text"
            ) from None
        recordings[recording.path] = recording
    return recordings


def known_recording(row: Mapping[str, Any]) -> KnownRecording:
    """A row of the file.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: it is no such row.
    """
    spans = row["turns"] if "turns" in row else [{"start": 0.0, "end": float("inf"), "text": row["text"]}]
    turns = tuple(
        KnownTurn(
            start=float(turn["start"]),
            end=float(turn["end"]),
            language=str(turn["language"] if "language" in turn else row["language"]),
            text=str(turn["text"]),
        )
        for turn in spans
    )
    path = str(row["path"])
    held_out = bool(row.get("held_out", False))
    return KnownRecording(path=path, voice=str(row.get("voice", path)), turns=turns, held_out=held_out)


@dataclass(slots=True)
class _Group:
    """Clips and turns that share time, by their numbers; what was said is compared within a group."""

    clips: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)


def clip_errors(clips: Sequence[HeardClip], turns: Sequence[KnownTurn]) -> list[ClipErrors | None]:
    """Errors of every clip of one recording; None where it is not known what was said in it.

    That is where a clip holds no turn, turns of several languages, or a turn of which much lies in no clip.
    """
    results: list[ClipErrors | None] = [None] * len(clips)
    for group in _groups(clips, turns):
        said = [turns[number] for number in group.turns]
        heard = [clips[number] for number in group.clips]
        if len({turn.language for turn in said}) != 1 or not all(_is_covered(turn, heard) for turn in said):
            continue
        for number, errors in zip(group.clips, _align(heard, said), strict=True):
            results[number] = errors
    return results


def _shared(clip: HeardClip, turn: KnownTurn) -> Seconds:
    return min(clip.end, turn.end) - max(clip.start, turn.start)


def _groups(clips: Sequence[HeardClip], turns: Sequence[KnownTurn]) -> Iterable[_Group]:
    """Clips in order of time, joined where they share a turn."""
    groups: list[_Group] = []
    of_turn: dict[int, _Group] = {}
    for number in sorted(range(len(clips)), key=lambda number: clips[number].start):
        clip = clips[number]
        touched = [
            index
            for index, turn in enumerate(turns)
            if _shared(clip, turn) > min(SHARED_SECONDS, (turn.end - turn.start) / 2)
        ]
        group = next((of_turn[index] for index in touched if index in of_turn), None)
        if group is None:
            group = _Group()
            groups.append(group)
        group.clips.append(number)
        for index in touched:
            if of_turn.setdefault(index, group) is group and index not in group.turns:
                group.turns.append(index)
    return (group for group in groups if group.turns)


def _is_covered(turn: KnownTurn, clips: Sequence[HeardClip]) -> bool:
    if turn.end == float("inf"):
        return True
    inside = sum(max(_shared(clip, turn), 0.0) for clip in clips)
    return inside >= COVERED_SHARE * (turn.end - turn.start)


def _align(clips: Sequence[HeardClip], turns: Sequence[KnownTurn]) -> list[ClipErrors]:
    """Errors of clips whose texts together stand for those of the turns; a lost word counts where its neighbour is."""
    from rapidfuzz.distance import Levenshtein

    language = turns[0].language
    expected = [token for turn in sorted(turns, key=lambda turn: turn.start) for token in tokens(turn.text, language)]
    owners = [number for number, clip in enumerate(clips) for _ in tokens(clip.text, language)]
    actual = [token for clip in clips for token in tokens(clip.text, language)]
    errors, lengths = [0] * len(clips), [0] * len(clips)
    for step in Levenshtein.opcodes(expected, actual):
        lost = step.src_end - step.src_start
        if step.tag == "delete":
            owner = owners[min(step.dest_start, len(owners) - 1)] if owners else 0
            errors[owner] += lost
            lengths[owner] += lost
            continue
        for place in range(step.dest_start, step.dest_end):
            errors[owners[place]] += step.tag != "equal"
            lengths[owners[place]] += step.tag != "insert"
    said = " ".join(turn.text for turn in turns)
    numbers = any(character.isdigit() for character in said)
    return [
        ClipErrors(errors=wrong, length=length, numbers=numbers or any(c.isdigit() for c in clip.text))
        for wrong, length, clip in zip(errors, lengths, clips, strict=True)
    ]
