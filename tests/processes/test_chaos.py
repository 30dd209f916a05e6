"""The short form of `make chaos`."""

import chaos
import pytest


@pytest.fixture
def no_warning_of_threads(monkeypatch):
    monkeypatch.setattr(
        "parallel_facade.backends.process.starting.launcher._warn_of_threads", lambda: None
    )


def test_random_faults_lose_double_and_leave_nothing(no_warning_of_threads, no_warm_pools, caplog):
    tally, latencies, left = chaos.run(faults=120, seconds=60, seed=7)

    assert tally.problems == [], chaos.report(tally, latencies, left)
    assert left == []
    assert sum(tally.faults.values()) >= 100
