"""Labels of each clip's voice: while its unit is worked on, or later from a finished unit's file.

Either way the labellers get the clips as their FLACs hold them, so a labeller that is added to a finished dataset, runs
again or has another model gives what it would have given in the first run; none reads the recordings again.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from pipelines.config import Labeller
from pipelines.stages.base import Stage, StageContext, UnitOutput, WindowAudio, check_machine
from pipelines.stages.written_clips import Clips, stored_clips, written_clips
from pipelines.units.label_store import LabelStore, UnitLabels
from voxmill.core.assets import asset_path
from voxmill.core.audio import RATE_16K
from voxmill.core.errors import UserError
from voxmill.core.machine.devices import limit_threads
from voxmill.data.records import Cost, Label, StageName, WorkUnit

log = logging.getLogger("voxmill")

# Answers for clips, in order; a clip is a candidate and float32 [T] at 16 kHz.
LabelFunction = Callable[[Clips], Sequence[Label[object]]]


class _VoiceLabels(Stage):
    """Runs those of its labellers that a unit lacks over all its candidate clips."""

    are_networks: ClassVar[bool]
    has_own_cost = True

    @abstractmethod
    def __init__(self, context: StageContext) -> None:
        limit_threads(context.threads)
        self.out, self.quality = context.out, context.label.quality
        self.store = LabelStore(context.out, context.voice_attributes)
        self.label = load_labellers(context, networks=self.are_networks)
        self.on_gpu = self.are_networks and context.device == "cuda"

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        """Labels a unit; the clips of one without results are read back from its file."""
        missing = [name for name in self.store.missing(unit.bucket, unit.unit_id) if name in self.label]
        if not missing:
            return UnitOutput(unit, tuple(audio))
        kept = tuple(audio)
        if unit.results:
            clips, kept = written_clips(unit, audio, self.quality)
        else:
            clips = stored_clips(self.out, unit)
        for name in missing:
            self.store.write(name, unit.bucket, unit.unit_id, self._answers(name, clips))
        return UnitOutput(unit, kept, len(missing) * len(clips))

    def _answers(self, name: Labeller, clips: Clips) -> UnitLabels[object]:
        began = time.perf_counter()
        answers = _isolated(name, self.label[name], clips)
        seconds = time.perf_counter() - began
        cost = Cost(
            seconds=seconds,
            gpu_seconds=seconds if self.on_gpu else 0.0,
            audio_seconds=sum(len(audio) for _, audio in clips) / RATE_16K,
            calls=len(clips),
        )
        labels = {candidate.clip_id: answer for (candidate, _), answer in zip(clips, answers, strict=True)}
        return UnitLabels(cost=cost, labels=labels)


class VoiceModels(_VoiceLabels):
    """The labellers that are networks, which a GPU computes where there is one."""

    name = StageName.VOICE_ATTRIBUTES
    are_networks = True

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)


class VoiceMeasures(_VoiceLabels):
    """The labellers that no GPU helps: prosody, and the small embedded models for gender."""

    name = StageName.PROSODY
    are_networks = False

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)


def _isolated(name: Labeller, label: LabelFunction, clips: Clips) -> Sequence[Label[object]]:
    """The answers; where one clip breaks the labeller, each clip is tried by itself and that one has no such label."""
    try:
        return label(clips) if clips else []
    except (MemoryError, OSError, ImportError, UserError):
        raise
    except (Exception, SystemExit) as error:
        check_machine(error)
        if len(clips) > 1:
            return [answer for clip in clips for answer in _isolated(name, label, [clip])]
        log.exception("%s failed on clip %s", name, clips[0][0].clip_id)
        return [Label(error=f"{type(error).__name__}: {error}"[:300])]


def load_labellers(context: StageContext, *, networks: bool) -> dict[Labeller, LabelFunction]:
    """Those labellers that the configuration asks for and that are networks, or those that are not, ready to be called.

    Raises:
        UserError: a model cannot be loaded.
    """
    config = context.voice_attributes
    measures = {"prosody", "gender"} if config.gender.model == "embedded" else {"prosody"}
    return {name: _LOADERS[name](context) for name in config.labellers if (name not in measures) == networks}


def _audio(clips: Clips) -> list[np.ndarray]:
    return [audio for _, audio in clips]


def _prosody(context: StageContext) -> LabelFunction:
    from annotation.voice.prosody import ProsodyMeter

    meter = ProsodyMeter(context.voice_attributes.prosody)
    return lambda clips: [Label(value=meter(audio, clip.words, clip.text, clip.language)) for clip, audio in clips]


def _speaker(context: StageContext) -> LabelFunction:
    from annotation.voice.speaker import SpeakerEncoder

    config = context.voice_attributes.speaker
    weights = asset_path("speaker-campplus") if config.model == "embedded" else None
    encoder = SpeakerEncoder(config, weights, context.device)
    return lambda clips: encoder.of_thirds(_audio(clips))


def _gender(context: StageContext) -> LabelFunction:
    from annotation.voice.gender import GenderClassifier

    config = context.voice_attributes.gender
    asked = config.embedded if config.model == "embedded" else ()
    trees = asset_path("voice2gender") if "trees" in asked else None
    cnn = asset_path("gender-cnn") if "cnn" in asked else None
    # The embedded ones are measured beside prosody, in processes without a GPU.
    classifier = GenderClassifier(config, trees, "cpu" if asked else context.device, cnn=cnn)
    return lambda clips: classifier(_audio(clips))


def _emotion(context: StageContext) -> LabelFunction:
    from annotation.voice.emotion import EmotionClassifier

    classifier = EmotionClassifier(context.voice_attributes.emotion, context.device)
    return lambda clips: classifier(_audio(clips))


def _age(context: StageContext) -> LabelFunction:
    from annotation.voice.age import AgeClassifier

    classifier = AgeClassifier(context.voice_attributes.age, context.device)
    return lambda clips: classifier(_audio(clips))


def _dialect(context: StageContext) -> LabelFunction:
    from annotation.voice.dialect import DialectClassifier

    classifier = DialectClassifier(context.voice_attributes.dialect, context.device)
    return lambda clips: classifier(_audio(clips), [clip.language for clip, _ in clips])


def _mos(context: StageContext) -> LabelFunction:
    from annotation.audio.distillmos import DistillMos

    scores = DistillMos(context.voice_attributes.mos, context.device)
    return lambda clips: scores(_audio(clips))


_LOADERS: dict[Labeller, Callable[[StageContext], LabelFunction]] = {
    "prosody": _prosody,
    "speaker": _speaker,
    "gender": _gender,
    "emotion": _emotion,
    "age": _age,
    "dialect": _dialect,
    "mos": _mos,
}
