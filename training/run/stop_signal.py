"""Stopping a run from outside: a signal asks for it, the training loop saves between two steps and returns."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class StopSignal:
    """While entered, `signals` (SIGTERM alone by default) set it instead of ending the process.

    Python allows handlers in the main thread only. Under Ray Train, which runs a rank in another one, it is not
    entered: the launcher calls `set`.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._signals = signals or (signal.SIGTERM,)
        self._before: dict[signal.Signals, Handler] = {}
        self.is_set = False
        """Whether this process was asked to stop; the other ranks learn it from `World.any`."""

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._handle) for number in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def set(self) -> None:
        """Asks the run to stop, from any thread."""
        self.is_set = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.set()
