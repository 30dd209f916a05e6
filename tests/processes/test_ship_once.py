"""The callable of a call goes to each worker once, and leaves it when the call has ended."""

import itertools
import os
import signal
import uuid
from collections import Counter

import pytest

from parallel_facade import Pool


class Shipped:
    """A callable that notes in *folder* when it is written, rebuilt and forgotten, and where."""

    def __init__(self, folder):
        self.folder = folder

    def note(self, what):
        (self.folder / f"{what} {os.getpid()} {uuid.uuid4().hex}").touch()

    def __getstate__(self):
        self.note("written")
        return vars(self)

    def __setstate__(self, state):
        vars(self).update(state)
        self.note("rebuilt")

    def __del__(self):
        self.note("forgotten")

    def __call__(self, x):
        return os.getpid()


class ShippedSlowly(Shipped):
    def __init__(self, folder, gate):
        super().__init__(folder)
        self.gate = gate

    def __setstate__(self, state):
        super().__setstate__(state)
        self.gate.pass_through()


class DiesOnce(Shipped):
    def __call__(self, x):
        if x == 5 and not (died := self.folder / "died").exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()


def noted(folder, what):
    """Return how often *what* was noted, by process."""
    notes = (file.name.split() for file in folder.iterdir())
    return Counter(int(note[1]) for note in notes if note[0] == what)


@pytest.mark.parametrize("verb", ["pmap", "imap"])
def test_a_worker_rebuilds_it_once_however_many_items_it_runs(start_method, tmp_path, verb):
    with Pool(workers=2, start_method=start_method) as pool:
        pids = set(getattr(pool, verb)(Shipped(tmp_path), range(200), chunksize=1))

    rebuilt = noted(tmp_path, "rebuilt")  # by one, perhaps, too late to get an item
    assert noted(tmp_path, "written") == {os.getpid(): 1}
    assert rebuilt == dict.fromkeys(rebuilt, 1)
    assert pids <= set(rebuilt)


def test_an_item_stays_with_the_worker_that_rebuilds_the_callable(
    start_method, tmp_path, gate, monkeypatch
):
    rebuilding, looks = gate(), itertools.count(1)

    with Pool(workers=3, start_method=start_method) as pool:
        stealer = pool._backend._manager._stealer
        split_for_idle = stealer.split_for_idle

        def open_when_it_was_looked_for_idle_workers():
            if next(looks) == 10:
                rebuilding.wait_for_arrivals(1)
                rebuilding.open()
            split_for_idle()

        monkeypatch.setattr(stealer, "split_for_idle", open_when_it_was_looked_for_idle_workers)
        [pid, _] = pool.pmap(ShippedSlowly(tmp_path, rebuilding), [1, 2], chunksize=2)

    assert noted(tmp_path, "rebuilt") == {pid: 1}


def test_a_worker_in_the_place_of_a_dead_one_rebuilds_it_from_what_was_written(
    start_method, tmp_path
):
    with Pool(workers=1, start_method=start_method) as pool:
        pids = set(pool.pmap(DiesOnce(tmp_path), range(10), chunksize=1, retries=1))

    assert len(pids) == 2
    assert noted(tmp_path, "written") == {os.getpid(): 1}
    assert noted(tmp_path, "rebuilt") == dict.fromkeys(pids, 1)


def test_a_worker_forgets_it_when_the_call_has_ended(start_method, tmp_path):
    with Pool(workers=1, start_method=start_method) as pool:
        [pid] = pool.pmap(Shipped(tmp_path), [1])
        # It is told with what it is sent next, or with what follows that.
        later = [pool.pmap(abs, [-1]) for _ in range(3)]

        assert noted(tmp_path, "forgotten")[pid] == 1
    assert later == [[1]] * 3
