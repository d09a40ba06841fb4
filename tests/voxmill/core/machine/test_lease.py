"""A lease has one holder; a dead one's is taken over at once, a silent one's after minutes, on disks and in S3."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.machine import lease
from voxmill.core.machine.lease import Holder, Lease
from voxmill.core.machine.processes import ProcessId
from voxmill.core.storage import file_names, read_whole, to_path
from voxmill.data.records import from_json_text, to_json_text


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(params=["local", "s3"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.3)
    if request.param == "local":
        return tmp_path / "lease.json"
    request.getfixturevalue("server")
    return to_path(f"s3://{BUCKET}/{tmp_path.name}/lease.json")


def holder(path: Path) -> Holder:
    return from_json_text(Holder, read_whole(path))


def test_one_holds_it_and_lets_go_at_the_end(path: Path) -> None:
    with Lease(path, "OUT"):
        with (
            pytest.raises(UserError, match=r"another job writes to OUT now: process \d+ on .*; wait for it"),
            Lease(path, "OUT"),
        ):
            pass
        assert holder(path).process == ProcessId.own()
    assert file_names(path.parent) == set()


def test_a_claim_that_a_killed_job_left_is_removed(path: Path) -> None:
    write_atomically(path.with_name("lease.json.0123"), "its maker died after it took the lease over")
    with Lease(path, "OUT"):
        assert file_names(path.parent) == {"lease.json"}


def test_a_dead_process_of_this_machine_leaves_it_free(path: Path) -> None:
    imports = "from voxmill.core.machine.processes import ProcessId"
    program = f"{imports}; own = ProcessId.own(); print(own.place, own.number, own.started)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    place, number, started = ended.stdout.split()
    dead = Holder(host="here", process=ProcessId(place, int(number), started), nonce="dead", expires=time.time() + 999)
    write_atomically(path, to_json_text(dead))
    with Lease(path, "OUT"):
        assert holder(path).nonce != "dead"


@pytest.mark.parametrize("skew", [-3000.0, 0.0, 3000.0], ids=["behind", "same", "ahead"])
@pytest.mark.parametrize("lives", [True, False])
def test_a_holder_elsewhere_is_known_by_what_it_renews(
    path: Path, lives: bool, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its clock says."""
    monkeypatch.setattr(lease, "EXPIRES_SECONDS", 3.0)
    other = Holder(host="there", process=ProcessId("x", 7, "1"), nonce="other", expires=time.time() + skew + 3)
    write_atomically(path, to_json_text(other))
    if not lives:
        with Lease(path, "OUT"):
            assert holder(path).process == ProcessId.own()
        return
    with ThreadPoolExecutor(1) as pool:
        renewal = pool.submit(renew_later, path, other)
        with pytest.raises(UserError, match="process 7 on there; wait for it"), Lease(path, "OUT"):
            pass
        renewal.result()


def renew_later(path: Path, own: Holder) -> None:
    time.sleep(1)
    write_atomically(path, to_json_text(replace(own, expires=own.expires + 1)))


def test_a_lease_that_ended_yesterday_is_not_waited_for(path: Path) -> None:
    old = Holder(host="there", process=ProcessId("x", 7, "1"), nonce="old", expires=time.time() - 86400)
    write_atomically(path, to_json_text(old))
    began = time.monotonic()
    with Lease(path, "OUT"):
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("torn", [False, True])
def test_of_many_who_take_it_over_one_holds_it(path: Path, torn: bool) -> None:
    old = Holder(host="gone", process=ProcessId("elsewhere", 1, "1"), nonce="old", expires=0.0)
    write_atomically(path, "{" if torn else to_json_text(old))
    if not torn:
        # A taker that was killed in the middle.
        write_atomically(path.with_name("lease.json.old"), to_json_text(old))
    held: list[str] = []

    def take(_: int) -> None:
        try:
            one = Lease(path, "OUT")
            one.__enter__()
        except UserError:
            return
        held.append(holder(path).nonce)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take, range(6)))
    assert held == [holder(path).nonce]


def test_who_lost_it_ends_with_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 1.0)
    with pytest.raises(JobError, match="went to process 7 on there"), Lease(path, "OUT"):
        before = holder(path).expires
        waited = time.monotonic()
        while holder(path).expires <= before:
            assert time.monotonic() - waited < 20
            time.sleep(0.1)
        other = Holder(host="there", process=ProcessId("x", 7, "1"), nonce="other", expires=time.time() + 99)
        write_atomically(path, to_json_text(other))
        time.sleep(20)
    assert holder(path).nonce == "other"


ROOT = Path(__file__).resolve().parents[4]
JOB = """
import sys, time
from pathlib import Path
from voxmill.core.machine.lease import in_turn
folder = Path(sys.argv[1])
with in_turn(folder / "turn.json", "the folder"):
    with open(folder / "log", "a") as log:
        print("in", sys.argv[2], file=log, flush=True)
        time.sleep(0.3)
        print("out", sys.argv[2], file=log, flush=True)
"""


def test_each_job_has_its_turn_alone(tmp_path: Path) -> None:
    jobs = [subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path), str(n)], cwd=ROOT) for n in range(3)]
    assert [job.wait(timeout=60) for job in jobs] == [0, 0, 0]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 6
    assert all(lines[n].split()[1] == lines[n + 1].split()[1] for n in range(0, 6, 2))
    assert not (tmp_path / "turn.json").exists()
