"""Evaluates systems on a benchmark (report section 4): they speak, are scored, compared, and logged to MLflow.

    python evaluation/evaluate.py BENCHMARK [BENCHMARK ...] --system NAME=KIND:REST [--system ...] --out OUT
                                  [--sim wavlm=PATH|eres2net=PATH] [config.yaml] [key=value ...]
    ray job submit --working-dir . -- python evaluation/evaluate.py ...

BENCHMARK is KIND:PATH: seed-tts-eval:FILE, cv3-eval:FOLDER, minimax-mls:FOLDER, instruct-tts-eval:FILE,
thirty-languages:FOLDER, texts:FILE.jsonl. Systems: checkpoint:FOLDER[#RECIPE], wavs:FOLDER, command:LINE,
speech:URL#MODEL/VOICE. --sim names the weights of a published speaker encoder. OUT gets report.html, report.md, results.json, scores/*.jsonl, wavs/ and, unless
MLFLOW_TRACKING_URI says otherwise, mlflow.db. The same command goes on after a crash and computes nothing twice.
Exit status: 0 done, 1 failed, 2 the user's mistake.
"""

import argparse
import datetime
import importlib.util
import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # A script run by path has its own folder first on sys.path; the packages lie one level up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from evaluation.benchmarks import READERS, read_benchmark
from evaluation.benchmarks.benchmark import Benchmark, Utterance
from evaluation.config import EvaluateConfig
from evaluation.metrics.emotion_accuracy import classifier_name
from evaluation.metrics.normalisation import NORMALISER_VERSION
from evaluation.metrics.score_cache import ScoreCache
from evaluation.metrics.scoring import Work, in_process, on_ray, score_outputs
from evaluation.metrics.similarity import encoder_name, read_sim
from evaluation.metrics.speech_recognition import recogniser_name
from evaluation.results.comparison import Row, Score, Verdict, counts_of, scores_of, verdicts_of
from evaluation.results.records import Outcome, Run, write_results
from evaluation.systems import read_system
from evaluation.systems.base import System, SystemOutput, speech_folder
from voxmill.core.config import load_config
from voxmill.core.errors import PROGRESS_SAVED, JobError, UserError, command
from voxmill.core.local_ray import join_ray

# Libraries of the `evaluate` extra, without which nothing here works.
EXTRA = ("mlflow", "opencc", "zhon")
VERSIONS = ("voxmill", "faster-whisper", "jiwer", "mlflow", "numpy", "scipy", "speechmos", "torch")


def evaluate(benchmarks: list[str], systems: list[str], out: Path, config: EvaluateConfig) -> Outcome:
    """Runs the whole comparison and returns what the reports say.

    Raises:
        UserError: a benchmark, system or model that cannot be used. JobError: the machine cannot go on.
    """
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
    # A weight file that is not there is told before anyone speaks.
    encoder_name(config.scoring.similarity)
    used = [read_system(named, device=config.device, workers=config.speakers) for named in systems]
    if len({system.name for system in used}) < len(used):
        raise UserError("two systems have one name; give each --system a NAME of its own")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made ({error.strerror}); name another OUT") from None
    cache = ScoreCache(out / "cache" / "scores.sqlite")
    work = _work(config)
    runs: list[Run] = []
    problems: list[str] = []
    for benchmark in read:
        digest = benchmark.fingerprint()
        for system in used:
            runs.append(_run(benchmark, digest, system, out, config, cache, work, problems))
    rows: dict[tuple[str, str], list[Row]] = {(run.benchmark.name, run.system): run.rows for run in runs}
    scores: list[Score] = [score for run in runs for score in scores_of(run.benchmark.name, run.system, run.rows)]
    verdicts: list[Verdict] = verdicts_of(rows)
    outcome = Outcome(
        out=out,
        runs=runs,
        scores=scores,
        verdicts=verdicts,
        problems=problems,
        config=config.model_dump(mode="json"),
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
            problems.append(problem)
            # Told in the report too, which is written again with it.
            write_results(outcome)
            write_reports(outcome)
    return outcome


def _limited(benchmark: Benchmark, limit: int | None) -> Benchmark:
    if limit is None:
        return benchmark
    taken: dict[str, int] = {}
    kept: list[Utterance] = []
    for one in benchmark.utterances:
        taken[one.group] = taken.get(one.group, 0) + 1
        if taken[one.group] <= limit:
            kept.append(one)
    return Benchmark(benchmark.name, benchmark.protocol, tuple(kept), benchmark.malformed)


def _work(config: EvaluateConfig) -> Work:
    in_job = "RAY_ADDRESS" in os.environ or "RAY_JOB_ID" in os.environ
    if config.workers == 0 or (config.workers is None and not in_job):
        return in_process(config.scoring)
    import ray

    if not ray.is_initialized():
        join_ray()
    cpus = int(ray.cluster_resources().get("CPU", 1)) // config.scoring.threads
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
) -> Run:
    """One system on one benchmark: speech, scores, verdicts of the judge."""
    clock = time.perf_counter()
    outputs: list[SystemOutput] = []
    for seed in config.seeds if system.takes_seed else config.seeds[:1]:
        folder = speech_folder(out, system, digest, seed)
        failed: dict[str, str] = {}
        try:
            for failure in system.speak(benchmark.utterances, folder, seed):
                failed[failure.utterance.id] = failure.reason
        except JobError as error:
            # What was spoken is scored; what was not is missing, and the run says why.
            problems.append(f"{system.name} on {benchmark.name}: {error}")
        outputs += [
            SystemOutput(utterance=one, wav=system.path_of(folder, one), failure=failed.get(one.id), seed=seed)
            for one in benchmark.utterances
        ]
    speaking = time.perf_counter() - clock
    with _bar(config.progress, f"{system.name} on {benchmark.name}", len(outputs)) as advance:
        rows = score_outputs(outputs, benchmark.protocol, config.scoring, cache, work, advance)
    if "transcript" not in config.scoring.metrics:
        rows = [row | {"wants_errors": False} for row in rows]
    if config.judge.endpoint.model and any(one.description for one in benchmark.utterances):
        _judge(rows, out, config, problems)
    models = {"similarity": encoder_name(config.scoring.similarity).name, "dnsmos": "DNSMOS P.835 (speechmos)"}
    languages = sorted({one.language for one in benchmark.utterances})
    heard = {recogniser_name(config.scoring.recognition, language).name for language in languages}
    models["recognition"] = ", ".join(sorted(heard))
    if any(one.emotion for one in benchmark.utterances):
        models["emotion"] = classifier_name(config.scoring.emotion).name
    if config.judge.endpoint.model:
        models["judge"] = config.judge.endpoint.model
    return Run(
        benchmark=benchmark,
        dataset_sha256=digest,
        system=system.name,
        identity=system.identity(),
        models=models,
        rows=rows,
        counts=counts_of(rows),
        seconds_speaking=speaking,
        seconds=time.perf_counter() - clock,
    )


def _judge(rows: list[Row], out: Path, config: EvaluateConfig, problems: list[str]) -> None:
    from evaluation.metrics.instruction_judge import Judge

    judge = Judge(config.judge, out / "judge")
    asked = [row for row in rows if row["description"]]
    cases = [(row["description"], Path(row["wav"]) if row["status"] == "ok" else None) for row in asked]
    with _bar(config.progress, "judging", len(asked)) as advance:
        for row, verdict in zip(asked, judge(cases, advance), strict=True):
            row["followed"], row["verdict"] = verdict.followed, verdict.reason
    if judge.problem:
        problems.append(f"the judge: {judge.problem}")


def _bar(enabled: bool, name: str, total: int) -> Any:
    from voxmill.core.bar import bar

    return bar(enabled, name, total)


def parse(arguments: list[str]) -> tuple[list[str], list[str], Path, EvaluateConfig]:
    """(benchmarks, systems, OUT, configuration) of a command line.

    Raises:
        UserError: something missing or unknown in it.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("items", nargs="*")
    parser.add_argument("--system", action="append", default=[])
    parser.add_argument("--out", "-o", type=Path)
    parser.add_argument("--sim", action="append", default=[])
    try:
        options = parser.parse_intermixed_args(arguments)
    except (argparse.ArgumentError, SystemExit) as error:
        raise UserError(f"{error}; see --help") from None
    kinds = re.compile(rf"({'|'.join(READERS)}):")
    benchmarks = [item for item in options.items if kinds.match(item)]
    files = [item for item in options.items if item.endswith((".yaml", ".yml")) and item not in benchmarks]
    settings = [item for item in options.items if "=" in item and item not in benchmarks + files]
    rest = [item for item in options.items if item not in benchmarks + files + settings]
    if rest:
        raise UserError(f"{rest[0]!r} names no benchmark; write KIND:PATH with KIND one of {', '.join(READERS)}")
    if not benchmarks:
        raise UserError("no benchmark; name one, such as seed-tts-eval:seedtts_testset/en/meta.lst")
    if not options.system:
        raise UserError("no system; add --system NAME=KIND:REST, such as --system peer=wavs:outputs/")
    if options.out is None:
        raise UserError("no --out; name a folder for the report, the scores and the speech")
    if len(files) > 1:
        raise UserError(f"two configurations, {files[0]} and {files[1]}; name one")
    config = load_config(EvaluateConfig, files[0] if files else None, settings)
    if len(options.sim) > 1:
        raise UserError("two --sim; give one and run again with the other: what both have is not computed twice")
    if options.sim:
        named = read_sim(options.sim[0])
        similarity = config.scoring.similarity.model_copy(update={"encoder": named.encoder, "model": named.model})
        scoring = config.scoring.model_copy(update={"similarity": similarity})
        config = config.model_copy(update={"scoring": scoring})
    return benchmarks, options.system, options.out, config


@command("voxmill evaluate", resume_hint=PROGRESS_SAVED)
def main(arguments: list[str] | None = None) -> int:
    """The command line of the script; see the module's docstring."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    outcome = evaluate(*parse(arguments))
    print(f"{outcome.computed} scores computed, {outcome.cached} found, in {outcome.seconds:.1f} s")
    print(f"report: {outcome.out / 'report.html'}")
    for problem in outcome.problems:
        print(f"voxmill evaluate: {problem}; nothing done is lost, the same command goes on", file=sys.stderr)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
