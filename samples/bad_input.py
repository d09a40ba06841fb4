"""The bad-input set: what real corpora hold besides recordings, each case made from the sample recordings.

    python samples/bad_input.py FOLDER

The tests and the audit run the job over it. `CASES` has how each one must end.
"""

import io
import json
import os
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

RECORDINGS = Path(__file__).resolve().parent / "recordings"
RATE = 16000


@dataclass(frozen=True)
class Case:
    """How an input must end: its state, and its reasons where the state alone does not tell."""

    state: str
    reasons: tuple[str, ...] = ()


CASES: dict[str, Case] = {
    "zero bytes.wav": Case("unreadable", ("empty_file",)),
    "text.wav": Case("unreadable", ("not_audio",)),
    "truncated.flac": Case("kept"),
    "wrong extension.mp3": Case("kept"),
    "lying header.wav": Case("kept"),
    "silence.wav": Case("rejected", ("no_speech",)),
    "all nan.wav": Case("unreadable", ("non_finite",)),
    "some nan.wav": Case("kept"),
    "antiphase.flac": Case("kept"),
    "clipped.flac": Case("rejected", ("high_clipping",)),
    "dc offset.flac": Case("rejected", ("high_dc_offset",)),
    "8 kHz upsampled.flac": Case("kept"),
    "0.2 s.wav": Case("rejected", ("no_speech",)),
    "music only.flac": Case("rejected", ("no_speech",)),
    "two at once.flac": Case("rejected", ("overlapped_speech",)),
    "two languages.flac": Case("kept"),
    "a/same name.flac": Case("kept"),
    "b/same name.flac": Case("kept"),
    "dotted.name.v1.2.flac": Case("kept"),
    "right to left \u202eعربي.flac": Case("duplicate", ("same_audio",)),
    "emoji 🎙.flac": Case("duplicate", ("same_audio",)),
    "new\nline.flac": Case("duplicate", ("same_audio",)),
    "speaker a channel.flac": Case("kept"),
    "wrapped size.wav": Case("kept"),
    "chained rates.ogg": Case("kept"),
    "int16 floats.wav": Case("kept"),
    "linked/": Case("duplicate", ("same_folder",)),
    "loop.wav": Case("unreadable", ("missing",)),
    "dangling.wav": Case("unreadable", ("missing",)),
}
OTHERS = ("notes.txt",)
"""Files that are no recordings: counted, without a row."""


def turn(name: str, number: int) -> np.ndarray:
    """A spoken sentence of a sample recording with 0.4 s around it, float64 [samples] at 16 kHz."""
    lines = (RECORDINGS.parent / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    truth = {row["path"]: row["turns"] for row in map(json.loads, lines)}
    chosen = truth[f"recordings/{name}.flac"][number]
    audio, _ = soundfile.read(RECORDINGS / f"{name}.flac")
    sentence: np.ndarray = audio[max(int((chosen["start"] - 0.4) * RATE), 0) : int((chosen["end"] + 0.4) * RATE)]
    return sentence


def make(folder: Path) -> dict[str, Case]:
    """Writes the whole set below `folder` and returns how each input must end, by name."""
    for below in ("", "a", "b"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    # Every kept case has audio of its own, or it would end as a duplicate.
    english = [turn("en-1", number) for number in range(8)] + [turn("en-2", number) for number in range(4)]
    french = [turn("fr-1", number) for number in range(2)]

    (folder / "zero bytes.wav").touch()
    (folder / "text.wav").write_text("this is no audio\n" * 50)
    soundfile.write(folder / "whole.flac", np.concatenate(english[:2]), RATE)
    content = (folder / "whole.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(content[: len(content) * 2 // 3])
    (folder / "whole.flac").unlink()
    soundfile.write(folder / "wrong extension.mp3", english[1], RATE, format="FLAC")
    soundfile.write(folder / "lying header.wav", english[2], RATE)
    _state_size(folder / "lying header.wav", 3600 * RATE)
    soundfile.write(folder / "silence.wav", np.zeros(3 * RATE), RATE)
    soundfile.write(folder / "all nan.wav", np.full(3 * RATE, np.nan), RATE, subtype="FLOAT")
    some = english[3].copy()
    some[1000:1010] = np.nan
    soundfile.write(folder / "some nan.wav", some, RATE, subtype="FLOAT")
    soundfile.write(folder / "antiphase.flac", np.stack([english[4], -english[4]], axis=1), RATE)
    soundfile.write(folder / "clipped.flac", np.clip(english[5] * 30, -1, 1), RATE)
    soundfile.write(folder / "dc offset.flac", english[6] + 0.3, RATE)
    soundfile.write(folder / "8 kHz upsampled.flac", _band_limited(english[7]), 48000)
    soundfile.write(folder / "0.2 s.wav", english[0][RATE // 2 : RATE // 2 + RATE // 5], RATE)
    music, _ = soundfile.read(RECORDINGS / "music.flac", frames=6 * RATE)
    soundfile.write(folder / "music only.flac", music, RATE)
    both, _ = soundfile.read(RECORDINGS / "two-at-once.flac", frames=12 * RATE)
    soundfile.write(folder / "two at once.flac", both, RATE)
    soundfile.write(folder / "two languages.flac", np.concatenate([english[8], *french]), RATE)
    soundfile.write(folder / "a/same name.flac", english[9], RATE)
    soundfile.write(folder / "b/same name.flac", english[10], RATE)
    soundfile.write(folder / "dotted.name.v1.2.flac", english[11], RATE)
    for name in ("right to left \u202eعربي.flac", "emoji 🎙.flac", "new\nline.flac"):
        shutil.copy(folder / "dotted.name.v1.2.flac", folder / name)
    soundfile.write(folder / "speaker a channel.flac", _call(turn("en-2", 5), turn("en-2", 8)), RATE)
    soundfile.write(folder / "wrapped size.wav", turn("en-1", 12), RATE)
    _state_size(folder / "wrapped size.wav", RATE)
    soundfile.write(folder / "int16 floats.wav", turn("en-1", 10) * 32768, RATE, subtype="FLOAT")
    _chain(folder / "chained rates.ogg", [turn("en-2", 6), turn("en-2", 7)], [RATE, 22050])
    for name in OTHERS:
        (folder / name).write_text("of no sound\n" * 50)
    for name, target in (("loop.wav", "loop.wav"), ("dangling.wav", "nothing.wav"), ("linked", "a")):
        (folder / name).unlink(missing_ok=True)
        os.symlink(target, folder / name)
    return dict(CASES)


def _state_size(path: Path, num_samples: int) -> None:
    """Makes a WAV's header promise another number of samples than are there."""
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", num_samples * 2)
    path.write_bytes(content)


def _call(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two speakers, one a channel, [T, 2]; the second begins half a second before the first ends."""
    start = len(left) - RATE // 2
    both = np.zeros((start + len(right), 2))
    both[: len(left), 0], both[start:, 1] = left, right
    return both


def _chain(path: Path, turns: list[np.ndarray], rates: list[int]) -> None:
    """An Ogg file of a link for each turn, at the rate of each."""
    with path.open("wb") as file:
        for audio, rate in zip(turns, rates, strict=True):
            link = io.BytesIO()
            soundfile.write(link, soxr.resample(audio, RATE, rate), rate, format="OGG", subtype="VORBIS")
            file.write(link.getvalue())


def _band_limited(audio: np.ndarray) -> np.ndarray:
    """The audio at 48 kHz as a telephone line leaves it: nothing above 4 kHz."""
    limited: np.ndarray = soxr.resample(soxr.resample(audio, RATE, 8000), 8000, 48000)
    return limited


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python samples/bad_input.py FOLDER")
    make(Path(sys.argv[1]))
