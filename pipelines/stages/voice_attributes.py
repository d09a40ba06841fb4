"""What is measured of each clip's voice, from finished work units: later, again, or with another model.

Every labeller keeps its own file a unit (`work/voices/<labeller>-<configuration>/`), so that one can be added to a
finished dataset without running any other, and none reads the recordings again.
"""

import base64
import dataclasses
import io
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import AnnotateConfig, Labeller, VoicesConfig
from pipelines.stages.base import Settings, Stage, UnitState
from pipelines.units.unit import Unit, read_unit, unit_path
from voxmill.core.assets import asset_path
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint
from voxmill.core.progress import Progress
from voxmill.data import records
from voxmill.data.records import Age, Emotion, Word
from voxmill.data.shards import to_json

log = logging.getLogger("voxmill")
RATE = 16000
# One clip and its audio, float32 [samples] at 16 kHz, to plain data.
Label = Callable[[dict[str, Any], np.ndarray], dict[str, Any]]


def label_folder(out: Path, name: Labeller, config: VoicesConfig) -> Path:
    """Where a labeller with this configuration keeps what it found."""
    return out / "work" / "voices" / f"{name}-{fingerprint(getattr(config, name))[:12]}"


def label_path(folder: Path, unit_id: str) -> Path:
    return folder / unit_id[:2] / f"{unit_id}.json"


class Voices(Stage):
    """Runs the labellers that a unit lacks over all its candidate clips."""

    title = "Voices"

    def load(self, settings: Settings) -> None:
        import torch

        torch.set_num_threads(settings.threads)
        self.config = settings.voices
        self.labellers = load_labellers(settings)

    def unit(self, unit: UnitState) -> int:
        unit_id = unit.state["unit_id"]
        wanted = {
            name: path
            for name in self.labellers
            if not (path := label_path(label_folder(self.out, name, self.config), unit_id)).exists()
        }
        if not wanted:
            return 0
        path = unit_path(self.out, unit_id)
        state, places = read_unit(path)
        clips = [clip for part in state["parts"] if "end" not in part for clip in part["clips"]]
        heard = [_read(path, *places[f"{clip['clip_id']}.flac"]) for clip in clips]
        for name, target in wanted.items():
            began = time.perf_counter()
            found = {
                clip["clip_id"]: self._measure(name, clip, audio) for clip, audio in zip(clips, heard, strict=True)
            }
            spent = {
                "seconds": time.perf_counter() - began,
                "audio_seconds": sum(len(audio) for audio in heard) / RATE,
                "calls": len(clips),
            }
            write_atomically(target, to_json({**spent, "clips": found}))
        return len(wanted) * len(clips)

    def _measure(self, name: Labeller, clip: dict[str, Any], audio: np.ndarray) -> dict[str, Any]:
        try:
            return self.labellers[name](clip, audio)
        except (MemoryError, OSError, ImportError):
            raise
        except Exception as error:
            # One clip that breaks a labeller has no such label, is counted and passed by.
            log.exception("%s failed on clip %s", name, clip["clip_id"])
            return {"error": f"{type(error).__name__}: {error}"[:300]}


def _read(path: Path, offset: int, size: int) -> np.ndarray:
    """A clip of a finished unit at 16 kHz."""
    with open(path, "rb") as file:
        file.seek(offset)
        return decode_flac(file.read(size))


def decode_flac(content: bytes) -> np.ndarray:
    """A clip's FLAC as float32 [samples] at 16 kHz."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return samples if rate == RATE else soxr.resample(samples, rate, RATE).astype(np.float32)


def _prosody(settings: Settings) -> Label:
    from annotation.voice.prosody import ProsodyMeter

    meter = ProsodyMeter(settings.voices.prosody)

    def label(clip: dict[str, Any], audio: np.ndarray) -> dict[str, Any]:
        words = [Word(**word) for word in clip["words"]]
        return dataclasses.asdict(meter(audio, words, clip["text"], clip["language"]))

    return label


def _speaker(settings: Settings) -> Label:
    from annotation.voice.speaker import SpeakerEncoder

    config = settings.voices.speaker
    weights = asset_path("speaker-campplus") if config.model == "embedded" else None
    encoder = SpeakerEncoder(config, weights, settings.device)

    def label(clip: dict[str, Any], audio: np.ndarray) -> dict[str, Any]:
        found = encoder([audio])[0]
        vector = np.zeros(encoder.size, np.float32) if found.value is None else found.value
        return {"vector": base64.b64encode(vector.tobytes()).decode(), "reason": found.reason}

    return label


def _gender(settings: Settings) -> Label:
    from annotation.voice.gender import GenderClassifier

    config = settings.voices.gender
    weights = asset_path("voice2gender") if config.model == "embedded" else None
    classifier = GenderClassifier(config, weights, settings.device)

    def label(clip: dict[str, Any], audio: np.ndarray) -> dict[str, Any]:
        found = classifier([audio])[0]
        return {
            "label": found.value.label if found.value else None,
            "female": found.measured.female if found.measured else None,
            "reason": found.reason,
        }

    return label


def _emotion(settings: Settings) -> Label:
    from annotation.voice.emotion import EmotionClassifier

    classifier = EmotionClassifier(settings.voices.emotion, settings.device)
    return lambda clip, audio: _plain(classifier([audio])[0])


def _age(settings: Settings) -> Label:
    from annotation.voice.age import AgeClassifier

    classifier = AgeClassifier(settings.voices.age, settings.device)
    return lambda clip, audio: _plain(classifier([audio])[0])


def _plain(label: records.Label[Age] | records.Label[Emotion]) -> dict[str, Any]:
    measured = label.measured
    nothing: dict[str, Any] = {"probability": None, "probabilities": {}}
    scores = nothing if measured is None else dataclasses.asdict(measured)
    return scores | {"label": label.value.label if label.value else None, "reason": label.reason}


_LOADERS: dict[Labeller, Callable[[Settings], Label]] = {
    "prosody": _prosody,
    "speaker": _speaker,
    "gender": _gender,
    "emotion": _emotion,
    "age": _age,
}


def load_labellers(settings: Settings) -> dict[Labeller, Label]:
    """Every labeller that the configuration asks for, its weights loaded.

    Raises:
        UserError: a model cannot be loaded.
    """
    return {name: _LOADERS[name](settings) for name in settings.voices.labellers}


def decode_vector(label: dict[str, Any] | None) -> np.ndarray | None:
    """The speaker embedding that a label holds, float32 [D]; None where there is none."""
    if not label or "vector" not in label or label["reason"]:
        return None
    return np.frombuffer(base64.b64decode(label["vector"]), dtype=np.float32)


def label_voices(
    units: list[Unit], out: Path, config: AnnotateConfig, workers: int, gpus: float, progress: Progress
) -> int:
    """Runs every labeller that some unit lacks and returns how many units that were.

    A unit over which the labellers' process dies again and again is left without these labels, and named.

    Raises:
        JobError: the machine cannot go on. UserError: a model cannot be loaded as configured.
    """
    folders = [label_folder(out, name, config.voices) for name in config.voices.labellers]

    def missing(some: list[Unit]) -> list[Unit]:
        return [u for u in some if not all(label_path(folder, u.unit_id).exists() for folder in folders)]

    undone = missing(units)
    if not undone:
        return 0
    from pipelines.engine.graph import run_stages

    hours = {unit.unit_id: unit.seconds / 3600 for unit in undone}
    with progress.stage("Voices", sum(hours.values()), "audio hours") as bar:
        for some, at_once, in_flight in ((undone, workers, 2), (None, 1, 1)):
            some = missing(undone) if some is None else some
            states = [json.dumps({"unit_id": unit.unit_id, "parts": []}) for unit in some]
            if not states:
                break
            for text in run_stages([(Voices, True)], states, 0, str(out.resolve()), config, at_once, gpus, in_flight):
                state = json.loads(text)
                fatal = state.get("fatal")
                if fatal:
                    raise (UserError if fatal["kind"] == "user" else JobError)(fatal["message"])
                bar.advance(hours[state["unit_id"]])
        crashed = missing(undone)
        if len(crashed) == len(undone) > 1:
            raise JobError("every worker ended before its first result, in Voices; is there memory for the models?")
        for unit in crashed:
            names = ", ".join(repr(part.name) for part in unit.parts[:3])
            progress.print(f"the labellers' process dies over the voices of {names}; they stay without these labels")
            for folder in folders:
                path = label_path(folder, unit.unit_id)
                if not path.exists():
                    write_atomically(path, to_json({"seconds": 0.0, "audio_seconds": 0.0, "calls": 0, "clips": {}}))
    return len(undone)
