"""Descriptions of the kept clips: Ray actors that write, threads that ask an endpoint, or Ray Data's LLM processors.

Replies are kept in OUT. An endpoint has one client for all threads, so that its rate limit, its budget and its failures
are counted once.
"""

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from annotation.descriptions.describer import (
    PARAPHRASE,
    PROMPTS,
    DescribedClip,
    Describer,
    Descriptions,
    DescriptionsConfig,
)
from annotation.descriptions.verification import Evidence
from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.figures import DescriptionFigures, VerdictCounts
from pipelines.corpus.labels import class_probabilities
from voxmill.core.assets import asset_path
from voxmill.core.audio import RATE_16K, decode_flac, resample
from voxmill.core.local_ray import map_actors
from voxmill.core.progress import Progress
from voxmill.data.shards import read_member
from voxmill.llm.batch_chat import BatchUsage

CLIPS_A_TASK = 256


def describe(
    rows: list[CorpusClip], out: Path, config: AnnotateConfig, workers: int, progress: Progress
) -> DescriptionFigures:
    """Adds descriptions to every clip; returns figures for the report.

    Raises:
        JobError: the endpoint is down, refuses the key, or the budget is spent. No answer is paid for twice.
    """
    rule = config.corpus_labels.descriptions
    if "descriptions" not in config.corpus_labels.labels or not rows:
        return {}
    began = time.perf_counter()
    counts: Counter[str] = Counter()
    batch_usage = BatchUsage()
    figures: DescriptionFigures = {"writer": rule.writer}
    dropped: Counter[str] = Counter()
    with progress.stage("Describing", len(rows), "clips") as bar:
        if rule.writer == "processor":
            from pipelines.corpus.describe_with_ray import describe_in_rounds

            clips = (_clip(row, out, rule.send_audio) for row in rows)
            results = describe_in_rounds(clips, rule, _cache(out), counts, batch_usage)
        elif rule.writer == "endpoint":
            results = _ask(rows, out, rule, config.run.concurrent_requests, counts, figures)
        else:
            results = _write(rows, out, rule, workers, counts)
        for row, result in zip(rows, results, strict=True):
            row.descriptions = result.kept
            dropped.update(item.reason for item in result.dropped)
            bar.advance(1)
    if rule.writer == "processor":
        figures["usage"] = dataclasses.asdict(batch_usage)
    figures |= {
        "seconds": time.perf_counter() - began,
        "counts": dict(sorted(counts.items())),
        "dropped": dict(dropped.most_common()),
        "verdicts": _verdicts(rows),
    }
    return figures


def _clip(row: CorpusClip, out: Path, send_audio: bool) -> DescribedClip:
    audio = None
    if send_audio:
        flac = read_member(out, row.place.shard, row.place.offset, row.place.size)
        audio = resample(*decode_flac(flac), RATE_16K)
    evidence = Evidence(row.facts, class_probabilities(row))
    return DescribedClip(row.clip_id, row.candidate.language, evidence, audio)


def _ask(
    rows: list[CorpusClip],
    out: Path,
    rule: DescriptionsConfig,
    concurrent_requests: int,
    counts: Counter[str],
    figures: DescriptionFigures,
) -> Iterator[Descriptions]:
    from voxmill.llm.chat_endpoint import ChatEndpoint

    chat, own = ChatEndpoint(rule.endpoint), threading.local()
    describers: list[Describer] = []

    def one(row: CorpusClip) -> Descriptions:
        if not hasattr(own, "describer"):
            own.describer = Describer(rule, chat=chat, cache=_cache(out))
            describers.append(own.describer)
        result: Descriptions = own.describer(_clip(row, out, rule.send_audio))
        return result

    with ThreadPoolExecutor(concurrent_requests) as pool:
        try:
            yield from pool.map(one, rows)
        finally:
            pool.shutdown(cancel_futures=True)
    for describer in describers:
        counts.update(describer.counts)
    figures["usage"] = dataclasses.asdict(chat.usage)


class _Writer:
    """One describer, in a process of its own where there is much to write."""

    def __init__(self, rule: DescriptionsConfig, cache: Path):
        rewriter = None
        if rule.writer == "embedded":
            from voxmill.llm.embedded_llm import EmbeddedLlm
            from voxmill.llm.prompt_files import read_prompt

            weights = asset_path("smollm2-135m") if rule.embedded.model == "embedded" else None
            rewriter = EmbeddedLlm(rule.embedded, read_prompt(PROMPTS, PARAPHRASE), weights)
        self.describer = Describer(rule, rewriter=rewriter, cache=cache)

    def write(self, clips: list[DescribedClip]) -> tuple[list[Descriptions], Counter[str]]:
        self.describer.counts.clear()
        return [self.describer(clip) for clip in clips], Counter(self.describer.counts)


def _write(
    rows: list[CorpusClip], out: Path, rule: DescriptionsConfig, workers: int, counts: Counter[str]
) -> Iterator[Descriptions]:
    cache = _cache(out).resolve()
    chunks = [rows[i : i + CLIPS_A_TASK] for i in range(0, len(rows), CLIPS_A_TASK)]
    undone = [[_clip(row, out, send_audio=False) for row in chunk] for chunk in chunks]
    if rule.writer == "template" and len(undone) == 1:
        # The grammar writes a few clips faster than Ray starts a process.
        results, counted = _Writer(rule, cache).write(undone[0])
        counts.update(counted)
        yield from results
        return
    options = {"num_cpus": 1, "max_restarts": 2, "max_task_retries": 2}
    pool = map_actors(_Writer, (rule, cache), "write", undone, count=workers, ordered=True, **options)
    for results, counted in pool:
        counts.update(counted)
        yield from results


def _cache(out: Path) -> Path:
    return out / "work" / "replies"


def _verdicts(rows: list[CorpusClip]) -> list[VerdictCounts]:
    """How many claims passed, failed and abstained, by language of the text and attribute."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for description in row.descriptions:
            for verdict in description.verdicts:
                counts[description.language, verdict.attribute, verdict.verdict] += 1
    return [
        {
            "language": language,
            "attribute": attribute,
            "pass": counts[language, attribute, "pass"],
            "fail": counts[language, attribute, "fail"],
            "abstain": counts[language, attribute, "abstain"],
        }
        for language, attribute in sorted({key[:2] for key in counts})
    ]
