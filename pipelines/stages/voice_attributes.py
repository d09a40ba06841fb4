"""Labels of each clip's voice: in the worker that has just written the clips, or later from a finished unit's file.

Either way the labellers get the clips as their FLACs hold them, so a labeller that is added to a finished dataset, runs
again or has another model gives what it would have given in the first run; none reads the recordings again.
"""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from pipelines.config import Labeller
from pipelines.stages.base import Stage, StageContext, UnitOutput, WindowAudio
from pipelines.stages.write import clip_at_16k
from pipelines.units.store import LabelStore, UnitLabels, read_unit, unit_path
from voxmill.core.assets import asset_path
from voxmill.core.audio import RATE_16K
from voxmill.core.devices import limit_threads
from voxmill.data.records import Candidate, Cost, Label, StageName, WorkUnit

log = logging.getLogger("voxmill")

# A clip and its audio, float32 [T] at 16 kHz.
LabelFunction = Callable[[Candidate, np.ndarray], Label[object]]
Clips = Sequence[tuple[Candidate, np.ndarray]]


class VoiceAttributes(Stage):
    """Runs the labellers that a unit lacks over all its candidate clips; the audio ends here."""

    name = StageName.VOICE_ATTRIBUTES
    uses_gpu = True
    cpu_share = 0.2

    def __init__(self, context: StageContext) -> None:
        limit_threads(context.threads)
        self.out = context.out
        self.store = LabelStore(context.out, context.voice_attributes)
        self.labellers = load_labellers(context)

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        """Labels a unit; one without results is read back from its file."""
        missing = self.store.missing(unit.bucket, unit.unit_id)
        if not missing:
            return UnitOutput(unit, tuple(WindowAudio() for _ in audio))
        clips = list(_written(unit, audio) if unit.results else self._stored(unit))
        for name in missing:
            self.store.write(name, unit.bucket, unit.unit_id, _label(name, self.labellers[name], clips))
        return UnitOutput(unit, tuple(WindowAudio() for _ in audio), len(missing) * len(clips))

    def _stored(self, unit: WorkUnit) -> Clips:
        path = unit_path(self.out, unit.bucket, unit.unit_id)
        stored = read_unit(path)
        clips = []
        with open(path, "rb") as file:
            for candidate in (candidate for result in stored.unit.results for candidate in result.clips):
                offset, size = stored.places[candidate.clip_id]
                file.seek(offset)
                clips.append((candidate, clip_at_16k(file.read(size))))
        return clips


def _written(unit: WorkUnit, audio: Sequence[WindowAudio]) -> Clips:
    """The clips that `Write` has handed on."""
    return [
        pair
        for result, sound in zip(unit.results, audio, strict=True)
        for pair in zip(result.clips, sound.clips, strict=True)
    ]


def _label(name: Labeller, label: LabelFunction, clips: Clips) -> UnitLabels[object]:
    began = time.perf_counter()
    labels = {candidate.clip_id: _isolated(name, label, candidate, audio) for candidate, audio in clips}
    cost = Cost(
        seconds=time.perf_counter() - began,
        audio_seconds=sum(len(audio) for _, audio in clips) / RATE_16K,
        calls=len(clips),
    )
    return UnitLabels(cost=cost, labels=labels)


def _isolated(name: Labeller, label: LabelFunction, candidate: Candidate, audio: np.ndarray) -> Label[object]:
    try:
        return label(candidate, audio)
    except (MemoryError, OSError, ImportError):
        raise
    except Exception as error:
        # One clip that breaks a labeller has no such label and is counted; the rest of the corpus is labelled.
        log.exception("%s failed on clip %s", name, candidate.clip_id)
        return Label(error=f"{type(error).__name__}: {error}"[:300])


def load_labellers(context: StageContext) -> dict[Labeller, LabelFunction]:
    """Every labeller that the configuration asks for, its weights loaded.

    Raises:
        UserError: a model cannot be loaded.
    """
    return {name: _LOADERS[name](context) for name in context.voice_attributes.labellers}


def _prosody(context: StageContext) -> LabelFunction:
    from annotation.voice.prosody import ProsodyMeter

    meter = ProsodyMeter(context.voice_attributes.prosody)
    return lambda clip, audio: Label(value=meter(audio, clip.words, clip.text, clip.language))


def _speaker(context: StageContext) -> LabelFunction:
    from annotation.voice.speaker import SpeakerEncoder

    config = context.voice_attributes.speaker
    weights = asset_path("speaker-campplus") if config.model == "embedded" else None
    encoder = SpeakerEncoder(config, weights, context.device)
    return lambda clip, audio: encoder([audio])[0]


def _gender(context: StageContext) -> LabelFunction:
    from annotation.voice.gender import GenderClassifier

    config = context.voice_attributes.gender
    weights = asset_path("voice2gender") if config.model == "embedded" else None
    classifier = GenderClassifier(config, weights, context.device)
    return lambda clip, audio: classifier([audio])[0]


def _emotion(context: StageContext) -> LabelFunction:
    from annotation.voice.emotion import EmotionClassifier

    classifier = EmotionClassifier(context.voice_attributes.emotion, context.device)
    return lambda clip, audio: classifier([audio])[0]


def _age(context: StageContext) -> LabelFunction:
    from annotation.voice.age import AgeClassifier

    classifier = AgeClassifier(context.voice_attributes.age, context.device)
    return lambda clip, audio: classifier([audio])[0]


_LOADERS: dict[Labeller, Callable[[StageContext], LabelFunction]] = {
    "prosody": _prosody,
    "speaker": _speaker,
    "gender": _gender,
    "emotion": _emotion,
    "age": _age,
}
