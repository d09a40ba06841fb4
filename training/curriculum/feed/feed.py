"""What a rank trains on, ready before it asks: planned by the node's planning process, read by threads of its own.

The state is that of the step which was taken last, not of what is ready or on its way: nothing is lost or comes twice
when a run resumes. After a quarantine planning goes on from that state, so that what was ready with a clip that is not
used any more is planned anew, in any world.
"""

import dataclasses
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from model.sequence.packing import PackedBatch
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.feed.planner import PlanInputs
from training.curriculum.feed.planning_process import PlanningProcess, Unusable
from training.curriculum.plan_arrays import drawn_streams, plan_arrays, settings_of_plan, unusable
from training.curriculum.recipe import Recipe
from training.curriculum.row_plan import SampleStreamState, Share, shares_of
from training.curriculum.sample_draws import DrawnStream
from training.curriculum.sample_reader import SampleReader
from training.curriculum.shard_cache import cache_of
from training.curriculum.step import Row, build_rows
from training.run.world import World

LOOK_SECONDS = 0.1
"""How often a thread with finished batches looks whether it is to end."""


@dataclass(frozen=True, slots=True)
class FeedStep:
    """This rank's part of a step, and the state after it.

    read_seconds: that reading took. plan_seconds: CPU of the planning process since the step before.
    """

    rows: list[Row]
    unreadable: list[int]
    state: SampleStreamState
    read_seconds: float
    plan_seconds: float


class Feed:
    """Batches of the steps of a run; all ranks make one together, and call each method together."""

    def __init__(self, corpus: Corpus, recipe: Recipe, tokenizer: TextTokenizer, world: World) -> None:
        self.corpus, self.recipe, self.world = corpus, recipe, world
        self.reader = SampleReader(
            corpus,
            tokenizer,
            max_positions=recipe.max_positions,
            threads=recipe.feed.threads,
            cache=cache_of(recipe.feed),
        )
        self._planner = PlanningProcess(world)
        self._streams: list[DrawnStream] = []
        inputs = None
        if self._planner.leads:
            self._streams = drawn_streams(corpus, recipe)
            arrays, settings = plan_arrays(corpus), settings_of_plan(recipe)
            inputs = PlanInputs(self._streams, arrays, settings, world.size, self._planner.here)
        self._state = self._planner.start(inputs)
        self._ready: queue.Queue[FeedStep | BaseException] = queue.Queue(recipe.feed.ahead)
        self._thread: threading.Thread | None = None
        self._is_ending = threading.Event()

    @property
    def step(self) -> int:
        """Steps that were taken."""
        return self._state.step

    @property
    def quarantined(self) -> tuple[int, ...]:
        """Clips that are not used any more."""
        return self._state.quarantined

    @property
    def skipped(self) -> Counter[str]:
        """Samples that could not be used, by reason."""
        return Counter(self._state.skipped)

    def state(self) -> SampleStreamState:
        """What `restore` takes: after the step that was taken last."""
        return self._state

    def shares(self) -> dict[str, Share]:
        """Shares of the seconds drawn so far, by stream, mode and language; on the first rank."""
        return shares_of(self._streams, self._state.mixture)

    def next_step(self) -> FeedStep:
        """This rank's part of the next step; waits where it is not ready.

        Raises:
            UserError: no sample of a stream can be used. OSError: storage cannot be read. JobError: the planning
            process has ended.
        """
        if self._thread is None:
            self._is_ending = threading.Event()
            self._thread = threading.Thread(
                target=self._read_ahead, args=(self.step, self._is_ending), name="feed", daemon=True
            )
            self._thread.start()
        found = self._ready.get()
        if isinstance(found, BaseException):
            self._thread = None
            raise found
        self._state = found.state
        return found

    def quarantine(self, clips: Iterable[int]) -> None:
        """Uses these clips no more, not as a reference either, from the next step on."""
        self._stop()
        self._state = self._planner.restart(self._state, tuple(sorted(clips)))

    def restore(self, state: SampleStreamState) -> None:
        """Continues from `state`, in any world.

        Raises:
            UserError: data or recipe changed since.
        """
        self._stop()
        self._state = self._planner.restart(state)

    def close(self) -> None:
        """Ends threads and the planning process."""
        self._stop()
        self.reader.close()
        self._planner.close()

    def _stop(self) -> None:
        """Ends reading ahead, and drops what is ready."""
        if self._thread is None:
            return
        self._is_ending.set()
        self._thread.join()
        self._thread = None
        while not self._ready.empty():
            self._ready.get()

    def _read_ahead(self, first: int, is_ending: threading.Event) -> None:
        """Makes the steps from `first` on ready."""
        cpu = None
        try:
            for step in range(first, self.recipe.steps):
                planned = self._planner.rows(step)
                if planned is None or is_ending.is_set():
                    return
                began = time.perf_counter()
                rows, missing = build_rows(planned.rows, self.reader)
                if self.world.device.type == "cuda":
                    for row in rows:
                        row.batch = None if row.batch is None else pinned(row.batch)
                found = FeedStep(
                    rows,
                    missing,
                    planned.state,
                    time.perf_counter() - began,
                    planned.cpu - (planned.cpu if cpu is None else cpu),
                )
                cpu = planned.cpu
                if not self._put(found, is_ending):
                    return
        except Unusable as error:
            self._put(unusable(error.examples, self.corpus), is_ending)
        except BaseException as error:  # the step raises it
            self._put(error, is_ending)

    def _put(self, found: FeedStep | BaseException, is_ending: threading.Event) -> bool:
        while not is_ending.is_set():
            try:
                self._ready.put(found, timeout=LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False


def pinned(batch: PackedBatch) -> PackedBatch:
    """The same in memory from which a GPU copies while it computes."""
    return dataclasses.replace(
        batch,
        tokens_N=batch.tokens_N.pin_memory(),
        audio_APD=batch.audio_APD.pin_memory(),
        audio_at_A=batch.audio_at_A.pin_memory(),
        target_GPD=batch.target_GPD.pin_memory(),
        condition_GPD=batch.condition_GPD.pin_memory(),
        source_G=batch.source_G.pin_memory(),
        stop_G=batch.stop_G.pin_memory(),
    )
