"""Evaluates systems on a benchmark (report section 4): they speak, are scored, compared, and logged to MLflow.

    voxmill evaluate BENCHMARK... --system NAME=KIND:REST --out OUT [config.yaml] [key=value ...]
    ray job submit --working-dir . -- python evaluation/evaluate.py BENCHMARK... --system NAME=KIND:REST --out OUT

`voxmill evaluate benchmark --help` describes both, which are one command.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from voxmill.cli.app import script

    script("evaluate")

import datetime
import importlib.util
import os
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from evaluation.benchmarks import read_benchmark
from evaluation.benchmarks.benchmark import Benchmark, Utterance
from evaluation.config import EvaluateConfig
from evaluation.metrics.emotion_accuracy import classifier_name
from evaluation.metrics.normalisation import NORMALISER_VERSION, normaliser_of
from evaluation.metrics.score_cache import ScoreCache
from evaluation.metrics.scoring import Work, in_process, on_ray, score_outputs
from evaluation.metrics.similarity import encoder_name
from evaluation.metrics.speech_recognition import recogniser_name
from evaluation.metrics.utterance_score import UtteranceScore
from evaluation.results.comparison import counts_of, scores_of, verdicts_of
from evaluation.results.notes import skipped_lines, without_score
from evaluation.results.records import Outcome, Run, write_results
from evaluation.systems import read_system
from evaluation.systems.base import System, SystemOutput, identity_of, speech_folder
from voxmill.core.errors import JobError, UserError
from voxmill.core.local_copies import WorkingFolder
from voxmill.core.local_ray import join_ray
from voxmill.core.progress import Progress

# Libraries of the `evaluate` extra, without which nothing here works.
EXTRA = ("mlflow", "zhon")
VERSIONS = ("voxmill", "faster-whisper", "jiwer", "mlflow", "numpy", "scipy", "speechmos", "torch")


def evaluate(benchmarks: list[str], systems: list[str], out: Path, config: EvaluateConfig) -> Outcome:
    """Runs the whole comparison, writes the reports under `out` and returns what they show.

    Args:
        benchmarks: KIND:PATH each. systems: NAME=KIND:REST each.
        out: in object storage it is fetched to this machine's scratch folder, and uploaded after every system on every
            benchmark and at the end, whatever it is.

    Raises:
        UserError: a benchmark, system or model that cannot be used. JobError: the machine or a service failed.
    """
    files = WorkingFolder(out)
    files.fetch()
    try:
        return _evaluate(benchmarks, systems, files, config)
    finally:
        files.push()
        files.close()


def _evaluate(benchmarks: list[str], systems: list[str], files: WorkingFolder, config: EvaluateConfig) -> Outcome:
    out = files.local
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"evaluation needs {', '.join(missing)}; run: pip install voxmill[evaluate]")
    from evaluation.results.mlflow_runs import track
    from evaluation.results.report import write_reports

    read = [_limited(read_benchmark(named), config.limit) for named in benchmarks]
    doubled = [one.name for one in read if sum(other.name == one.name for other in read) > 1]
    if doubled:
        raise UserError(f"{doubled[0]} is named twice; run it twice, or name the folder that holds both")
    # A weight file that is missing is reported before any system speaks.
    encoder_name(config.scoring.similarity)
    used = [read_system(named, device=config.device, workers=config.synthesis_workers) for named in systems]
    if len({system.name for system in used}) < len(used):
        raise UserError("two systems have one name; give each --system a NAME of its own")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made ({error.strerror}); name another OUT") from None
    cache = ScoreCache(out / "cache" / "scores.sqlite")
    work = _work(config, files)
    runs: list[Run] = []
    problems: list[str] = []
    notes = [system.covered() for system in used if system.covered()]
    for benchmark in read:
        digest = benchmark.fingerprint()
        notes += skipped_lines(benchmark)
        for system in used:
            run, spoken_before = _run(benchmark, digest, system, out, config, cache, work, problems)
            runs.append(run)
            notes += [f"{run.system} on {benchmark.name}: {spoken_before} spoken before, used again"] * bool(
                spoken_before
            )
            notes += without_score(run)
            if not run.counts["ok"]:
                problems.append(
                    f"{run.system} on {benchmark.name}: none of {len(run.utterances)} utterances has a score"
                )
            files.push()
    outcome = Outcome(
        out=out,
        runs=tuple(runs),
        scores=tuple(score for run in runs for score in scores_of(run.benchmark.name, run.system, run.utterances)),
        verdicts=tuple(verdicts_of({(run.benchmark.name, run.system): run.utterances for run in runs})),
        problems=tuple(problems),
        notes=tuple(notes),
        config=config,
        versions={name: version(name) for name in VERSIONS} | {"normaliser": NORMALISER_VERSION},
        cached=cache.hits,
        computed=cache.misses,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - clock,
    )
    cache.close()
    write_results(outcome)
    write_reports(outcome)
    if config.tracking.enabled:
        problem = track(outcome, config.tracking)
        if problem:
            # The report has it too, so both are written again.
            outcome = replace(outcome, problems=(*outcome.problems, problem))
            write_results(outcome)
            write_reports(outcome)
    return outcome


def _limited(benchmark: Benchmark, limit: int | None) -> Benchmark:
    """The first `limit` utterances of each group."""
    if limit is None:
        return benchmark
    taken: dict[str, int] = {}
    kept: list[Utterance] = []
    for one in benchmark.utterances:
        taken[one.group] = taken.get(one.group, 0) + 1
        if taken[one.group] <= limit:
            kept.append(one)
    return replace(benchmark, utterances=tuple(kept))


def _work(config: EvaluateConfig, files: WorkingFolder) -> Work:
    in_job = "RAY_ADDRESS" in os.environ or "RAY_JOB_ID" in os.environ
    if config.workers == 0 or (config.workers is None and not in_job):
        return in_process(config.scoring)
    import ray

    if not ray.is_initialized():
        join_ray()
    if files.is_remote and len(ray.nodes()) > 1:  # type: ignore[no-untyped-call]
        raise UserError(
            f"{files.out}: workers on other nodes do not see this machine's scratch folder; set workers=0, or name an "
            "--out on a mount that every node sees"
        )
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = int(resources.get("CPU", 1)) // config.scoring.threads
    return on_ray(config.scoring, config.workers or max(cpus, 1))


def _run(
    benchmark: Benchmark,
    digest: str,
    system: System,
    out: Path,
    config: EvaluateConfig,
    cache: ScoreCache,
    work: Work,
    problems: list[str],
) -> tuple[Run, int]:
    """One system on one benchmark: speech, scores, verdicts of the judge. And how many wavs were spoken before."""
    clock = time.perf_counter()
    progress = Progress(config.progress, file=sys.stderr)
    outputs: list[SystemOutput] = []
    spoken_before = 0
    for seed in config.seeds if system.takes_seed else config.seeds[:1]:
        folder = speech_folder(out, system, seed)
        paths = [system.path_of(folder, one) for one in benchmark.utterances]
        spoken_before += sum(path.exists() for path in paths if path.is_relative_to(folder))
        failed: dict[str, str] = {}
        try:
            for failure in system.speak(benchmark.utterances, folder, seed):
                failed[failure.utterance.id] = failure.reason
        except JobError as error:
            # What was spoken is scored; what was not is missing, and the run reports why.
            problems.append(f"{system.name} on {benchmark.name}: {error}")
        outputs += [
            SystemOutput(utterance=one, wav=system.path_of(folder, one), failure=failed.get(one.id), seed=seed)
            for one in benchmark.utterances
        ]
    speaking = time.perf_counter() - clock
    with progress.stage(f"{system.name} on {benchmark.name}", len(outputs), "utterances") as bar:
        utterances = score_outputs(outputs, benchmark.protocol, config.scoring, cache, work, bar.advance)
    if config.judge.endpoint.model and any(one.description for one in benchmark.utterances):
        utterances = _judge(utterances, out, config, progress, problems)
    models = {"similarity": encoder_name(config.scoring.similarity).name, "dnsmos": "DNSMOS P.835 (speechmos)"}
    languages = sorted({one.language for one in benchmark.utterances})
    recognisers = {recogniser_name(config.scoring.recognition, language).name for language in languages}
    models["recognition"] = ", ".join(sorted(recognisers))
    models["strict mode"] = "; ".join(sorted({normaliser_of(language) for language in languages}))
    if any(one.emotion for one in benchmark.utterances):
        models["emotion"] = classifier_name(config.scoring.emotion).name
    if config.judge.endpoint.model:
        models["judge"] = config.judge.endpoint.model
    run = Run(
        benchmark=benchmark,
        dataset_sha256=digest,
        system=system.name,
        identity=identity_of(system),
        models=models,
        utterances=tuple(utterances),
        counts=counts_of(utterances),
        seconds_speaking=speaking,
        seconds=time.perf_counter() - clock,
    )
    return run, spoken_before


def _judge(
    utterances: list[UtteranceScore], out: Path, config: EvaluateConfig, progress: Progress, problems: list[str]
) -> list[UtteranceScore]:
    """The scores with a verdict on each that has an instruction."""
    from evaluation.metrics.instruction_judge import InstructionJudge
    from voxmill.llm.reply_cache import DAMAGED

    judge = InstructionJudge(config.judge, out / "judge")
    cases = [(one.description, one.wav if one.status == "ok" else None) for one in utterances if one.description]
    with progress.stage("judging", len(cases), "utterances") as bar:
        verdicts = iter(judge(cases, bar.advance))
    if judge.problem:
        problems.append(f"the judge: {judge.problem}")
    if judge.counts[DAMAGED]:
        problems.append(f"the judge: {judge.counts[DAMAGED]} stored replies are damaged, see {out / 'judge'}")
    return [replace(one, instruction=next(verdicts)) if one.description else one for one in utterances]
