"""Wavs of systems to scores; what is cached is not computed again, and where everything is, no model is loaded.

The leading process reads and writes the cache; workers (this process, or Ray actors) only measure audio. A score
depends on its own clip alone, so any number of workers gives the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from evaluation.benchmarks.benchmark import Utterance
from evaluation.metrics import error_rates
from evaluation.metrics.audio_files import content_hash, load, status_of
from evaluation.metrics.emotion_accuracy import EmotionScorer, EmotionScoringConfig, classifier_name
from evaluation.metrics.measurement import AudioState, Cosine, Measurement, MetricName, RecognisedEmotion
from evaluation.metrics.normalisation import NORMALISER_VERSION, normaliser_of
from evaluation.metrics.repetition import repetition
from evaluation.metrics.score_cache import ScoreCache, score_key, text_hash
from evaluation.metrics.similarity import Similarity, SimilarityConfig, encoder_name
from evaluation.metrics.speech_recognition import Recognition, RecognitionConfig, recogniser_name
from evaluation.metrics.utterance_score import Dnsmos, EmotionScore, UtteranceScore
from evaluation.systems.base import SystemOutput
from voxmill.core.audio import AudioProblem, MonoAudio, Samples
from voxmill.core.config import Config
from voxmill.core.local_ray.tasks import map_actors
from voxmill.core.machine import malloc

if TYPE_CHECKING:
    from annotation.audio.quality import Dnsmos as DnsmosModel

DNSMOS_IDENTITY = "dnsmos:speechmos-0.0.1.1:hops"
CHUNK = 4
"""Clips that go to a worker at once: few, so that a killed run loses little."""


class ScoringConfig(Config):
    """Which metrics are computed, and by which models."""

    recognition: RecognitionConfig = RecognitionConfig()
    similarity: SimilarityConfig = SimilarityConfig()
    emotion: EmotionScoringConfig = EmotionScoringConfig()
    metrics: list[str] = Field(default=["transcript", "similarity", "dnsmos"])
    """What is measured: transcript, similarity, dnsmos."""
    dnsmos_windows: int = Field(3, ge=1)
    """Windows of 9 s at which DNSMOS is measured in a longer clip."""
    device: str = "cpu"
    """Where the scoring models run: cpu or cuda."""
    threads: int = Field(1, ge=1)
    """CPU threads of each model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One wav to measure; `index` is the one of its output, `wanted` what is to be measured."""

    index: int
    wav: Path
    language: str
    reference: Path | None
    reference_hash: str
    wanted: tuple[MetricName, ...]


class Scorer:
    """Measures wavs; a model is loaded when it is first needed."""

    def __init__(self, config: ScoringConfig):
        self.config = config
        self._recognition: Recognition | None = None
        self._similarity: Similarity | None = None
        self._dnsmos: DnsmosModel | None = None
        self._emotion: EmotionScorer | None = None
        self._references: dict[str, MonoAudio | None] = {}

    def __call__(self, tasks: Sequence[Task]) -> list[tuple[int, Measurement]]:
        """(index, what was measured) of each task; `audio` always is."""
        return [(task.index, self._measure(task)) for task in tasks]

    def _measure(self, task: Task) -> Measurement:
        try:
            audio = load(task.wav)
        except AudioProblem as problem:
            return Measurement(audio=AudioState(problem=status_of(problem), detail=problem.detail))
        samples_T, wanted = audio.samples_T, task.wanted
        return Measurement(
            audio=AudioState(seconds=audio.file_seconds, rate=audio.file_rate),
            transcript=self._transcribe(samples_T, task.language) if "transcript" in wanted else None,
            similarity=Cosine(self._compare(samples_T, task)) if "similarity" in wanted else None,
            dnsmos=self._quality(samples_T) if "dnsmos" in wanted else None,
            emotion=self._recognise_emotion(samples_T) if "emotion" in wanted else None,
        )

    def _transcribe(self, samples_T: Samples, language: str) -> str:
        if self._recognition is None:
            self._recognition = Recognition(self.config.recognition, self.config.device, self.config.threads)
        return self._recognition.of(language)(samples_T, language)

    def _compare(self, samples_T: Samples, task: Task) -> float | None:
        if task.reference_hash not in self._references:
            self._references[task.reference_hash] = _reference(task.reference)
        reference = self._references[task.reference_hash]
        if reference is None:
            return None
        if self._similarity is None:
            self._similarity = Similarity(self.config.similarity, self.config.device)
        return self._similarity(samples_T, reference.samples_T, task.reference_hash)

    def _quality(self, samples_T: Samples) -> Dnsmos:
        if self._dnsmos is None:
            from annotation.audio.quality import Dnsmos as DnsmosModel

            self._dnsmos = DnsmosModel(self.config.dnsmos_windows, self.config.threads)
        sig, bak, ovr, p808 = self._dnsmos(samples_T)
        return Dnsmos(sig=sig, bak=bak, ovr=ovr, p808=p808)

    def _recognise_emotion(self, samples_T: Samples) -> RecognisedEmotion:
        if self._emotion is None:
            self._emotion = EmotionScorer(self.config.emotion, self.config.device)
        return self._emotion(samples_T)


def _reference(path: Path | None) -> MonoAudio | None:
    """A reference's audio; None where it cannot be used, which the report counts as `no similarity`."""
    if path is None:
        return None
    try:
        return load(path)
    except AudioProblem:
        return None


Work = Callable[[Sequence[Task]], Iterable[tuple[int, Measurement]]]
"""Measures tasks, in any order."""


def in_process(config: ScoringConfig) -> Work:
    """Measures in this process, a few clips at a time."""
    scorers: list[Scorer] = []

    def work(tasks: Sequence[Task]) -> Iterator[tuple[int, Measurement]]:
        if tasks and not scorers:
            scorers.append(Scorer(config))
        for start in range(0, len(tasks), CHUNK):
            yield from scorers[0](tasks[start : start + CHUNK])

    return work


def on_ray(config: ScoringConfig, workers: int) -> Work:
    """Measures in `workers` Ray actors; wavs must lie where all of them see them."""

    def work(tasks: Sequence[Task]) -> Iterator[tuple[int, Measurement]]:
        chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
        results = map_actors(
            Scorer,
            (config,),
            "__call__",
            chunks,
            count=workers,
            num_cpus=config.threads,
            num_gpus=1.0 if config.device.startswith("cuda") else 0.0,
            runtime_env={"env_vars": malloc.KEEP_FREED_MEMORY_ENV},
        )
        for measured in results:
            yield from measured

    return work


def score_outputs(
    outputs: Sequence[SystemOutput],
    protocol: str,
    config: ScoringConfig,
    cache: ScoreCache,
    work: Work,
    advance: Callable[[int], None] = lambda count: None,
) -> list[UtteranceScore]:
    """The scores of every output, in order.

    Args:
        protocol: whose official normalisation the error rates follow (`normalisation.PROTOCOLS`).
        advance: called with the number of outputs that are done since the last call.
    """
    measured = [Measurement() for _ in outputs]
    keys: list[dict[MetricName, str]] = [{} for _ in outputs]
    hashes: dict[Path, str | None] = {}
    tasks = []
    for index, output in enumerate(outputs):
        audio = None if output.failure else content_hash(output.wav)
        if audio is None:
            state = AudioState(problem="missing", detail=f"{output.wav.name} is not there")
            if output.failure:
                state = AudioState(problem="failed", detail=output.failure)
            measured[index] = Measurement(audio=state)
            advance(1)
            continue
        reference = output.utterance.reference
        if reference is not None and reference not in hashes:
            hashes[reference] = content_hash(reference)
        reference_hash = hashes[reference] if reference is not None else None
        keys[index] = _keys(output, protocol, config, audio, reference_hash)
        missing: list[MetricName] = []
        for metric, key in keys[index].items():
            is_known, value = cache.get(key)
            if is_known:
                measured[index] = measured[index].with_plain(metric, value)
            elif metric != "errors":
                missing.append(metric)
        state_known = measured[index].audio
        if missing and not (state_known and state_known.problem):
            tasks.append(
                Task(
                    index=index,
                    wav=output.wav,
                    language=output.utterance.language,
                    reference=reference,
                    reference_hash=reference_hash or "",
                    wanted=tuple(missing),
                )
            )
        else:
            advance(1)
    for index, measurement in work(tasks):
        measured[index] = measured[index].merged(measurement)
        cache.put([(keys[index][name], measurement.to_plain(name)) for name in measurement.names()])
        advance(1)
    scores = []
    for index, output in enumerate(outputs):
        transcript = measured[index].transcript
        if measured[index].errors is None and transcript is not None:
            one = output.utterance
            errors = error_rates.score(transcript, one.text, one.language, protocol)
            measured[index] = measured[index].merged(Measurement(errors=errors))
            cache.put([(keys[index]["errors"], measured[index].to_plain("errors"))])
        scores.append(_score(output, measured[index], wants_errors="transcript" in config.metrics))
    return scores


def _keys(
    output: SystemOutput, protocol: str, config: ScoringConfig, audio: str, reference_hash: str | None
) -> dict[MetricName, str]:
    """Cache keys of the metrics that are wanted of an output."""
    one = output.utterance
    keys: dict[MetricName, str] = {"audio": score_key(audio=audio, text="", metric="audio", model="1", normaliser="")}
    if "transcript" in config.metrics:
        model = recogniser_name(config.recognition, one.language).identity
        keys["transcript"] = score_key(
            audio=audio, text=text_hash(one.language), metric="transcript", model=model, normaliser=""
        )
        keys["errors"] = score_key(
            audio=audio,
            text=text_hash(one.text, one.language, protocol),
            metric="errors",
            model=model,
            normaliser=f"{NORMALISER_VERSION}:{normaliser_of(one.language)}",
        )
    if "similarity" in config.metrics and reference_hash:
        model = encoder_name(config.similarity).identity
        keys["similarity"] = score_key(
            audio=audio, text=reference_hash, metric="similarity", model=model, normaliser=""
        )
    if "dnsmos" in config.metrics:
        model = f"{DNSMOS_IDENTITY}{config.dnsmos_windows}"
        keys["dnsmos"] = score_key(audio=audio, text="", metric="dnsmos", model=model, normaliser="")
    if one.emotion and config.emotion.model:
        model = classifier_name(config.emotion).identity
        keys["emotion"] = score_key(audio=audio, text="", metric="emotion", model=model, normaliser="")
    return keys


def _score(output: SystemOutput, measured: Measurement, *, wants_errors: bool) -> UtteranceScore:
    one, audio = output.utterance, measured.audio
    assert audio is not None, "every output has a state of its audio"
    return UtteranceScore(
        id=one.id,
        group=one.group,
        language=one.language,
        text=one.text,
        seed=output.seed,
        wav=output.wav,
        description=one.description,
        reference=one.reference,
        status=audio.problem or "ok",
        detail=audio.detail,
        seconds=audio.seconds,
        rate=audio.rate,
        hypothesis=measured.transcript,
        errors=measured.errors,
        repetition=(None if measured.transcript is None else repetition(measured.transcript, one.text, one.language)),
        similarity=measured.similarity.value if measured.similarity else None,
        dnsmos=measured.dnsmos,
        emotion=_emotion(one, measured.emotion),
        wants_errors=wants_errors,
    )


def _emotion(one: Utterance, recognised: RecognisedEmotion | None) -> EmotionScore | None:
    if recognised is None:
        return None
    return EmotionScore(
        wanted=one.emotion, level=one.emotion_level, heard=recognised.heard, probability=recognised.probability
    )
