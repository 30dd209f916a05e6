"""What a failure says, what it keeps, and what becomes of the rest: on every back-end."""

import asyncio
import gc
import itertools
import logging
import logging.handlers
import os
import queue
import threading
from concurrent.futures import CancelledError, wait

import pytest

from parallel_facade import (
    ConfigurationError,
    Pool,
    TaskTimeoutError,
    apply_async,
    config,
    imap,
    pmap,
)

PATIENCE = 60


def fail(x):
    raise LookupError(f"no {x}")


class FailsUntil:
    """Fails at item 1 until its attempt number *last*, counted in a file."""

    def __init__(self, path, last):
        self.path = path
        self.last = last

    def __call__(self, x):
        if x != 1:
            return x
        with self.path.open("a+") as file:
            file.write("x")
            file.seek(0)
            attempt = len(file.read())
        if attempt < self.last:
            raise OSError(f"attempt {attempt}")
        return x


# ── retries ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delay", [0, 0.01])
def test_a_retried_item_takes_its_place(backend, tmp_path, delay):
    fails_twice = FailsUntil(tmp_path / "attempts", 3)
    options = {"retries": 2, "retry_on": OSError, "retry_delay": delay}

    assert pmap(fails_twice, range(4), chunksize=2, **options) == [0, 1, 2, 3]

    (tmp_path / "attempts").unlink()
    assert sorted(imap(fails_twice, range(4), ordered=False, **options)) == [0, 1, 2, 3]
    (tmp_path / "attempts").unlink()
    assert apply_async(fails_twice, (1,), **options).get(PATIENCE) == 1


@pytest.mark.parametrize("delay", [0, 0.01])
def test_the_last_error_tells_of_all_attempts(backend, tmp_path, delay):
    never = FailsUntil(tmp_path / "attempts", 99)
    expected = [f"attempt {n} of 3: OSError: attempt {n}" for n in (1, 2)]
    options = {"retries": 2, "retry_on": OSError, "retry_delay": delay}

    with pytest.raises(OSError, match="attempt 3") as caught:
        pmap(never, range(3), **options)
    assert caught.value.__notes__ == ["while running item 1: 1", *expected]

    (tmp_path / "attempts").unlink()
    with pytest.raises(OSError, match="attempt 3") as caught:
        apply_async(never, (1,), **options).get(PATIENCE)
    assert caught.value.__notes__ == expected


def test_a_delay_holds_up_its_own_item_only(backend, tmp_path):
    results = imap(
        FailsUntil(tmp_path / "attempts", 2),
        [1, 2, 3],
        ordered=False,
        buffersize=3,
        retries=1,
        retry_on=OSError,
        retry_delay=3600,
    )

    assert {next(results), next(results)} == {2, 3}
    results.close()


def test_a_delay_ends_with_the_timeout_of_the_call(backend):
    with pytest.raises(TaskTimeoutError):
        pmap(fail, [1], retries=1, retry_on=LookupError, retry_delay=3600, timeout=0.1)
    if not backend.capabilities.runs_in_caller:
        with pytest.raises(TaskTimeoutError):
            apply_async(
                fail, (1,), retries=1, retry_on=LookupError, retry_delay=3600, timeout=0.1
            ).get(PATIENCE)


def wait_in_the_delay(**options):
    """Return a call that has failed and will not run again soon."""
    failed = threading.Event()

    class Seen(LookupError):
        def __str__(self):
            failed.set()  # in this process: the attempt is being noted
            return "seen"

    def fail_once():
        raise Seen

    result = apply_async(fail_once, retries=1, retry_on=LookupError, retry_delay=3600, **options)
    assert failed.wait(PATIENCE)
    while result._call._delay is None:  # it begins a moment after the note
        pass
    return result


@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_a_call_that_waits_for_its_next_attempt_can_be_cancelled(backend, how):
    if backend.capabilities.runs_in_caller:
        pytest.skip("it waits in the caller")
    result = wait_in_the_delay(timeout=3600)

    assert getattr(result, how)()

    assert result.cancelled()
    assert wait([result], PATIENCE).done == {result}
    with pytest.raises(CancelledError):
        result.get(PATIENCE)


def test_the_time_of_a_call_may_pass_while_it_waits_for_its_next_attempt(backend):
    if backend.capabilities.runs_in_caller:
        pytest.skip("it waits in the caller")
    result = wait_in_the_delay()
    background = result._call

    settings = background._options.settings._replace(timeout=5)
    background._options = background._options._replace(settings=settings)
    background._expire()

    with pytest.raises(TaskTimeoutError, match="did not end within 5 seconds"):
        result.get(PATIENCE)
    assert not background._delay.cancel(), "it is cancelled already"
    assert background._handle is None  # the workers may forget the callable


def test_a_call_that_cannot_be_made_leaves_no_clock(backend):
    if not backend.capabilities.can_initialize or not backend.capabilities.survives_crashes:
        pytest.skip("its workers cannot be broken")
    with backend.pool(initializer=fail, initargs=("start",)) as pool:
        for _ in range(3):
            with pytest.raises(LookupError):
                pool.apply_async(abs, (-1,), timeout=3600).get(PATIENCE)

    clocks = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    for clock in clocks:
        clock.join(PATIENCE)
    assert not any(clock.is_alive() for clock in clocks)


def test_failures_that_stay_in_place_are_partial_results_too(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("it runs the items in turn")
    never_opened, after_arrival = gate(), gate()

    def stop_at_the_first(facts):
        raise InterruptedError

    def let_the_other_fail():
        never_opened.wait_for_arrivals(1)
        after_arrival.wait_for_arrivals(1)
        after_arrival.open()

    other = threading.Thread(target=let_the_other_fail)
    other.start()
    with backend.pool() as pool:
        with pytest.raises(InterruptedError) as caught:
            pool.pmap(
                lambda x: fail(after_arrival.pass_through(x)) if x else never_opened.pass_through(),
                [0, 1],
                chunksize=1,
                return_exceptions=True,
                progress=stop_at_the_first,
            )
        other.join()
        never_opened.open()

    assert isinstance(caught.value.partial_results[1], LookupError)


def test_the_delay_is_a_setting():
    with config(retry_delay=2.5) as inside:
        assert inside.retry_delay == 2.5
    for bad in (-1, "x", float("nan"), float("inf"), True):
        with pytest.raises(ConfigurationError, match="retry_delay="):
            pmap(abs, [1], retry_delay=bad)


# ── what is finished is kept ──────────────────────────────────────────────────────────────────────


def test_an_error_keeps_what_was_finished(backend):
    with pytest.raises(LookupError) as caught:
        pmap(lambda x: fail(x) if x == 6 else x * 10, range(9), chunksize=2)

    kept = caught.value.partial_results
    assert {index: kept[index] for index in range(6)} == {n: n * 10 for n in range(6)}
    assert 6 not in kept
    assert all(kept[index] == index * 10 for index in kept)


def test_a_timeout_keeps_what_was_finished(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("it looks at the clock between items only")
    never_opened, started = gate(), gate()
    # Workers that start now, on a cluster, could take up the whole time.
    first = [apply_async(started.pass_through) for _ in range(2)]
    started.wait_for_arrivals(2)
    started.open()
    wait(first, PATIENCE)

    with pytest.raises(TaskTimeoutError) as caught:
        pmap(
            lambda x: x if x < 3 else never_opened.pass_through(), range(6), chunksize=1, timeout=2
        )

    assert caught.value.partial_results == {0: 0, 1: 1, 2: 2}
    never_opened.wait_for_arrivals(1)
    never_opened.open()


def test_a_refused_item_keeps_nothing_as_nothing_was_run(backend):
    if not backend.capabilities.needs_serialization:
        pytest.skip("everything travels")

    with pytest.raises(TypeError) as caught:
        pmap(abs, [1, (x for x in [])])

    assert caught.value.partial_results == {}


def test_an_exception_that_takes_no_attributes_is_raised_as_it_is(backend):
    class Closed(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    def refuse(x):
        raise Closed(x)

    with pytest.raises(Closed):
        pmap(refuse, [1])


def test_an_iterator_goes_on_after_failures(backend):
    outcomes = imap(
        lambda x: fail(x) if x % 3 == 0 else x, range(7), return_exceptions=True, chunksize=2
    )

    assert [str(one) for one in outcomes] == [
        "no 0", "1", "2", "no 3", "4", "5", "no 6",
    ]  # fmt: skip


# ── calls in the background ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def logged():
    """Records of the library that mention this test, from whichever thread."""
    found = queue.Queue()
    found.token = os.urandom(8).hex()
    handler = logging.handlers.QueueHandler(found)
    # What an earlier test left to the garbage collector may be told of now.
    handler.addFilter(lambda record: found.token in record.getMessage())
    logging.getLogger("parallel_facade").addHandler(handler)
    yield found
    logging.getLogger("parallel_facade").removeHandler(handler)


def test_a_failure_that_nobody_fetches_is_logged_once(backend, logged):
    result = apply_async(fail, (logged.token,))
    wait([result], PATIENCE)
    assert logged.empty()

    del result
    gc.collect()

    # The thread that brought the failure may be the last to let it go.
    record = logged.get(timeout=PATIENCE)
    assert logged.empty()
    assert record.levelno == logging.ERROR
    assert "never requested" in record.getMessage()
    assert f"LookupError: no {logged.token}" in record.getMessage()


def test_what_somebody_fetched_is_not_logged(backend, logged):
    async def awaited():
        await apply_async(fail, (logged.token,))

    told = threading.Event()
    with pytest.raises(LookupError):
        apply_async(fail, (logged.token,)).get(PATIENCE)
    assert isinstance(apply_async(fail, (logged.token,)).exception(PATIENCE), LookupError)
    with pytest.raises(LookupError):
        asyncio.run(awaited())
    apply_async(fail, (logged.token,), error_callback=lambda _: told.set())
    assert told.wait(PATIENCE)
    apply_async(abs, (1,)).wait(PATIENCE)
    with Pool(backend="thread", workers=1) as pool:
        pool.apply_async(abs, (1,)).cancel()

    gc.collect()
    assert logged.empty()


def test_stop_ends_what_runs(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("it has ended when there is something to stop")
    never_opened = gate()
    result = apply_async(never_opened.pass_through)
    never_opened.wait_for_arrivals(1)

    stopped = result.stop()

    assert stopped == backend.capabilities.can_stop_running_task
    assert result.cancelled() == stopped
    if stopped:
        with pytest.raises(CancelledError):
            result.get(PATIENCE)
    else:
        never_opened.open()
        assert result.get(PATIENCE) is None
    assert apply_async(abs, (-1,)).get(PATIENCE) == 1
    assert not result.stop()


def test_stop_cancels_what_waits(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("nothing waits")
    blocker = gate()
    with backend.pool() as pool:
        running = [pool.submit(blocker.pass_through) for _ in range(2)]
        blocker.wait_for_arrivals(2)
        waiting = [pool.submit(abs, -n) for n in range(8)]

        assert waiting[-1].stop()

        assert waiting[-1].cancelled()
        blocker.open()
        assert [result.get(PATIENCE) for result in waiting[:-1]] == list(range(7))
        wait(running, PATIENCE)


# ── the user's own code beside a call ─────────────────────────────────────────────────────────────


def test_callbacks_may_raise_block_and_call_back(backend, gate, caplog):
    held = gate()
    seen = queue.SimpleQueue()

    def leave(_):
        raise SystemExit(3)

    with backend.pool() as pool:
        pool.apply_async(abs, (-1,), callback=leave).get(PATIENCE)
        pool.apply_async(abs, (-2,), callback=lambda x: seen.put(pool.pmap(abs, [x])))
        assert seen.get(timeout=PATIENCE) == [2]
        pool.apply_async(abs, (-3,), callback=lambda _: held.pass_through())
        held.wait_for_arrivals(1)
        assert pool.pmap(abs, [-4]) == [4]  # a callback blocks, and no call does
        held.open()

    assert [record.getMessage() for record in caplog.records].count("a callback raised") == 1


def test_an_input_iterator_may_call_back(backend):
    def items():
        for n in range(3):
            yield pmap(abs, [-n])[0]

    assert pmap(lambda x: x + 1, items()) == [1, 2, 3]
    assert list(imap(lambda x: x + 1, items())) == [1, 2, 3]


def test_progress_may_call_back_and_raise(backend):
    def show(progress):
        assert pmap(abs, [-1]) == [1]
        if progress.done == 3:
            raise KeyError("shown enough")

    with pytest.raises(KeyError, match="shown enough"):
        pmap(abs, range(6), chunksize=1, progress=show)
    assert pmap(abs, [-1]) == [1]


def test_many_threads_and_coroutines_share_one_pool(backend):
    offsets = range(8)
    results = {}

    async def gather():
        return await asyncio.gather(*(apply_async(pow, (n, 2)) for n in range(8)))

    def use(offset):
        with config(**backend.settings):
            mapped = pmap(lambda x: x + offset, range(30))
            lazy = list(itertools.islice(imap(lambda x: x * offset, itertools.count()), 10))
            results[offset] = mapped, lazy, asyncio.run(gather())

    threads = [threading.Thread(target=use, args=(offset,)) for offset in offsets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {
        offset: (
            [x + offset for x in range(30)],
            [x * offset for x in range(10)],
            [n * n for n in range(8)],
        )
        for offset in offsets
    }
