"""What `apply_async` and its future promise, on every back-end."""

import asyncio
import concurrent.futures
import logging
import multiprocessing
import os
import signal
import threading

import pytest

from parallel_facade import (
    AsyncResult,
    ConfigurationError,
    Pool,
    SerializationError,
    TaskTimeoutError,
    WorkerCrashedError,
    apply_async,
    pmap,
)
from parallel_facade._dispatch.background_call import BackgroundCall

PATIENCE = 30


def fail():
    raise LookupError("no")


def test_it_takes_positional_and_keyword_arguments(backend):
    assert apply_async(int, ("ff",), {"base": 16}).get() == 255
    assert apply_async(lambda: "nothing").get() == "nothing"


def test_it_is_a_future_and_an_async_result(backend):
    result = apply_async(divmod, (7, 2))

    assert isinstance(result, concurrent.futures.Future)
    assert (result.result(PATIENCE), result.get(), result.exception()) == ((3, 1), (3, 1), None)
    result.wait()
    assert (result.ready(), result.successful(), result.done()) == (True, True, True)
    assert (result.cancelled(), result.running()) == (False, False)


def test_a_failure_is_the_users_own(backend):
    result = apply_async(fail)

    with pytest.raises(LookupError, match="no"):
        result.get()
    assert isinstance(result.exception(), LookupError)
    assert not result.successful()


def test_wait_and_as_completed_take_it(backend):
    results = [apply_async(pow, (2, n)) for n in range(5)]

    done, pending = concurrent.futures.wait(results, PATIENCE)

    assert (len(done), len(pending)) == (5, 0)
    assert sorted(r.get() for r in concurrent.futures.as_completed(results, PATIENCE)) == [
        1, 2, 4, 8, 16,
    ]  # fmt: skip


def test_wait_sees_the_first_exception(backend):
    done, _ = concurrent.futures.wait(
        [apply_async(fail)], PATIENCE, concurrent.futures.FIRST_EXCEPTION
    )

    assert [type(one.exception()) for one in done] == [LookupError]


def test_it_can_be_awaited(backend):
    async def main():
        return await apply_async(divmod, (7, 2)), await asyncio.wrap_future(apply_async(abs, (-1,)))

    assert asyncio.run(main()) == ((3, 1), 1)


def test_what_others_read_of_a_future_is_what_came_of_the_task(backend):
    """asyncio looks at more than `result`, in each Python at other parts."""

    async def main():
        loop = asyncio.get_running_loop()
        with backend.pool() as pool:
            awaited = await apply_async(pow, (2, 10))
            wrapped = await asyncio.wrap_future(apply_async(pow, (2, 11)))
            in_executor = await loop.run_in_executor(pool, pow, 2, 12)
            gathered = await asyncio.gather(
                *[asyncio.wrap_future(pool.submit(divmod, 3, by)) for by in (2, 0)],
                return_exceptions=True,
            )
        with pytest.raises(LookupError):
            await apply_async(fail)
        return awaited, wrapped, in_executor, gathered[0], type(gathered[1])

    assert asyncio.run(main()) == (1024, 2048, 4096, (1, 1), ZeroDivisionError)


def test_its_repr_tells_how_it_ended(backend):
    returned, raised = apply_async(divmod, (7, 2)), apply_async(fail)
    concurrent.futures.wait([returned, raised], PATIENCE)

    assert "state=finished returned" in repr(returned)
    assert "state=finished raised" in repr(raised)
    assert returned.get() == (3, 1)
    assert "None" not in repr(returned)


def test_get_gives_up_after_its_timeout_and_the_task_goes_on(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial is done when it returns")
    closed = gate()
    result = apply_async(closed.pass_through, ("through",))
    closed.wait_for_arrivals(1)

    for expected in (TaskTimeoutError, TimeoutError, multiprocessing.TimeoutError):
        with pytest.raises(expected):
            result.get(timeout=0.01)
    assert not result.ready()
    assert result.running()
    with pytest.raises(ValueError, match="has not ended"):
        result.successful()

    closed.open()
    assert result.get(PATIENCE) == "through"


def test_timeout_fails_the_result(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial is done when it returns")
    never_opened = gate()

    with pytest.raises(TaskTimeoutError, match=r"within 0\.1 seconds"):
        apply_async(never_opened.pass_through, timeout=0.1).get()


def test_what_does_not_run_yet_can_be_cancelled(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial is done when it returns")
    closed = gate()
    running = [apply_async(closed.pass_through, (n,)) for n in range(2)]
    closed.wait_for_arrivals(2)
    # More than an executor may hold ready for its workers.
    waiting = [apply_async(abs, (-n,)) for n in range(8)]

    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    assert not running[0].cancel()

    closed.open()
    assert [one.get(PATIENCE) for one in running] == [0, 1]
    with pytest.raises(concurrent.futures.CancelledError):
        waiting[-1].get()
    assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()


def test_cancelling_the_awaiting_task_cancels_the_work(backend, gate):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial is done when it returns")
    closed = gate()
    blockers = [apply_async(closed.pass_through) for _ in range(2)]
    closed.wait_for_arrivals(2)
    fillers = [apply_async(abs, (-n,)) for n in range(8)]
    result = apply_async(abs, (-1,))

    async def main():
        waiter = asyncio.ensure_future(_wait_for(result))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)

    asyncio.run(main())

    assert result.cancelled()
    closed.open()
    concurrent.futures.wait([*blockers, *fillers], PATIENCE)


async def _wait_for(result):
    return await result


def test_callbacks_get_the_value_or_the_error(backend):
    seen, happened = [], [threading.Event(), threading.Event()]

    def note(index):
        def callback(outcome):
            seen.append((index, outcome))
            happened[index].set()

        return callback

    apply_async(abs, (-3,), callback=note(0), error_callback=note(1))
    apply_async(fail, callback=note(0), error_callback=note(1))

    assert all(event.wait(PATIENCE) for event in happened)
    by_index = dict(seen)
    assert by_index[0] == 3
    assert isinstance(by_index[1], LookupError)


def test_a_callback_may_block_raise_or_call_back_without_harm(backend, caplog):
    release, called_back = threading.Event(), threading.Event()
    nested = []

    def block(_):
        release.wait(PATIENCE)

    def call_back(value):
        nested.append(pool.apply_async(abs, (-value,)).get(PATIENCE))
        called_back.set()

    with backend.pool() as pool, caplog.at_level(logging.ERROR, "parallel_facade"):
        if not backend.capabilities.runs_in_caller:
            pool.apply_async(abs, (-1,), callback=block)
        pool.apply_async(abs, (-1,), callback=lambda _: 1 // 0)
        pool.apply_async(abs, (-2,), callback=call_back)
        assert pool.pmap(abs, [-1, -2]) == [1, 2]
        release.set()
        assert called_back.wait(PATIENCE)

    assert nested == [2]
    assert "a callback raised" in caplog.text


def test_await_does_not_wait_for_a_callback_that_blocks(backend):
    if backend.capabilities.runs_in_caller:
        pytest.skip("serial runs callbacks when it has a result")
    release, blocks = threading.Event(), threading.Event()

    def block(_):
        blocks.set()
        release.wait(PATIENCE)

    async def ask():
        return await asyncio.wait_for(pool.apply_async(abs, (-2,)), PATIENCE)

    with backend.pool() as pool:
        pool.apply_async(abs, (-1,), callback=block)
        assert blocks.wait(PATIENCE)
        assert asyncio.run(ask()) == 2
        release.set()


def test_a_done_callback_may_close_the_pool(backend):
    closed = threading.Event()
    pool = backend.pool()

    def close(_):
        pool.close()
        closed.set()

    pool.apply_async(abs, (-1,)).add_done_callback(close)

    assert closed.wait(PATIENCE)


def test_retries_apply_to_one_call(backend, tmp_path):
    def succeed_at_third_attempt():
        attempts = len(list(tmp_path.iterdir()))
        (tmp_path / str(attempts)).touch()
        if attempts < 2:
            raise OSError
        return attempts

    assert apply_async(succeed_at_third_attempt, retries=2, retry_on=OSError).get(PATIENCE) == 2


@pytest.mark.requires("survives_crashes")
def test_a_crash_is_its_results_error(backend):
    result = apply_async(os._exit, (4,))

    with pytest.raises(WorkerCrashedError, match="exit code 4|worker died"):
        result.get(PATIENCE)
    assert pmap(abs, [-1]) == [1]


@pytest.mark.requires("can_stop_running_task")
def test_task_timeout_stops_the_task(backend, gate):
    never_opened = gate()

    with pytest.raises(TaskTimeoutError, match=r"longer than 0\.2 seconds"):
        apply_async(never_opened.pass_through, task_timeout=0.2).get(PATIENCE)


@pytest.mark.requires("needs_serialization")
def test_what_cannot_travel_is_refused_at_the_call(backend):
    with pytest.raises(SerializationError, match="generator"):
        apply_async(abs, ((x for x in [1]),))


@pytest.mark.parametrize("option", ["chunksize", "progress"])
def test_options_without_meaning_for_one_call_are_refused(backend, option):
    with backend.pool() as pool, pytest.raises(ConfigurationError, match=f"{option}=1 has no"):
        pool.apply_async(abs, (-1,), **{option: 1})


def test_results_are_decoded_by_whoever_asks(backend):
    if not backend.capabilities.needs_serialization:
        pytest.skip("nothing is decoded within a process")

    with Pool(**backend.settings) as pool:
        result = pool.apply_async(KnowsItsLoader)
        concurrent.futures.wait([result], PATIENCE)
        loaded = result.get()

    assert loaded.loaded_in == threading.get_ident()


class KnowsItsLoader:
    def __getstate__(self):
        return {"loaded_in": None}

    def __setstate__(self, state):
        self.loaded_in = threading.get_ident()


def test_a_callback_may_wait_for_a_call_that_is_retried(backend, tmp_path):
    results, called = [], threading.Event()

    def fail_once():
        if not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise OSError
        return "at last"

    def call_again(_):
        retried = pool.apply_async(fail_once, retries=2, retry_on=OSError)
        results.append(retried.get(PATIENCE))
        called.set()

    with backend.pool() as pool:
        pool.apply_async(abs, (-1,), callback=call_again)
        assert called.wait(PATIENCE)

    assert results == ["at last"]


def test_a_stop_iteration_can_be_awaited(backend):
    def stop():
        raise StopIteration("mine")

    async def main():
        return await apply_async(stop)

    with pytest.raises(RuntimeError, match="the function raised StopIteration"):
        asyncio.run(main())


def test_a_result_that_is_just_ending_cannot_be_cancelled(backend, monkeypatch):
    said = []
    end = BackgroundCall._end

    def end_and_be_asked(background):
        end(background)
        said.append(background.result.cancel())

    monkeypatch.setattr(BackgroundCall, "_end", end_and_be_asked)
    result = apply_async(abs, (-1,))

    assert result.get(PATIENCE) == 1
    assert set(said) == {False}


class Alarm(TimeoutError):
    """What a program raises in a handler when its own time is up."""


@pytest.mark.parametrize("ask", [AsyncResult.get, AsyncResult.wait])
def test_a_time_out_of_the_users_own_is_raised_as_it_is(backend, monkeypatch, ask):
    def handler(*_):
        raise Alarm("theirs")

    exception = concurrent.futures.Future.exception

    def ask_and_be_interrupted(future, timeout=None):
        if future is result and threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGUSR1)
        return exception(future, timeout)

    result = apply_async(abs, (-1,))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with monkeypatch.context() as patch, pytest.raises(Alarm, match="theirs"):
            patch.setattr(concurrent.futures.Future, "exception", ask_and_be_interrupted)
            ask(result)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result.get(PATIENCE) == 1


def test_what_the_program_was_handling_before_is_not_raised_again(backend, gate):
    def handler(*_):
        raise Alarm("theirs")

    closed = gate()
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        signal.raise_signal(signal.SIGUSR1)
    except Alarm:
        if not backend.capabilities.runs_in_caller:
            result = apply_async(closed.pass_through, (1,))
            assert result.wait(0.01) is None
            with pytest.raises(TaskTimeoutError):
                result.get(0.01)
            closed.wait_for_arrivals(1)
            closed.open()
            assert result.get(PATIENCE) == 1
        with pytest.raises(ValueError, match="of the input"):
            pmap(abs, broken_input())
    finally:
        signal.signal(signal.SIGUSR1, before)


def broken_input():
    yield -1
    raise ValueError("of the input")
