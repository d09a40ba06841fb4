"""One utterance of one system to its scores; what is cached is not computed, and where all is, no model is loaded.

The leading process looks things up and writes them down; workers (this process, or Ray actors) only hear audio. A score
depends on its own clip alone, so any number of workers gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from evaluation.benchmarks.benchmark import Utterance
from evaluation.metrics import error_rates
from evaluation.metrics.audio_files import Unusable, content_hash, load
from evaluation.metrics.emotion_accuracy import EmotionHearer, EmotionScoringConfig, classifier_name
from evaluation.metrics.normalisation import NORMALISER_VERSION
from evaluation.metrics.score_cache import ScoreCache, score_key, text_hash
from evaluation.metrics.similarity import Similarity, SimilarityConfig, encoder_name
from evaluation.metrics.speech_recognition import Recognition, RecognitionConfig, recogniser_name
from evaluation.systems.base import SystemOutput
from voxmill.core import malloc
from voxmill.core.config import Config
from voxmill.core.errors import UserError

DNSMOS_IDENTITY = "dnsmos:speechmos-0.0.1.1:hops"
CHUNK = 4
"""Clips that go to a worker at once: few, so that a killed run loses little."""


class ScoringConfig(Config):
    """Which metrics, by which models. `dnsmos_windows` of 9 s are measured of a long clip.

    `emotion`: the classifier that is asked where a benchmark names emotions; without a model nobody is.
    """

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


@dataclass(frozen=True)
class Task:
    """One wav to hear, and for what."""

    index: int
    wav: str
    language: str
    reference: str
    reference_hash: str
    wanted: tuple[str, ...]


class Scorer:
    """Hears wavs; a model is loaded when it is first asked for."""

    def __init__(self, config: ScoringConfig):
        self.config = config
        self._recognition: Recognition | None = None
        self._similarity: Similarity | None = None
        self._dnsmos: Any = None
        self._emotion: EmotionHearer | None = None
        self._references: dict[str, Any] = {}

    def __call__(self, tasks: Sequence[Task]) -> list[tuple[int, dict[str, Any]]]:
        """(index, metric: value) of each task. `audio` is always there: seconds, rate, and problem and detail or None."""
        return [(task.index, self._one(task)) for task in tasks]

    def _one(self, task: Task) -> dict[str, Any]:
        audio = load(Path(task.wav))
        if isinstance(audio, Unusable):
            return {"audio": {"seconds": 0.0, "rate": 0, "problem": audio.reason, "detail": audio.detail}}
        found: dict[str, Any] = {
            "audio": {"seconds": audio.seconds, "rate": audio.rate, "problem": None, "detail": None}
        }
        if "transcript" in task.wanted:
            if self._recognition is None:
                self._recognition = Recognition(self.config.recognition, self.config.device, self.config.threads)
            found["transcript"] = self._recognition.of(task.language)(audio.samples, task.language)
        if "similarity" in task.wanted:
            found["similarity"] = self._similar(task, audio.samples)
        if "dnsmos" in task.wanted:
            if self._dnsmos is None:
                from annotation.audio.quality import Dnsmos

                self._dnsmos = Dnsmos(self.config.dnsmos_windows, self.config.threads)
            found["dnsmos"] = dict(zip(("sig", "bak", "ovr", "p808"), self._dnsmos(audio.samples), strict=True))
        if "emotion" in task.wanted:
            if self._emotion is None:
                self._emotion = EmotionHearer(self.config.emotion, self.config.device)
            found["emotion"] = self._emotion(audio.samples)
        return found

    def _similar(self, task: Task, samples: Any) -> float | None:
        if task.reference_hash not in self._references:
            self._references[task.reference_hash] = load(Path(task.reference))
        reference = self._references[task.reference_hash]
        if isinstance(reference, Unusable):
            return None
        if self._similarity is None:
            self._similarity = Similarity(self.config.similarity, self.config.device)
        return self._similarity(samples, reference.samples, task.reference_hash)


Work = Callable[[Sequence[Task]], Iterable[tuple[int, dict[str, Any]]]]


def in_process(config: ScoringConfig) -> Work:
    """Scores here, a few clips at a time."""
    scorer: list[Scorer] = []

    def work(tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        if tasks and not scorer:
            scorer.append(Scorer(config))
        for start in range(0, len(tasks), CHUNK):
            yield from scorer[0](tasks[start : start + CHUNK])

    return work


def on_ray(config: ScoringConfig, workers: int) -> Work:
    """Scores in `workers` Ray actors; wavs must lie where all of them see them."""

    def work(tasks: Sequence[Task]) -> Iterator[tuple[int, dict[str, Any]]]:
        if not tasks:
            return
        import ray
        from ray.util import ActorPool

        gpus = 1.0 if config.device.startswith("cuda") else 0.0
        told: dict[str, Any] = {
            "num_cpus": config.threads,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": malloc.KEEP_FREED_MEMORY_ENV},
        }
        actor: Any = ray.remote(**told)(Scorer)
        actors = [actor.remote(config) for _ in range(min(workers, -(-len(tasks) // CHUNK)))]
        pool: Any = ActorPool(actors)
        chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
        try:
            for results in pool.map_unordered(lambda one, chunk: one.__call__.remote(chunk), chunks):
                yield from results
        except ray.exceptions.RayTaskError as error:
            # A worker that cannot load what the user named: one line, without the worker's traceback.
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise
        for one in actors:
            ray.kill(one)

    return work


def score_outputs(
    outputs: Sequence[SystemOutput],
    protocol: str,
    config: ScoringConfig,
    cache: ScoreCache,
    work: Work,
    advance: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """One row an output, in order: id, group, language, text, seed, wav, status, detail, seconds, rate, hypothesis,
    errors (official and strict), similarity, dnsmos, emotion (wanted, level, heard, probability).

    `status` is ok, failed (the system said so), missing, unreadable, empty, silent, not_numbers or too_long. Values are
    None where there is nothing to measure.
    """
    found: list[dict[str, Any]] = [{} for _ in outputs]
    keys: list[dict[str, str]] = [{} for _ in outputs]
    hashes: dict[Path, str | None] = {}
    tasks = []
    for index, output in enumerate(outputs):
        audio = None if output.failure else content_hash(output.wav)
        if audio is None:
            problem = "failed" if output.failure else "missing"
            detail = output.failure or f"{output.wav.name} is not there"
            found[index]["audio"] = {"seconds": 0.0, "rate": 0, "problem": problem, "detail": detail}
            advance(1)
            continue
        reference = output.utterance.reference
        if reference is not None and reference not in hashes:
            hashes[reference] = content_hash(reference)
        reference_hash = hashes[reference] if reference is not None else None
        keys[index] = _keys(output, protocol, config, audio, reference_hash)
        missing = []
        for metric, key in keys[index].items():
            there, value = cache.get(key)
            if there:
                found[index][metric] = value
            elif metric != "errors":
                missing.append(metric)
        if missing and not (found[index].get("audio") or {}).get("problem"):
            place = str(reference or "")
            tasks.append(
                Task(index, str(output.wav), output.utterance.language, place, reference_hash or "", tuple(missing))
            )
        else:
            advance(1)
    for index, values in work(tasks):
        found[index] |= values
        cache.put([(keys[index][metric], value) for metric, value in values.items()])
        advance(1)
    rows = []
    for index, output in enumerate(outputs):
        if "errors" not in found[index] and "transcript" in found[index]:
            one = output.utterance
            counted = error_rates.score(found[index]["transcript"], one.text, one.language, protocol).to_plain()
            found[index]["errors"] = counted
            cache.put([(keys[index]["errors"], counted)])
        rows.append(_row(output, found[index]))
    return rows


def _keys(
    output: SystemOutput, protocol: str, config: ScoringConfig, audio: str, reference_hash: str | None
) -> dict[str, str]:
    one = output.utterance
    keys = {"audio": score_key(audio=audio, text="", metric="audio", model="1", normaliser="")}
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
            normaliser=NORMALISER_VERSION,
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


def _row(output: SystemOutput, found: dict[str, Any]) -> dict[str, Any]:
    one, audio = output.utterance, found["audio"]
    return {
        "id": one.id,
        "group": one.group,
        "language": one.language,
        "text": one.text,
        "seed": output.seed,
        "wav": str(output.wav),
        "description": one.description,
        "reference": str(one.reference) if one.reference else None,
        "status": audio["problem"] or "ok",
        "detail": audio["detail"],
        "seconds": audio["seconds"],
        "rate": audio["rate"],
        "hypothesis": found.get("transcript"),
        "errors": found.get("errors"),
        "similarity": found.get("similarity"),
        "dnsmos": found.get("dnsmos"),
        "emotion": _emotion(one, found.get("emotion")),
    }


def _emotion(one: Utterance, heard: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if heard is None else {"wanted": one.emotion, "level": one.emotion_level, **heard}
