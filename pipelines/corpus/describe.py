"""Descriptions of the kept clips: Ray actors that write, threads that ask an endpoint, or Ray Data's LLM processors.

Replies are kept in OUT, those of a bucket in one file once its clips are described. An endpoint has one client for all
threads, so that its rate limit, its budget and its failures are counted once.
"""

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from annotation.descriptions.captions import given_description
from annotation.descriptions.config import DescriptionsConfig
from annotation.descriptions.described import DescribedClip, Descriptions
from annotation.descriptions.describer import Describer
from annotation.descriptions.questions import PARAPHRASE, PROMPTS
from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip
from pipelines.corpus.figures import VerdictCounts
from pipelines.corpus.labels import evidence_of
from voxmill.core.assets import asset_path
from voxmill.core.audio import RATE_16K, decode_flac, resample
from voxmill.core.local_ray.tasks import map_actors
from voxmill.data.layout import bucket_name
from voxmill.data.records import Description
from voxmill.data.shards import read_member
from voxmill.llm.batch_chat import BatchUsage
from voxmill.llm.reply_cache import ReplyCache

if TYPE_CHECKING:
    from voxmill.llm.chat_endpoint import ChatEndpoint
    from voxmill.llm.embedded_llm import EmbeddedLlm

CLIPS_A_TASK = 256


class DescriptionJob:
    """Writes descriptions of one bucket's clips after another; an endpoint's budget is that of all of them.

    Args:
        workers: processes of a writer that runs here; 1 for a caller that is such a process itself.
    """

    def __init__(self, out: Path, config: AnnotateConfig, workers: int):
        self.out, self.rule, self.workers = out, config.corpus_labels.descriptions, workers
        self._wanted = "descriptions" in config.corpus_labels.labels
        self._concurrent_requests = config.run.concurrent_requests
        self._batch_usage = BatchUsage()
        self._chat: ChatEndpoint | None = None
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    @property
    def usage(self) -> Mapping[str, float] | None:
        """What asking took; None where nobody was asked."""
        if self.rule.writer == "processor":
            return dataclasses.asdict(self._batch_usage)
        return None if self._chat is None else dataclasses.asdict(self._chat.usage)

    def describe(self, rows: list[CorpusClip], bucket: int, reasons: Sequence[str] | None = None) -> None:
        """Adds descriptions to the clips of a bucket and counts.

        Args:
            reasons: why a clip is left without any but its caption, "" for one that is not; None: all are described.

        Raises:
            JobError: the endpoint is down, refuses the key, or the budget is spent. No answer is paid for twice.
        """
        if not self._wanted or not rows:
            return
        for row, reason in zip(rows, reasons or [""] * len(rows), strict=True):
            row.descriptions = self._captions(row)
            self.counts[reason or "described"] += 1
        rows = [row for row, reason in zip(rows, reasons or [""] * len(rows), strict=True) if not reason]
        rule, replies = self.rule, self.out / "work" / "replies"
        # Older versions kept the replies of all buckets side by side.
        cache = ReplyCache(replies / bucket_name(bucket), older=replies)
        if rule.writer == "processor":
            from pipelines.corpus.describe_with_ray import describe_in_rounds

            clips = (_clip(row, self.out, rule.send_audio) for row in rows)
            results = describe_in_rounds(clips, rule, cache, self.counts, self._batch_usage)
        elif rule.writer == "endpoint":
            results = self._ask(rows, cache)
        else:
            results = _write(rows, self.out, rule, cache, self.workers, self.counts)
        for row, result in zip(rows, results, strict=True):
            row.descriptions = (*row.descriptions, *result.kept)
            self.dropped.update(item.reason for item in result.dropped)
        cache.merge()

    def _captions(self, row: CorpusClip) -> tuple[Description, ...]:
        """The caption that the corpus brings, verified; one that fails is counted with the other dropped texts."""
        if row.given is None or row.given.caption is None:
            return ()
        evidence = evidence_of(row, of_caption=True)
        description, problem = given_description(row.given.caption, evidence, self.rule.verification)
        self.counts["given" if description is not None else "given_dropped"] += 1
        if description is None:
            self.dropped[problem] += 1
            return ()
        return (description,)

    def _ask(self, rows: list[CorpusClip], cache: ReplyCache) -> Iterator[Descriptions]:
        if self._chat is None:
            self._chat = _endpoint(self.rule)
        chat, own = self._chat, threading.local()
        describers: list[Describer] = []

        def one(row: CorpusClip) -> Descriptions:
            if not hasattr(own, "describer"):
                own.describer = Describer(self.rule, chat=chat, cache=cache)
                describers.append(own.describer)
            result: Descriptions = own.describer(_clip(row, self.out, self.rule.send_audio))
            return result

        with ThreadPoolExecutor(self._concurrent_requests) as pool:
            try:
                yield from pool.map(one, rows)
            finally:
                pool.shutdown(cancel_futures=True)
        for describer in describers:
            self.counts.update(describer.counts)


def _endpoint(rule: DescriptionsConfig) -> "ChatEndpoint":
    """The client of the endpoint that writes, by its protocol."""
    from voxmill.llm.chat_endpoint import ChatEndpoint
    from voxmill.llm.gemini_endpoint import GeminiEndpoint

    config = rule.endpoint if rule.reply == "json" else rule.endpoint.model_copy(update={"json_mode": False})
    return GeminiEndpoint(config) if rule.protocol == "gemini" else ChatEndpoint(config)


def count_verdicts(rows: Iterable[CorpusClip]) -> dict[str, int]:
    """How many claims passed, failed, abstained and have no judge, by `language/attribute/verdict`."""
    return dict(
        Counter(
            f"{description.language}/{verdict.attribute}/{verdict.verdict}"
            for row in rows
            for description in row.descriptions
            for verdict in description.verdicts
        )
    )


def verdict_table(counts: Mapping[str, int]) -> list[VerdictCounts]:
    """The same as a row a language and attribute."""
    keys = sorted({(language, attribute) for language, attribute, _ in (key.split("/") for key in counts)})
    return [
        {
            "language": language,
            "attribute": attribute,
            "pass": counts.get(f"{language}/{attribute}/pass", 0),
            "fail": counts.get(f"{language}/{attribute}/fail", 0),
            "abstain": counts.get(f"{language}/{attribute}/abstain", 0),
            "unjudged": counts.get(f"{language}/{attribute}/unjudged", 0),
        }
        for language, attribute in keys
    ]


def _clip(row: CorpusClip, out: Path, send_audio: bool) -> DescribedClip:
    audio = None
    if send_audio:
        flac = read_member(out, row.place.shard, row.place.offset, row.place.size)
        audio = resample(*decode_flac(flac), RATE_16K)
    return DescribedClip(row.clip_id, row.candidate.language, evidence_of(row), audio, row.candidate.text)


class _Writer:
    """One describer, in a process of its own where there is much to write."""

    def __init__(self, rule: DescriptionsConfig, cache: ReplyCache):
        rewriter = _rewriter(rule.embedded.model_dump_json()) if rule.writer == "embedded" else None
        self.describer = Describer(rule, rewriter=rewriter, cache=cache)

    def write(self, clips: list[DescribedClip]) -> tuple[list[Descriptions], Counter[str]]:
        self.describer.counts.clear()
        return [self.describer(clip) for clip in clips], Counter(self.describer.counts)


@lru_cache(maxsize=1)
def _rewriter(embedded: str) -> "EmbeddedLlm":
    """The one of this process: its model is loaded once for all buckets. `embedded`: the configuration as JSON."""
    from voxmill.llm.embedded_llm import EmbeddedLlm, EmbeddedLlmConfig
    from voxmill.llm.prompt_files import read_prompt

    config = EmbeddedLlmConfig.model_validate_json(embedded)
    weights = asset_path("smollm2-135m") if config.model == "embedded" else None
    return EmbeddedLlm(config, read_prompt(PROMPTS, PARAPHRASE), weights)


def _write(
    rows: list[CorpusClip],
    out: Path,
    rule: DescriptionsConfig,
    cache: ReplyCache,
    workers: int,
    counts: Counter[str],
) -> Iterator[Descriptions]:
    chunks = [rows[i : i + CLIPS_A_TASK] for i in range(0, len(rows), CLIPS_A_TASK)]
    undone = [[_clip(row, out, send_audio=False) for row in chunk] for chunk in chunks]
    if workers == 1 or (rule.writer == "template" and len(undone) == 1):
        # The grammar writes a few clips faster than Ray starts a process.
        writer = _Writer(rule, cache)
        for chunk in undone:
            results, counted = writer.write(chunk)
            counts.update(counted)
            yield from results
        return
    options = {"num_cpus": 1, "max_restarts": 2, "max_task_retries": 2}
    pool = map_actors(_Writer, (rule, cache), "write", undone, count=workers, ordered=True, **options)
    for results, counted in pool:
        counts.update(counted)
        yield from results
