"""Real clips for tests: turns of the sample recordings, with what is said in them."""

import json
from pathlib import Path

import soundfile

SAMPLES = Path(__file__).parents[2] / "samples"


def turns(recording: str, count: int) -> list[tuple[float, float, str]]:
    """(start, end, text) of the first turns of a recording, seconds."""
    for line in (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["path"] == f"recordings/{recording}.flac":
            return [(turn["start"], turn["end"], turn["text"]) for turn in record["turns"][:count]]
    raise LookupError(recording)


def cut(recording: str, start: float, end: float, path: Path) -> Path:
    """A part of a recording as a wav of its own."""
    samples, rate = soundfile.read(SAMPLES / "recordings" / f"{recording}.flac", dtype="float32")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples[max(int((start - 0.2) * rate), 0) : int((end + 0.2) * rate)], rate)
    return path
