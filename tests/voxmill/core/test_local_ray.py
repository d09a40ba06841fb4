"""Tasks and actors over many items, on a private Ray."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from voxmill.core.errors import UserError
from voxmill.core.local_ray import free_port, join_ray, local_ray
from voxmill.core.local_ray.tasks import map_actors, map_tasks


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    import ray

    # Tests of jobs before this module may have left theirs.
    ray.shutdown()
    join_ray(num_cpus=2, env_vars={"PYTHONPATH": str(Path(__file__).resolve().parents[3])})
    yield
    ray.shutdown()


def square(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return number * number


def test_tasks_are_bounded_and_give_every_item_once() -> None:
    submitted: list[int] = []

    def items() -> Iterator[int]:
        for number in range(8):
            submitted.append(number)
            yield number

    results = map_tasks(square, items(), ahead=2, num_cpus=0.5)
    first = next(results)
    # Two in flight, and the one for which there is room now.
    assert len(submitted) == 3
    assert sorted([first, *results]) == [(number, number * number) for number in range(8)]


def test_results_come_in_the_order_of_the_items_where_that_is_asked_for() -> None:
    expected = [(number, number * number) for number in range(6)]
    assert list(map_tasks(square, range(6), ordered=True, num_cpus=0.5)) == expected


def test_an_item_whose_process_dies_has_a_result_too() -> None:
    def run(number: int) -> int:
        if number == 1:
            os._exit(1)
        if number == 2:
            raise ValueError("two")
        return number

    errors = {}

    def record(item: int, error: Exception) -> int:
        errors[item] = type(error).__name__
        return -item

    assert sorted(map_tasks(run, range(4), max_retries=0, on_error=record)) == [(0, 0), (1, -1), (2, -2), (3, 3)]
    assert errors[1] == "WorkerCrashedError" and "ValueError" in errors[2]
    with pytest.raises(ValueError, match="two"):
        list(map_tasks(run, [2], max_retries=0))


class Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def add(self, number: int) -> tuple[int, int]:
        if self.amount > 100:
            raise UserError("amount = 101 is too much; use 100")
        if self.amount < 0:
            raise PermissionError("the store refuses")
        return number + self.amount, os.getpid()


def test_a_pool_of_actors_maps_in_order() -> None:
    results = list(map_actors(Adder, (10,), "add", range(7), count=2, ordered=True, num_cpus=1))
    assert [number for number, _ in results] == list(range(10, 17))
    assert len({process for _, process in results}) == 2
    assert sorted(number for number, _ in map_actors(Adder, (1,), "add", [1, 2], count=5, num_cpus=1)) == [2, 3]


def test_the_users_mistake_in_an_actor_is_one_line() -> None:
    with pytest.raises(UserError, match="^amount = 101 is too much; use 100$"):
        list(map_actors(Adder, (101,), "add", [1], count=1, num_cpus=1))
    with pytest.raises(PermissionError, match="^the store refuses$"):
        list(map_actors(Adder, (-1,), "add", [1], count=1, num_cpus=1))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU has no part")
def test_a_process_that_is_bound_to_some_cpus_starts_a_ray_of_no_more() -> None:
    """As SLURM binds the tasks of a job that has a part of a node."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from voxmill.core.local_ray import cluster_cpus, join_ray\n"
        "join_ray(); print('CPUs', cluster_cpus())"
    )
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert "CPUs 1\n" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
def test_a_process_that_is_bound_to_some_memory_starts_a_ray_of_no_more() -> None:
    """The object store of a task that SLURM gives 4 GB on a large node is a share of those 4 GB."""
    old, new = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/cgroup.subtree_control")
    is_new = new.exists() and "memory" in new.read_text()
    if os.geteuid() or not (old.exists() or is_new):
        pytest.skip("control groups are made by root")
    group = new.parent / f"voxmill-{os.getpid()}" if is_new else old.parent / f"voxmill-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if is_new else "memory.limit_in_bytes")).write_text(str(4 * 2**30))
    except OSError as error:
        pytest.skip(f"no control group of memory: {error}")
    code = (
        f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "import ray; from voxmill.core.local_ray import join_ray, memory_limit\n"
        "join_ray(); print(memory_limit(), ray.cluster_resources()['object_store_memory'] / 2**30)\n"
        "ray.shutdown()"
    )
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    limit, store = done.stdout.split()
    assert int(limit) == 4 * 2**30 and float(store) < 1.3, done.stderr[-2000:]
    # Processes of that Ray may take a moment to end.
    for _ in range(100):
        try:
            group.rmdir()
            break
        except OSError:
            time.sleep(0.2)


@pytest.mark.slow
def test_another_ray_of_this_machine_is_not_joined_and_what_raylets_report_stays_off_the_screen() -> None:
    code = (
        "import os, time, ray; from voxmill.core.local_ray import join_ray\n"
        "join_ray(); ended = ray.remote(max_retries=0)(lambda: os.abort()).remote()\n"
        "try: ray.get(ended)\n"
        "except ray.exceptions.WorkerCrashedError: time.sleep(2)\n"
        "print(ray.get_runtime_context().gcs_address)"
    )
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with local_ray(num_cpus=1) as address:
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().partition(":")[2] != address.partition(":")[2]
    assert not done.stderr


@pytest.mark.slow
def test_the_address_of_a_ray_that_is_gone_is_not_waited_for() -> None:
    """`ray start` leaves the address in a file of Ray's temporary folder; a killed one does not take it away."""
    code = (
        "import ray; from voxmill.core.local_ray import join_ray\n"
        "join_ray(num_cpus=1); print(ray.get(ray.remote(lambda: 7).remote()))"
    )
    # Ray's sockets lie there, too, and the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="vx-", dir="/tmp") as folder:
        stale = Path(folder) / "ray" / "ray_current_cluster"
        stale.parent.mkdir()
        stale.write_text(f"127.0.0.1:{free_port()}")
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_TMPDIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
