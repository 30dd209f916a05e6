"""Ray: workers that die before, at and after the beginning of a task; connections that end."""

import os
import subprocess
import sys
from concurrent.futures import CancelledError

import pytest
from engines_here import die_once, needs, ray_cluster

from parallel_facade import Pool, WorkerCrashedError, pmap


@pytest.fixture
def ray_of_one_worker():
    with Pool(workers=1, backend="ray:local") as pool:
        yield pool


@needs("ray")
def test_a_worker_of_ray_that_may_be_ended_for_one_task_takes_up_no_other(
    ray_of_one_worker, gate, tmp_path
):
    import ray

    def pass_in(worker_gate):
        worker_gate.pass_through()
        return os.getpid()

    pool, first = ray_of_one_worker, gate()
    running = pool.apply_async(pass_in, (first,))
    first.wait_for_arrivals(1)
    gate = pool._backend._gate
    # What the end of task 0 begins with; it ends by itself before Ray has come to end it.
    assert ray.get(gate.mark_for_kill.remote(0))
    first.open()
    pid = running.result()

    def tell(x):
        (tmp_path / f"{x}-{os.getpid()}").touch()
        return os.getpid()

    followers = pool.pmap(tell, [0, 1])

    assert pid not in followers
    assert len(list(tmp_path.iterdir())) == 2, "each ran once"
    assert not ray.get(gate.mark_for_kill.remote(0)), (
        "it does not run, so that nothing is ended for it"
    )


@needs("ray")
def test_a_task_whose_workers_die_before_it_begins_is_lost_after_some_tries(ray_of_one_worker):
    import ray

    numbers = list(range(100))
    assert ray.get(ray_of_one_worker._backend._gate.revoke.remote(numbers)) == numbers

    with pytest.raises(WorkerCrashedError):
        ray_of_one_worker.pmap(abs, [-1])


@needs("ray")
def test_a_death_that_is_known_before_the_note_of_its_beginning_is_a_crash(
    ray_of_one_worker, tmp_path, monkeypatch
):
    backend, held = ray_of_one_worker._backend, []
    take_notes, note_end = backend._reader._take_notes, backend._note_end

    def note_end_first(*arguments):
        note_end(*arguments)
        take_notes(held)

    monkeypatch.setattr(backend._reader, "_take_notes", held.extend)
    monkeypatch.setattr(backend, "_note_end", note_end_first)

    def die(x):
        (tmp_path / str(os.getpid())).touch()
        os._exit(3)

    with pytest.raises(WorkerCrashedError):
        ray_of_one_worker.pmap(die, [1])
    assert len(list(tmp_path.iterdir())) == 1, "it had begun, and does not begin again"


USES_RAY = """
import ray, time
from parallel_facade import BackendLostError, Pool

Pool(workers=1, backend="thread").close()  # it is there before Ray is imported
pool = Pool(workers=1, backend="ray:local")
assert pool.pmap(lambda x: x + 1, [1]) == [2]
"""

ENDS_RAY = """
running = pool.apply_async(time.sleep, (3600,))
ray.shutdown()
for ask in (running.get, lambda: pool.pmap(abs, [1])):
    try:
        ask()
    except BackendLostError as error:
        assert "ray.shutdown()" in str(error), error
    assert not ray.is_initialized()
"""

BEGINS_ANOTHER = """
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
pool.close(cancel=True)
assert ray.is_initialized()
with Pool(backend="ray:local") as another:
    assert another.pmap(abs, [-1]) == [1]
assert ray.is_initialized()
"""


@needs("ray")
@pytest.mark.parametrize("more", ["", ENDS_RAY, ENDS_RAY + BEGINS_ANOTHER])
def test_a_connection_to_ray_that_has_ended_is_not_made_anew(more):
    ended = subprocess.run(
        [sys.executable, "-c", USES_RAY + more], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@needs("ray")
def test_ray_fails_the_items_of_a_dead_worker_or_runs_them_again_on_request(cluster, tmp_path):
    cluster(ray_cluster())

    outcomes = pmap(
        lambda x: die_once(tmp_path, x),
        range(10),
        backend="ray",
        chunksize=1,
        return_exceptions=True,
    )
    (tmp_path / "died").unlink()
    retried = pmap(lambda x: die_once(tmp_path, x), range(10), backend="ray", retries=1)

    assert [type(one) for one in outcomes] == [int] * 5 + [WorkerCrashedError] + [int] * 4
    assert retried == list(range(10))


@needs("ray")
def test_a_task_that_is_stopped_on_its_way_holds_no_thread_of_rays_up(
    ray_of_one_worker, gate, monkeypatch
):
    pool, first = ray_of_one_worker, gate()
    running = pool.apply_async(first.pass_through, (1,))
    first.wait_for_arrivals(1)
    waiting = pool.apply_async(abs, (-2,))
    send, stopped = pool._backend.send, []

    def send_and_be_stopped(arguments):
        inner = send(arguments)
        stopped.append(waiting.stop())
        return inner

    monkeypatch.setattr(pool._backend, "send", send_and_be_stopped)
    first.open()

    assert running.get(60) == 1
    with pytest.raises(CancelledError):
        waiting.get(60)
    monkeypatch.undo()
    assert stopped == [True]
    assert pool.apply_async(abs, (-3,)).get(60) == 3
