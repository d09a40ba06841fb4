"""A folder belongs to one job at a time, also where no file can be locked: a lease, a file that its holder renews.

It is made so that only one of many can make it, renewed while the job lives, and taken over where the holder is known
to be dead (a process of this machine that is gone) or has not renewed it for minutes. Those are counted by the clock of
whoever waits for it: clocks of two machines may differ by as much. Work is idempotent: a lease that was lost costs work
that is done twice and never a byte of the result.
"""

import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.machine.processes import ProcessId
from voxmill.core.storage import create_exclusively, file_names, read_whole, releasing, storage_failure

RENEW_SECONDS = 60.0
EXPIRES_SECONDS = 300.0
"""A lease that is not renewed for so long has no holder any more."""
SKEW_SECONDS = 3600.0
"""Clocks of machines differ by less: a lease that ended so long ago need not be waited for."""
SETTLE_SECONDS = 1.0
"""Who takes a lease over waits so long before it trusts that nobody else did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease. nonce: one for each claim. expires: in seconds since 1970, by the holder's clock."""

    host: str
    process: ProcessId
    nonce: str
    expires: float


_JSON = TypeAdapter(Holder)


def live_holder(path: Path) -> Holder | None:
    """Who holds a lease; None where nobody does.

    Of a process of another machine it is known only when it renews the lease, which is waited for: a minute where it
    lives, `EXPIRES_SECONDS` where it does not.
    """
    before = _holder(path)
    if before is None or before.process.is_dead() or time.time() >= before.expires + SKEW_SECONDS:
        return None
    if before.process.is_here():
        return before
    print(
        f"{path}: waiting whether process {before.process.number} on {before.host} still lives",
        file=sys.stderr,
        flush=True,
    )
    since = time.monotonic()
    while time.monotonic() - since < EXPIRES_SECONDS:
        time.sleep(SETTLE_SECONDS)
        now = _holder(path)
        if now != before:
            return now
    return None


def _holder(path: Path) -> Holder | None:
    try:
        return _JSON.validate_json(read_whole(path))
    except (FileNotFoundError, ValueError):
        return None


class LeaseHeld(UserError):
    """Another job holds the lease."""


class Lease:
    """A lease on `what`, kept in the file `path`; a context manager, to be used in the main thread.

    Raises:
        LeaseHeld: on entering, another job holds it.
        JobError: on leaving, it was lost to another job; the block is interrupted then.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._mine = Holder(
            host=socket.gethostname(),
            process=ProcessId.own(),
            nonce=uuid.uuid4().hex,
            expires=0.0,
        )
        self._stop = threading.Event()
        self._lost: str | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        self._mine = replace(self._mine, expires=time.time() + EXPIRES_SECONDS)
        while not create_exclusively(self._path, _JSON.dump_json(self._mine)):
            before = self._read()
            if before is not None and self._take_over(before):
                break
        self._remove_claims()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        if self._lost is not None and kind in (None, KeyboardInterrupt):
            raise JobError(self._lost, resume_hint="")
        # One that cannot be removed expires by itself.
        with releasing(after_failure=kind is not None):
            if self._lost is None and self._holds():
                self._path.unlink(missing_ok=True)

    def _read(self) -> Holder | None:
        try:
            return _JSON.validate_json(read_whole(self._path))
        except FileNotFoundError:
            return None
        except ValueError:
            # Half a file: its writer died while it made it, or is about to write the rest.
            time.sleep(SETTLE_SECONDS)
            try:
                return _JSON.validate_json(read_whole(self._path))
            except FileNotFoundError:
                return None
            except ValueError:
                return replace(self._mine, nonce="", expires=0.0)

    def _take_over(self, before: Holder) -> bool:
        """Takes the lease of a holder that is dead or late; False where another was quicker.

        A file that only one can make settles who does, for this very claim of the holder before.
        """
        holder = live_holder(self._path)
        if holder is not None:
            raise LeaseHeld(
                f"another job writes to {self._what} now: process {holder.process.number} on {holder.host}; wait for "
                "it or name another folder"
            )
        self._mine = replace(self._mine, expires=time.time() + EXPIRES_SECONDS)
        claim = self._path.with_name(f"{self._path.name}.{before.nonce or 'torn'}")
        if not create_exclusively(claim, _JSON.dump_json(self._mine)):
            self._yield_to(claim)
            return False
        now = self._read()
        is_free = now is not None and now.nonce == before.nonce
        if is_free:
            write_atomically(self._path, _JSON.dump_json(self._mine))
            # Another may have taken this claim for one whose maker died, and written too: the last one stays.
            time.sleep(SETTLE_SECONDS)
        claim.unlink(missing_ok=True)
        return is_free and self._holds()

    def _remove_claims(self) -> None:
        """Removes claims of earlier holders' leases, which jobs that died while they took one over have left."""
        kept = {self._path.name, f"{self._path.name}.{self._mine.nonce}"}
        for name in file_names(self._path.parent):
            if name.startswith(f"{self._path.name}.") and name not in kept:
                self._path.with_name(name).unlink(missing_ok=True)

    def _yield_to(self, claim: Path) -> None:
        """Waits for whoever takes the lease over; a claim whose maker died is removed."""
        time.sleep(SETTLE_SECONDS)
        try:
            taker = _JSON.validate_json(read_whole(claim))
        except (FileNotFoundError, ValueError):
            taker = None
        if taker is None or taker.process.is_dead() or time.time() >= taker.expires:
            claim.unlink(missing_ok=True)

    def _holds(self) -> bool:
        holder = self._read()
        return holder is not None and holder.nonce == self._mine.nonce

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                self._renew()
            except Exception as error:
                if not isinstance(error, OSError) and storage_failure(error) is None:
                    raise
                # Storage that is away for a moment: whoever may take the lease over waits for minutes.
                continue
            if self._lost is not None:
                # A signal, and not `interrupt_main`, which waits for the end of what the main thread waits for.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def _renew(self) -> None:
        holder = self._read()
        if holder is not None and holder.nonce != self._mine.nonce:
            self._lost = (
                f"the lease on {self._what} went to process {holder.process.number} on {holder.host}, since this job "
                f"had not renewed it for {EXPIRES_SECONDS:.0f} s; that job goes on with the same work"
            )
            return
        self._mine = replace(self._mine, expires=time.time() + EXPIRES_SECONDS)
        write_atomically(self._path, _JSON.dump_json(self._mine))


@contextmanager
def in_turn(path: Path, what: str) -> Iterator[None]:
    """Inside, this job alone of all that call it holds the lease; each waits for its turn."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(Lease(path, what))
                break
            except LeaseHeld:
                time.sleep(SETTLE_SECONDS)
        yield
