"""A host that is cut off in the middle of a map: nobody is told, and nothing hangs."""

import functools
import threading

import pytest
from engines_here import reason_to_skip
from hosts_apart import TWO_HOSTS, far_host, reason_for_one_host

from parallel_facade import Pool, WorkerCrashedError

pytestmark = pytest.mark.skipif(
    bool(reason_for_one_host()), reason=reason_for_one_host() or "there can be a second host"
)

PATIENCE = 110
"""Seconds; either engine says after some 30 that the host is gone."""


def needs(name):
    reason = reason_to_skip(name)
    return pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=reason or "there"))


def held_once(gate, folder, x):
    """Wait at the gate; not when run again."""
    mark = folder / str(x)
    if not mark.exists():
        mark.touch()
        gate.pass_through()
    return x


@pytest.fixture
def map_with_a_cut(gate, tmp_path, monkeypatch):
    """Maps over two items, one on each host; the far one is cut off while both run."""

    def run(engine, **options):
        outcomes = []
        held = gate()
        task = functools.partial(held_once, held, tmp_path)
        with far_host() as host, TWO_HOSTS[engine](host) as found:
            for variable, value in found.items():
                monkeypatch.setenv(variable, value)
            with Pool(engine) as pool:

                def call():
                    outcomes.extend(
                        pool.pmap(task, range(2), chunksize=1, timeout=PATIENCE, **options)
                    )

                calling = threading.Thread(target=call)
                calling.start()
                held.wait_for_arrivals(2)
                host.cut_off()
                held.open()
                calling.join()
        return outcomes

    return run


@pytest.mark.parametrize("engine", [needs("dask"), needs("ray")])
def test_what_a_lost_host_had_is_run_by_another(map_with_a_cut, engine):
    assert map_with_a_cut(engine, retries=1) == [0, 1]


@pytest.mark.parametrize("engine", [needs("ray")])
def test_what_a_lost_host_had_is_told_where_no_retry_was_asked_for(map_with_a_cut, engine):
    outcomes = map_with_a_cut(engine, return_exceptions=True)

    (lost,) = (one for one in outcomes if isinstance(one, Exception))
    assert isinstance(lost, WorkerCrashedError)
    assert "the worker's host died or cannot be reached" in str(lost)
    assert {one for one in outcomes if one is not lost} <= {0, 1}
