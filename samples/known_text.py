"""Makes recordings of known words, in eleven languages, for `voxmill fit-trust` and benchmarks/truth.py.

    python samples/known_text.py FOLDER [--debs FOLDER]

Debian packages only (340 MB): Asterisk's prompts (en, es, fr, it, ru), festvox-ru's narration and the spoken names of
tuxpaint-stamps (be, bg, ca, da, el, es, fr, nl, ro, ru). What a voice says is joined to recordings of 8 to 40 s with
pauses, or left alone where it is long enough; a fifth lies under noise or music, or is as narrow as a telephone line.
Writes `manifest.jsonl` for the job and `truth.jsonl` of the turns, where what no fit may see is `held_out`.
The packages' licences are theirs (GPL-2, CC-BY-SA-3.0, CC-BY-3.0, BSD-like): nothing of them is kept in
this repository but numbers.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from samples.make import LOST_ACCENTS, MUSIC, SOUNDS, VOICES, WRONG, decode, read_texts, speech_edges
from voxmill.core.audio import resample

RATE = 16_000
SEED = 21
STAMPS = "usr/share/tuxpaint/stamps"
NARRATION = "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
PACKAGES = [f"asterisk-core-sounds-{voice.language}{kind}" for voice in VOICES for kind in ("", "-g722")]
PACKAGES += ["festvox-ru", "tuxpaint-stamps-default", "asterisk-moh-opsound-g722"]

# Minutes of each voice; among the languages are some that small recognisers know badly.
MINUTES = {
    "asterisk-en": 6.0,
    "asterisk-es": 4.0,
    "asterisk-fr": 5.0,
    "asterisk-it": 5.0,
    "asterisk-ru": 5.0,
    "festvox-ru": 5.0,
    "tuxpaint-be": 4.0,
    "tuxpaint-bg": 5.0,
    "tuxpaint-ca": 5.0,
    "tuxpaint-da": 5.0,
    "tuxpaint-el": 5.0,
    "tuxpaint-es": 5.0,
    "tuxpaint-fr": 5.0,
    "tuxpaint-nl": 1.0,
    "tuxpaint-ro": 6.0,
    "tuxpaint-ru": 4.0,
}
HELD_OUT = {"asterisk-es", "festvox-ru", "tuxpaint-nl"}
"""Voices that no fit may see; of the others every third recording is held out."""

ALONE_SHARE, GIVEN_SHARE, DEGRADED_SHARE = 0.4, 0.3, 0.2
"""Of prompts of 2 s and more that stay recordings of their own; of recordings whose language the manifest gives; of
recordings that are made worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One utterance: what is said and where it lies."""

    voice: str
    language: str
    text: str
    path: Path

    def audio(self) -> np.ndarray:
        """Mono float32 [samples] at 16 kHz, silence around the speech cut away."""
        if self.path.suffix == ".g722":
            audio = decode(self.path)
        else:
            samples, rate = soundfile.read(self.path, dtype="float32", always_2d=True)
            audio = resample(samples.mean(axis=1), rate, RATE)
        if not np.abs(audio).max(initial=0.0) > 1e-3:
            return audio[:0]
        start, end = speech_edges(audio)
        spoken = audio[max(start - RATE // 20, 0) : end + RATE // 20]
        return np.asarray(spoken * (0.5 / np.abs(spoken).max()))


def plain(text: str, language: str) -> str | None:
    """The text as it is spoken; None where that is not known: numbers, abbreviations, notes, lost letters."""
    text = re.sub(r"\s+", " ", re.sub(r"(\.{2,}|…)", " ", text.strip().strip("\"'“”«»"))).strip()
    if not text or re.search(r"[\d\[\](){}<>=/\\_*#@:;|\ufffd]|www|\?(?=.)|pu\?|\b[A-ZА-Я]{2,}\b", text):
        return None
    if language == "es" and LOST_ACCENTS.search(text):
        return None
    return re.sub(r"\b([Чч])то бы\b", r"\1тобы", text)


def prompts(root: Path) -> Iterator[Prompt]:
    """All utterances of the packages extracted under `root`."""
    for voice in VOICES:
        language = voice.language
        texts = read_texts(root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz")
        for name, written in sorted(texts.items()):
            path, text = root / SOUNDS / voice.folder / f"{name}.g722", plain(written, language)
            known = text is not None and len(text.split()) >= 2 and f"{language}/{name}" not in WRONG
            if known and text and path.exists() and not name.startswith(("silence/", "letters/", "phonetic/")):
                yield Prompt(voice=f"asterisk-{language}", language=language, text=text, path=path)
    for line in (root / NARRATION / "etc" / "txt.done.data").read_text(encoding="utf-8").splitlines():
        match = re.match(r'\( (\w+) "(.*)" \)', line)
        text = plain(match[2].replace("+", ""), "ru") if match else None
        if match and text:
            yield Prompt(
                voice="festvox-ru", language="ru", text=text, path=root / NARRATION / "wav" / f"{match[1]}.wav"
            )
    for path in sorted((root / STAMPS).rglob("*_desc_*.ogg")):
        stem, _, language = path.stem.rpartition("_desc_")
        name, source = f"tuxpaint-{language}", path.with_name(f"{stem}.txt")
        if name not in MINUTES or not source.exists():
            continue
        lines = source.read_bytes().decode("utf-8", errors="replace").splitlines()
        named = [line.partition("=")[2] for line in lines if line.startswith(f"{language}.utf8=")]
        text = plain(named[0], language) if named else None
        if text:
            yield Prompt(voice=name, language=language, text=text, path=path)


def spoken(rows: list[Prompt], minutes: float) -> Iterator[tuple[Prompt, np.ndarray]]:
    """So many minutes of a voice in a seeded order, no text twice, voice and text of about one length."""
    random.Random(f"{SEED}-{rows[0].voice}").shuffle(rows)
    seconds, seen = 0.0, set[str]()
    for prompt in rows:
        if seconds >= minutes * 60:
            return
        audio = prompt.audio()
        own = len(audio) / RATE
        if prompt.text.lower() in seen or not 0.4 <= own <= 20 or not 4 <= len(prompt.text) / own <= 30:
            continue
        seen.add(prompt.text.lower())
        seconds += own
        yield prompt, audio


def degraded(audio: np.ndarray, rng: np.random.Generator, music: list[np.ndarray]) -> tuple[np.ndarray, str]:
    """The recording under noise or music, or through a telephone line, and which."""
    kind = ("noise", "music", "telephone")[rng.integers(3)]
    if kind == "telephone":
        return resample(resample(audio, RATE, 8000), 8000, RATE)[: len(audio)], kind
    if kind == "music":
        track = music[rng.integers(len(music))]
        under = np.roll(track, -int(rng.integers(len(track))))[: len(audio)]
    else:
        spectrum = np.fft.rfft(rng.standard_normal(len(audio)))
        under = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), len(audio))
    loud = audio[np.abs(audio) > 1e-3]
    level = float(rng.uniform(3, 20))
    gain = np.sqrt(np.mean(loud**2) / np.mean(under**2) / 10 ** (level / 10))
    return audio + gain * under, f"{kind} {level:.0f} dB"


def recordings(utterances: list[tuple[Prompt, np.ndarray]], rng: random.Random) -> Iterator[list[int]]:
    """Numbers of the utterances of each recording: one alone, or several up to a length that is drawn."""
    together: list[int] = []
    wanted, seconds = rng.uniform(8, 40), 0.0
    for number, (_, audio) in enumerate(utterances):
        if len(audio) >= 2 * RATE and rng.random() < ALONE_SHARE:
            yield [number]
            continue
        together.append(number)
        seconds += len(audio) / RATE + 0.6
        if seconds >= wanted:
            yield together
            together, wanted, seconds = [], rng.uniform(8, 40), 0.0
    if together:
        yield together


def write(root: Path, out: Path) -> None:
    """Writes recordings, manifest and truth."""
    by_voice: dict[str, list[Prompt]] = {}
    for prompt in prompts(root):
        by_voice.setdefault(prompt.voice, []).append(prompt)
    music = [decode(path)[10 * RATE :] for path in sorted((root / MUSIC).glob("*.g722"))]
    manifest: list[dict[str, object]] = []
    truth: list[dict[str, object]] = []
    (out / "recordings").mkdir(parents=True, exist_ok=True)
    for voice, minutes in MINUTES.items():
        utterances = list(spoken(by_voice[voice], minutes))
        rng = random.Random(f"{SEED}-{voice}-recordings")
        noise = np.random.default_rng([SEED, *voice.encode()])
        for count, numbers in enumerate(recordings(utterances, rng)):
            # Pauses on both sides of what still joins stretches to one clip (0.8 s).
            pieces, turns = [np.zeros(round(rng.uniform(0.3, 0.6) * RATE), np.float32)], []
            for number in numbers:
                prompt, audio = utterances[number]
                start = sum(map(len, pieces)) / RATE
                end = start + len(audio) / RATE
                turns.append({"start": round(start, 3), "end": round(end, 3), "text": prompt.text})
                pieces += [audio, np.zeros(round(rng.uniform(0.3, 1.1) * RATE), np.float32)]
            sound = np.concatenate(pieces)
            sound += noise.standard_normal(len(sound)).astype(np.float32) * 10 ** (-75 / 20)
            condition = "as it is"
            if rng.random() < DEGRADED_SHARE:
                sound, condition = degraded(sound, noise, music)
            name = f"recordings/{voice}-{count:03d}.flac"
            soundfile.write(out / name, sound / max(np.abs(sound).max() / 0.95, 1.0), RATE, subtype="PCM_16")
            language = utterances[numbers[0]][0].language
            row: dict[str, object] = {"path": name, "session": f"{voice}-{count:03d}"}
            manifest.append(row | ({"language": language} if rng.random() < GIVEN_SHARE else {}))
            row = {"path": name, "language": language, "voice": voice, "condition": condition, "turns": turns}
            truth.append(row | ({"held_out": True} if voice in HELD_OUT or count % 3 == 2 else {}))
    for file, rows in (("manifest.jsonl", manifest), ("truth.jsonl", truth)):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (out / file).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--debs", type=Path, help="folder with the Debian packages already extracted")
    arguments = parser.parse_args()
    if arguments.debs:
        write(arguments.debs, arguments.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", *PACKAGES], check=True, cwd=folder)
        for package in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), folder], check=True)
        write(Path(folder), arguments.out)


if __name__ == "__main__":
    main()
