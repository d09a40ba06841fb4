"""How often facts about loudness, endings, emphasis, texture, phonation and channel are right, word by word.

    python benchmarks/voice_facts.py [--cache FOLDER] [--each 100] [--workers 2]

Recordings are Debian's (Asterisk's prompts, festvox-ru's narration, tuxpaint's spoken names, the voices of hedgewars)
and the test clips of the Montreal Forced Aligner; they are fetched once, 750 MB. What no recording is labelled for is
made from them (benchmarks/support/changed_voices.py): a telephone line, rooms, whispers, creak, endings, loudness,
textures and emphasised words of known kind. Thresholds were set on the voices of `FITTED` (emphasis: on the narration);
the rows `others` are of voices that they have not seen. Intervals are Wilson's, over clips. The last line is one JSON
object.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.descriptions.facts import FactsConfig, Norms, describe_clip  # noqa: E402
from annotation.voice.prosody import ProsodyConfig, ProsodyMeter  # noqa: E402
from benchmarks.support import changed_voices as changed  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from benchmarks.support.voice_clips import (  # noqa: E402
    SHOUTED,
    VoiceClip,
    aligner_clips,
    fetch,
    game_clips,
    narrated_clips,
    plain_clips,
    prompted_clips,
)
from benchmarks.verifiers import wilson  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.hashing import stable_fraction  # noqa: E402
from voxmill.data.records import Prosody  # noqa: E402

FITTED = frozenset(
    (
        *("asterisk-en", "asterisk-es", "asterisk-ru", "tuxpaint-be", "tuxpaint-ca", "tuxpaint-es", "tuxpaint-fr"),
        *("game-British", "game-Classic", "game-Default", "game-Default_es", "game-HillBilly", "game-Mobster"),
    )
)
"""Voices on which thresholds were set."""
ROOMS = ((0.4, 0.0), (0.6, 0.0), (0.8, 0.0), (0.8, -6.0), (1.2, -6.0))
"""(reverberation time in seconds, direct over reverberant sound in dB)."""
ALIGNER_KINDS = {
    "whisper": "whispered",
    "whisper2": "whispered",
    "mfa_whisper": "whispered",
    "falsetto": "falsetto",
    "falsetto2": "falsetto",
    "mfa_falsetto": "falsetto",
    "mfa_creaky": "creaky",
    "mfa_breathy": "breathy",
    "mfa_laughter": "laughing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A clip without its audio: what it is, what was measured, and the facts of it as `{attribute: word}`."""

    voice: str
    kind: str
    truth: str
    prosody: Prosody

    @property
    def facts(self) -> dict[str, str]:
        facts = describe_clip(self.prosody, Norms(FactsConfig()), "en")
        return {fact.attribute: fact.word for fact in facts}


def made_clips(clips: list[VoiceClip]) -> Iterator[VoiceClip]:
    """What the recordings are changed to, each clip to one or two kinds by a hash of its place."""
    rng = np.random.default_rng(0)
    for number, clip in enumerate(clips):
        audio = clip.audio
        seconds, direct = ROOMS[number % len(ROOMS)]
        distant = changed.room(audio, seconds, direct, rng)
        yield replace(clip, kind=f"room {seconds} s, {direct:+.0f} dB", truth="distant", audio=distant)
        turn = int(stable_fraction(f"{clip.voice}/{number}") * 12)
        if turn == 0:
            yield replace(clip, kind="made whispered", truth="whispered", audio=changed.whispered(audio, rng))
        elif turn == 1:
            yield replace(clip, kind="made creaky", truth="creaky", audio=changed.creaky(audio, rng))
        elif turn in (2, 3, 4):
            move = (6.0, -6.0, 0.0)[turn - 2]
            truth = ("rising", "falling", "level")[turn - 2]
            yield replace(clip, kind=f"made {truth}", truth=truth, audio=changed.ending_by(audio, move, rng))
        elif turn == 5:
            yield replace(clip, kind="made flat", truth="flat", audio=changed.flattened(audio))
        elif turn == 6:
            yield replace(clip, kind="made wide", truth="wide", audio=changed.swelling(audio, rng))
        elif turn == 7:
            yield replace(clip, kind="telephone", truth="telephone", audio=changed.telephone(audio))
        elif turn == 8:
            yield replace(clip, kind="made clear", truth="clear", audio=changed.wavering(audio, rng))
        elif turn == 9:
            yield replace(clip, kind="made breathy", truth="breathy", audio=changed.wavering(audio, rng, noise=0.5))
        elif turn == 10:
            yield replace(clip, kind="made rough", truth="rough", audio=changed.wavering(audio, rng, unsteady=0.06))
        else:
            yield replace(clip, kind="noise of 15 dB", truth="", audio=changed.noisy(audio, 15.0, rng))


def emphasised_clips(clips: Iterable[VoiceClip]) -> Iterator[VoiceClip]:
    """Each as it is, and with one word of two syllables or more louder by 5 dB, longer by 40 % and higher by 4."""
    choice = random.Random(3)
    for clip in clips:
        yield replace(clip, kind="as read", truth="")
        places = [n for n, word in enumerate(clip.words[1:-1], 1) if word.end - word.start >= 0.2]
        if places:
            number = choice.choice(places)
            audio, words = changed.emphasised(clip.audio, clip.words, number, gain_db=5.0, stretch=1.4, semitones=4.0)
            word = clip.words[number].word
            yield replace(clip, kind="one word raised", truth=word, audio=audio, words=tuple(words))


_meter: list[ProsodyMeter] = []


def measure(clip: VoiceClip) -> Measured:
    """In a worker process."""
    if not _meter:
        _meter.append(ProsodyMeter(ProsodyConfig()))
    prosody = _meter[0](clip.audio, clip.words, clip.text, clip.language)
    return Measured(voice=clip.voice, kind=clip.kind, truth=clip.truth, prosody=prosody)


def gather(root: Path, each: int) -> Iterator[VoiceClip]:
    """All clips, recorded and made."""
    plain = list(plain_clips(root, each))
    yield from plain
    yield from made_clips(plain)
    for clip in aligner_clips(root):
        yield replace(clip, truth=ALIGNER_KINDS.get(clip.kind, ""))
    for clip in game_clips(root):
        truth = "shouted" if clip.kind in SHOUTED else "laughing" if clip.kind == "Laugh" else "game"
        yield replace(clip, truth=truth)
    yield from emphasised_clips(narrated_clips(root, 2 * each))
    yield from emphasised_clips(prompted_clips())


ATTRIBUTES = {
    "dynamics": ("flat", "wide"),
    "ending": ("rising", "falling"),
    "texture": ("creaky", "breathy", "rough", "clear"),
    "phonation": ("whispered", "falsetto", "shouted"),
    "channel": ("telephone", "distant"),
}
OPPOSITES = {
    "flat": ("wide",),
    "wide": ("flat",),
    "rising": ("falling", "level"),
    "falling": ("rising", "level"),
    "breathy": ("clear",),
    "rough": ("clear",),
    "clear": ("breathy", "rough"),
}
"""Clips that a word would be wrong of where the recordings as they are may be of any kind."""


def negatives(word: str, clips: list[Measured]) -> list[Measured]:
    """Clips of which the word would be wrong."""
    if word in OPPOSITES:
        return [clip for clip in clips if clip.truth in OPPOSITES[word]]
    return [clip for clip in clips if clip.truth == "" and clip.kind in ("plain", "noise of 15 dB")]


def rows_of(clips: list[Measured]) -> list[dict[str, object]]:
    """Recall and false alarms of every word on the voices that thresholds were set on and on the others."""
    facts = [clip.facts for clip in clips]
    of = dict(zip(map(id, clips), facts, strict=True))
    rows: list[dict[str, object]] = []
    for attribute, words in ATTRIBUTES.items():
        for word in words:
            for group in ("fitted", "others"):
                mine = [clip for clip in clips if (clip.voice in FITTED) == (group == "fitted")]
                kinds: dict[str, list[Measured]] = {}
                for clip in mine:
                    if clip.truth == word:
                        recorded = clip.voice == "aligner" or clip.voice.startswith("game-")
                        kinds.setdefault(clip.voice.partition("-")[0] if recorded else clip.kind, []).append(clip)
                wrong = negatives(word, mine)
                false = sum(of[id(clip)].get(attribute) == word for clip in wrong)
                for kind, true in sorted(kinds.items()):
                    right = sum(of[id(clip)].get(attribute) == word for clip in true)
                    rows.append(
                        {
                            "attribute": attribute,
                            "word": word,
                            "voices": group,
                            "clips": kind,
                            "right": right,
                            "of": len(true),
                            "recall": wilson(right, len(true)),
                            "false": false,
                            "of_others": len(wrong),
                            "false_alarms": wilson(false, len(wrong)),
                        }
                    )
    return rows


def emphasis_row(clips: list[Measured], voices: str) -> dict[str, object]:
    """Raised words that are named, and sentences as read with any word named; of the narrator the threshold was set on
    (`fitted`) or of the prompts with Whisper's word times (`others`)."""
    clips = [clip for clip in clips if (clip.voice == "festvox-ru") == (voices == "fitted")]
    raised = [clip for clip in clips if clip.kind == "one word raised"]
    named = [clip.facts.get("emphasis", "").split(", ") for clip in raised]
    right = sum(_letters(clip.truth) in map(_letters, words) for clip, words in zip(raised, named, strict=True))
    others = sum(
        bool({*map(_letters, words)} - {_letters(clip.truth), ""}) for clip, words in zip(raised, named, strict=True)
    )
    as_read = [clip for clip in clips if clip.kind == "as read"]
    false = sum("emphasis" in clip.facts for clip in as_read)
    return {
        "attribute": "emphasis",
        "word": "the word",
        "voices": voices,
        "clips": "one word raised",
        "right": right,
        "of": len(raised),
        "recall": wilson(right, len(raised)),
        "false": false,
        "of_others": len(as_read),
        "false_alarms": wilson(false, len(as_read)),
        "another_word_too": others,
    }


def _letters(word: str) -> str:
    return "".join(filter(str.isalnum, word.lower()))


def _share(right: object, total: object, interval: object) -> str:
    if not isinstance(interval, tuple):
        return "-"
    return f"{right}/{total} ({interval[0]:.0%} to {interval[1]:.0%})"


@command("benchmarks/voice_facts.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/voxmill/voice-clips").expanduser())
    parser.add_argument("--each", type=int, default=100, help="clips of each voice")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    started = time.perf_counter()
    clips = list(gather(fetch(arguments.cache), arguments.each))
    with ProcessPoolExecutor(arguments.workers) as pool:
        measured = list(pool.map(measure, clips, chunksize=16))
    rows = [*rows_of(measured), emphasis_row(measured, "fitted"), emphasis_row(measured, "others")]
    headings = ["word", "voices", "clips", "named", "named wrongly"]
    cells = [
        [
            f"{row['attribute']}: {row['word']}",
            str(row["voices"]),
            str(row["clips"]),
            _share(row["right"], row["of"], row["recall"]),
            _share(row["false"], row["of_others"], row["false_alarms"]),
        ]
        for row in rows
    ]
    console = Console(width=160)
    console.print(table("Facts worth saying", headings, cells))
    seconds = time.perf_counter() - started
    print(json.dumps({"clips": len(measured), "seconds": round(seconds, 1), "rows": rows}, ensure_ascii=False))


if __name__ == "__main__":
    main()
