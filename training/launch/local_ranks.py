"""Ranks of one machine as processes of this one: a signal reaches every rank, and the ranks' status is the command's.

torchrun answers SIGTERM with status 1 whatever its ranks answer, and the deepspeed launcher ends at once and leaves its
ranks running; what started them cannot tell a run that saved from one that failed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from voxmill.core.errors import ExitStatus
from voxmill.core.local_ray import free_port

POLL_SECONDS = 0.1
OTHERS_SECONDS = 30.0
"""How long the other ranks have to end by themselves once one has failed."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WELL = (ExitStatus.DONE, ExitStatus.STOPPED, -signal.SIGTERM)
"""Statuses that are no failure; SIGTERM ends a rank that still waits for the others, and loses nothing."""


def run_ranks(command: Sequence[str], count: int) -> int:
    """Runs `command` as `count` ranks, with the environment that torchrun gives, until all have ended.

    SIGTERM, SIGINT and SIGHUP are passed on to all of them. It must be called in the main thread.

    Returns:
        The status of the first rank that failed (1 for one that another signal than SIGTERM killed); STOPPED where any
        was stopped, else DONE.
    """
    shared = os.environ | {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        _signal(ranks, signal.Signals(number))

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        for rank in range(count):
            own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # Groups of their own: Ctrl-C reaches them once, from here.
            ranks.append(subprocess.Popen(list(command), env=own, process_group=0))
        return _status_of(ranks)
    finally:
        _signal(ranks, signal.SIGKILL)
        for process in ranks:
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _status_of(ranks: list[subprocess.Popen[bytes]]) -> int:
    failed: int | None = None
    deadline = float("inf")
    while any(process.poll() is None for process in ranks) and time.monotonic() < deadline:
        failure = next((rank for rank, process in enumerate(ranks) if process.returncode not in (None, *WELL)), None)
        if failed is None and failure is not None:
            failed, deadline = failure, time.monotonic() + OTHERS_SECONDS
        time.sleep(POLL_SECONDS)
    statuses = [process.poll() for process in ranks]
    if failed is None:
        failed = next((rank for rank, status in enumerate(statuses) if status not in WELL), None)
    if failed is None:
        return ExitStatus.STOPPED if any(statuses) else ExitStatus.DONE
    status = ranks[failed].returncode
    if status < 0:
        name = signal.Signals(-status).name
        print(f"voxmill train: rank {failed} was killed by {name}", file=sys.stderr, flush=True)
        return ExitStatus.FAILED
    return int(status)


def _signal(ranks: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in ranks:
        if process.poll() is None:
            process.send_signal(number)
