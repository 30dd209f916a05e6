"""The contract of every back-end, as tests that a pytest class can inherit.

    # test_my_backend.py
    from parallel_facade.testing import BackendContract

    class TestMine(BackendContract):
        settings = {"backend": "mine", "workers": 2}

A test is skipped if it needs a capability that the back-end does not declare; the skip reason names
the capability.
"""

from __future__ import annotations

import itertools
import os
import threading
import types
from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, ClassVar

import pytest

from parallel_facade._api.pool import Pool
from parallel_facade._api.verbs import apply_async, imap, pmap
from parallel_facade._common.errors import (
    ConfigurationError,
    PoolClosedError,
    SerializationError,
)
from parallel_facade._common.task_errors import WorkerCrashedError
from parallel_facade._configuration.settings import config
from parallel_facade.backends.base import Capabilities


class BackendContract:
    """Tests of one back-end: derive from it, and set *settings*.

    Attributes:
        settings: Arguments of `config` and `Pool`, for two workers.
    """

    settings: ClassVar[dict[str, Any]] = {"backend": "serial"}

    @pytest.fixture(autouse=True)
    def in_force(self) -> Iterator[None]:
        """Send each call of a test to the back-end."""
        with config(**self.settings):
            yield

    def capabilities(self) -> Capabilities:
        """Return the capabilities that the back-end declares."""
        with Pool(**self.settings) as pool:
            return pool._backend.capabilities

    def need(self, capability: str) -> None:
        """Skip the test if the back-end lacks *capability*."""
        if not getattr(self.capabilities(), capability):
            pytest.skip(f"the back-end has no {capability}")

    # ── any callable, in order ────────────────────────────────────────────────────────────────

    def test_results_are_in_order(self) -> None:
        assert pmap(lambda x: x * x, range(1_000)) == [x * x for x in range(1_000)]

    def test_several_iterables_are_zipped(self) -> None:
        assert pmap(pow, [2, 3, 4], [5, 2]) == [32, 9]

    def test_nothing_is_a_map_too(self) -> None:
        assert pmap(abs, []) == []

    def test_closures_methods_and_objects_travel(self) -> None:
        class Scale:
            def __init__(self, factor: int) -> None:
                self.factor = factor

            def apply(self, x: int) -> int:
                return x * self.factor

            def __call__(self, x: int) -> int:
                return -self.apply(x)

        offset = 10
        assert pmap(lambda x: x + offset, [1, 2]) == [11, 12]
        assert pmap(Scale(3).apply, [1, 2]) == [3, 6]
        assert pmap(Scale(3), [1, 2]) == [-3, -6]

    def test_what_comes_back_is_of_the_callers_classes(self) -> None:
        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

        points = pmap(Point, [1, 2])

        assert [(type(point), point.x) for point in points] == [(Point, 1), (Point, 2)]

    def test_a_changed_closure_is_seen_by_the_next_call(self) -> None:
        state = types.SimpleNamespace(value=1)
        before = pmap(lambda _: state.value, [0])
        state.value = 2

        assert (before, pmap(lambda _: state.value, [0])) == ([1], [2])

    # ── failures ──────────────────────────────────────────────────────────────────────────────

    def test_the_users_error_is_raised_with_its_item(self) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            pmap(lambda x: 1 // x, [1, 0, 2])

        assert "while running item 1: 0" in caught.value.__notes__

    def test_failures_stay_in_place_on_request(self) -> None:
        outcomes = pmap(lambda x: 1 // x, [1, 0, -1], return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [int, ZeroDivisionError, int]

    def test_an_error_of_a_local_class_is_caught_by_it(self) -> None:
        class LocalError(Exception):
            pass

        def fail(x: int) -> None:
            raise LocalError(x)

        with pytest.raises(LocalError, match="7"):
            pmap(fail, [7])

    def test_exceptions_are_retried_on_request(self, tmp_path: Path) -> None:
        def fail_once(x: int) -> int:
            marker = tmp_path / str(x)
            if not marker.exists():
                marker.touch()
                raise OSError(x)
            return x

        assert pmap(fail_once, [1, 2], retries=1, retry_on=OSError) == [1, 2]

    def test_what_cannot_travel_is_refused_before_anything_runs(self) -> None:
        self.need("needs_serialization")
        held = threading.Lock()
        with held, pytest.raises(SerializationError, match="held"):
            pmap(lambda _: held.locked(), [1])

    def test_a_result_that_cannot_travel_is_its_items_error(self) -> None:
        self.need("needs_serialization")
        outcomes = pmap(lambda x: (n for n in [x]) if x else x, [0, 1], return_exceptions=True)

        assert outcomes[0] == 0
        assert isinstance(outcomes[1], SerializationError)

    def test_a_worker_that_dies_is_an_error_and_the_next_call_works(self) -> None:
        self.need("survives_crashes")
        with pytest.raises(WorkerCrashedError):
            pmap(lambda _: os._exit(3), [1])

        assert pmap(abs, [-1]) == [1]

    # ── lazy maps, single calls, pools ────────────────────────────────────────────────────────

    def test_a_lazy_map_takes_endless_input(self) -> None:
        results = imap(lambda x: x * 2, itertools.count())

        assert list(itertools.islice(results, 100)) == list(range(0, 200, 2))
        results.close()

    def test_single_calls_are_futures(self) -> None:
        futures = [apply_async(divmod, (x, 2)) for x in range(5)]

        assert sorted(one.result() for one in as_completed(futures)) == [
            divmod(x, 2) for x in range(5)
        ]

    def test_calls_may_nest(self) -> None:
        assert pmap(lambda n: pmap(abs, range(n)), [1, 2]) == [[0], [0, 1]]

    def test_many_threads_may_call_at_once(self) -> None:
        results: dict[int, list[int]] = {}

        def use(n: int) -> None:
            with config(**self.settings):
                results[n] = pmap(lambda x: x + n, range(20))

        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert results == {n: list(range(n, n + 20)) for n in range(4)}

    def test_random_numbers_depend_on_the_seed_alone(self) -> None:
        self.need("has_private_state")
        import random

        once = pmap(lambda _: random.random(), range(8), seed=5)

        assert once == pmap(lambda _: random.random(), range(8), seed=5, chunksize=3)
        assert len(set(once)) == 8

    def test_a_closed_pool_says_so(self) -> None:
        pool = Pool(**self.settings)
        pool.close()
        pool.close()

        with pytest.raises(PoolClosedError):
            pool.pmap(abs, [1])

    def test_what_it_cannot_do_is_refused(self) -> None:
        can = self.capabilities()
        if not can.can_time_tasks:
            with pytest.raises(ConfigurationError, match="task_timeout"):
                pmap(abs, [1], task_timeout=1)
        if not can.can_initialize:
            with pytest.raises(ConfigurationError, match="initializer"):
                Pool(**self.settings, initializer=print)
