"""Makes the sample recordings from Debian's Asterisk prompts and music; the outcome is kept in the repository.

Run `python samples/make.py` on Debian or Ubuntu (it downloads about 60 MB with `apt-get download`), or give it a
folder with those packages extracted: `python samples/make.py --debs FOLDER`. The same packages give the same samples.
"""

import argparse
import difflib
import gzip
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SEED = 20
HERE = Path(__file__).resolve().parent
TARGET_S = 47.0
LEVEL = 0.5  # of the prompts: headroom for the mixes, and smaller files
NOISE = 10 ** (-75 / 20)  # a faint floor under the pauses, as every real recording has

SOUNDS = "usr/share/asterisk/sounds"
MUSIC = "usr/share/asterisk/moh"
BY_SA, BY = "CC-BY-SA-3.0", "CC-BY-3.0"


@dataclass(frozen=True)
class Voice:
    """One speaker's set of prompts: where it lies, how many sessions to make of it, and under which licence."""

    language: str
    speaker: str
    folder: str
    licence: str
    sessions: int = 2


VOICES = (
    Voice("en", "allison-smith", "en_US_f_Allison", BY_SA),
    Voice("es", "allison-smith", "es_MX_f_Allison", BY_SA, sessions=1),
    Voice("fr", "june-wallack", "fr_CA_f_June", BY_SA),
    Voice("it", "carlo-flora", "it_IT_m_Carlo", BY),
    Voice("ru", "ivrvoice-ru", "ru_RU_f_IvrvoiceRU", BY, sessions=1),
)
PACKAGES = [f"asterisk-core-sounds-{v.language}{kind}" for v in VOICES for kind in ("", "-g722")]
PACKAGES.append("asterisk-moh-opsound-g722")

# Words that lost their accents in the Spanish list (numero, extension, ...): those texts are no reference.
LOST_ACCENTS = re.compile(
    r"\b(\w+cion|\w+cciones|\w+sion|numeros?|contrasenas?|ultim[oa]|invalid[oa]s?|lider|codigo|menu|dia|mas|unica|"
    r"tambien|aqui|sera|proposito|despues|numerico|atras|hacia atras|telefon\w+|linea\w*|intentare|\w+ara|logre|"
    r"ingese|ocupadas?|uniran|esta terriblemente|esten|escucharas|vacias|esta usted|esta a punto)\b",
    re.IGNORECASE,
)
# Left out: by Whisper, the voice reads something else than the list has, or the list misspells it.
WRONG = frozenset(
    ["en/conf-userwilljoin", "es/priv-recordintro", "es/vm-savefolder", "es/conf-placeintoconf", "es/pbx-parkingfailed"]
    + ["fr/please-try-call-later", "fr/queue-thereare", "fr/vm-newuser", "it/queue-thereare", "it/vm-incorrect-mailbox"]
    + ["it/vm-mismatch", "ru/conf-onlyperson", "ru/vm-star-cancel", "ru/conf-userswilljoin"]
)


@dataclass(frozen=True)
class Prompt:
    """One whole prompt: samples, text, and where in the samples speech begins and ends (in samples)."""

    name: str
    text: str
    audio: np.ndarray
    start: int
    end: int


def clean(text: str) -> str | None:
    """The text as spoken; None when it is no plain sentence (digits, notes in brackets, lost letters, choices)."""
    text = re.sub(r"^\.\.\.|^…|[“”«»\"]", "", text.strip()).strip()
    text = re.sub(r"\s+", " ", re.sub(r"(…|\.{2,})$", ".", text))
    text = re.sub(r"\b([Чч])то бы\b", r"\1тобы", text)  # the Russian list splits the word
    if re.search(r"[\d\[\](){}<>=/\\_*#@:;|\ufffd]|\.\.|…|www| \.|\?(?=.)|pu\?|\b[A-Z]{2,}\b", text):
        return None
    return text if len(text.split()) >= 4 else None


def read_texts(path: Path) -> dict[str, str]:
    """Name of a prompt to its text, from Debian's `core-sounds-XX.txt.gz`."""
    texts = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8-sig", errors="replace").splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            texts[name.strip()] = text
    return texts


def decode(path: Path) -> np.ndarray:
    """A G.722 file as 16 kHz mono float32."""
    if shutil.which("ffmpeg"):
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-f",
            "g722",
            "-i",
            str(path),
            "-f",
            "s16le",
            "-ar",
            str(RATE),
            "-ac",
            "1",
            "-",
        ]
        raw = subprocess.run(command, check=True, capture_output=True).stdout
        return np.frombuffer(raw, np.int16).astype(np.float32) / 32768
    import av

    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768


def speech_edges(audio: np.ndarray) -> tuple[int, int]:
    """First and last sample of the 10 ms frames louder than the loudest one less 40 dB."""
    hop = RATE // 100
    frames = audio[: len(audio) // hop * hop].reshape(-1, hop)
    level = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(level > level.max() * 0.01)
    return int(loud[0]) * hop, int(loud[-1] + 1) * hop


def prompts_of(voice: Voice, root: Path) -> list[Prompt]:
    """Sentence-like prompts of 2 to 12 s in a seeded order, no two with nearly the same text."""
    texts = read_texts(
        root / f"usr/share/doc/asterisk-core-sounds-{voice.language}/core-sounds-{voice.language}.txt.gz"
    )
    names = sorted(texts)
    random.Random(f"{SEED}-{voice.language}").shuffle(names)
    chosen: list[Prompt] = []
    for name in names:
        text = clean(texts[name])
        path = root / SOUNDS / voice.folder / f"{name}.g722"
        if text is None or f"{voice.language}/{name}" in WRONG or name.startswith("silence/") or not path.exists():
            continue
        if voice.language == "es" and LOST_ACCENTS.search(text):
            continue
        if not 2 * RATE <= path.stat().st_size * 2 <= 12.5 * RATE:  # G.722: half a byte a sample
            continue
        if any(difflib.SequenceMatcher(None, text.lower(), other.text.lower()).ratio() > 0.75 for other in chosen):
            continue
        audio = decode(path) * LEVEL
        start, end = speech_edges(audio)
        if 7 <= len(text) / ((end - start) / RATE) <= 24:  # letters a second: else voice and text don't match
            chosen.append(Prompt(name, text, audio, start, end))
    return chosen


def join(prompts: list[Prompt], rng: random.Random | None) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Whole prompts one after the other with pauses of 0.6 to 1.2 s (none without `rng`), and where speech lies."""

    def pause(low: float, high: float) -> np.ndarray:
        return np.zeros(round(rng.uniform(low, high) * RATE) if rng else 0, np.float32)

    pieces, turns = [pause(0.4, 0.8)], []
    for prompt in prompts:
        at = sum(map(len, pieces))
        start, end = (round((at + edge) / RATE, 3) for edge in (prompt.start, prompt.end))
        turns.append({"start": start, "end": end, "text": prompt.text})
        pieces += [prompt.audio, pause(0.6, 1.2)]
    return np.concatenate(pieces), turns


def take(prompts: list[Prompt], seconds: float) -> list[Prompt]:
    """Takes prompts off the front of the list until they last `seconds`, pauses counted."""
    taken: list[Prompt] = []
    while prompts and sum(len(p.audio) / RATE + 0.9 for p in taken) < seconds - 2:
        taken.append(prompts.pop(0))
    return taken


def power(audio: np.ndarray) -> float:
    """Mean power of the samples that are not near silence."""
    loud = audio[np.abs(audio) > 1e-3]
    return float((loud.astype(np.float64) ** 2).mean())


class Samples:
    """Writes recordings and collects the rows of their manifest and truth."""

    def __init__(self, out: Path):
        self.out = out
        self.manifest: list[dict[str, object]] = []
        self.truth: list[dict[str, object]] = []
        shutil.rmtree(out / "recordings", ignore_errors=True)
        (out / "recordings").mkdir(parents=True)

    def add(self, name: str, audio: np.ndarray, turns: list[dict[str, object]], licence: str, **labels: str) -> None:
        """Writes one recording; `labels` are its columns in the manifest (speaker, language)."""
        noise = np.random.default_rng(SEED + len(self.manifest)).standard_normal(len(audio)).astype(np.float32) * NOISE
        audio = audio + noise
        audio = audio * min(1.0, 0.95 / float(np.abs(audio).max()))
        path = f"recordings/{name}.flac"
        soundfile.write(self.out / path, audio, RATE, subtype="PCM_16", format="FLAC", compression_level=1.0)
        self.manifest.append({"path": path, "session": name, **labels, "licence": licence})
        self.truth.append({"path": path, "turns": turns})

    def close(self) -> None:
        """Writes the manifest and the truth."""
        for name, rows in (("manifest.jsonl", self.manifest), ("truth.jsonl", self.truth)):
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (self.out / name).write_text("".join(lines), encoding="utf-8")


def make(root: Path, out: Path) -> None:
    """Makes all samples from the packages extracted under `root`."""
    samples = Samples(out)
    left: dict[str, list[Prompt]] = {}
    for voice in VOICES:
        prompts = left[voice.language] = prompts_of(voice, root)
        for number in range(1, voice.sessions + 1):
            name = f"{voice.language}-{number}"
            audio, turns = join(take(prompts, TARGET_S), random.Random(f"{SEED}-{name}"))
            samples.add(name, audio, turns, voice.licence, speaker=voice.speaker, language=voice.language)

    audio, turns = join(take(left["en"], 38), random.Random(f"{SEED}-music"))
    music = decode(root / MUSIC / "macroform-cold_day.g722")[20 * RATE :][: len(audio)]
    gain = (power(audio) / power(music) / 10 ** (5 / 10)) ** 0.5
    samples.add("en-music", audio + gain * music, turns, BY_SA, speaker="allison-smith", language="en")

    music = decode(root / MUSIC / "reno_project-system.g722")[30 * RATE : 45 * RATE] * LEVEL
    samples.add("music", music, [], BY_SA)

    # No pauses here, and French prompts that last as long as the English: both talk from first to last.
    english = take(left["en"], 15)
    wanted = sum(len(p.audio) for p in english)
    choices = (c for n in (3, 4) for c in itertools.combinations(left["fr"][:14], n))
    french = min(choices, key=lambda choice: abs(sum(len(p.audio) for p in choice) - wanted))
    (first, first_turns), (second, second_turns) = join(english, None), join(list(french), None)
    mixed = np.zeros(max(len(first), len(second)), np.float32)
    mixed[: len(first)] += first
    mixed[: len(second)] += second * (power(first) / power(second)) ** 0.5
    samples.add(
        "two-at-once", mixed, sorted(first_turns + second_turns, key=lambda turn: float(str(turn["start"]))), BY_SA
    )
    samples.close()


def extract(folder: Path) -> None:
    """Downloads the packages with apt-get (nothing is installed) and extracts them into `folder`."""
    subprocess.run(["apt-get", "download", *PACKAGES], check=True, cwd=folder)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--debs", type=Path, help="folder with the Debian packages already extracted")
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: beside this script)")
    arguments = parser.parse_args()
    if arguments.debs:
        make(arguments.debs, arguments.out)
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        sys.exit("samples/make.py needs apt-get and dpkg, or --debs FOLDER with the packages extracted")
    with tempfile.TemporaryDirectory() as folder:
        extract(Path(folder))
        make(Path(folder), arguments.out)


if __name__ == "__main__":
    main()
