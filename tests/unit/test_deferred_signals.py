"""Blocks of the main thread that no signal handler interrupts."""

import signal
import threading

import pytest

from parallel_facade._common.deferred_signals import DeferredSignals


class Handlers:
    """Handlers of two signals, which note what runs, and may raise."""

    def __init__(self):
        self.ran = []
        self.raises = {}

    def __call__(self, number, frame):
        self.ran.append((signal.Signals(number).name, frame is not None))
        if number in self.raises:
            raise self.raises[number]


@pytest.fixture
def handlers():
    handlers = Handlers()
    before = {one: signal.signal(one, handlers) for one in (signal.SIGUSR1, signal.SIGUSR2)}
    yield handlers
    for one, handler in before.items():
        signal.signal(one, handler)


def test_a_handler_runs_at_the_end_of_the_block(handlers):
    with DeferredSignals():
        signal.raise_signal(signal.SIGUSR1)
        assert handlers.ran == []
    assert handlers.ran == [("SIGUSR1", True)]
    assert signal.getsignal(signal.SIGUSR1) is handlers
    signal.raise_signal(signal.SIGUSR1)
    assert len(handlers.ran) == 2


def test_what_a_handler_raises_comes_out_of_the_block(handlers):
    handlers.raises = {signal.SIGUSR1: KeyboardInterrupt()}
    steps = []

    with pytest.raises(KeyboardInterrupt), DeferredSignals():
        signal.raise_signal(signal.SIGUSR1)
        steps.append("the rest")
    assert steps == ["the rest"]


def test_ctrl_c_comes_out_of_the_block():
    steps = []

    with pytest.raises(KeyboardInterrupt), DeferredSignals():
        signal.raise_signal(signal.SIGINT)
        steps.append("the rest")
    assert steps == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_each_handler_runs_if_the_first_raises(handlers):
    handlers.raises = {signal.SIGUSR1: ZeroDivisionError(), signal.SIGUSR2: KeyError()}

    with pytest.raises(KeyError) as caught, DeferredSignals():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert [name for name, _ in handlers.ran] == ["SIGUSR1", "SIGUSR2"]


def test_the_handlers_come_back_if_the_block_fails(handlers):
    with pytest.raises(ZeroDivisionError), DeferredSignals():
        signal.raise_signal(signal.SIGUSR2)
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGUSR2) is handlers
    assert handlers.ran == [("SIGUSR2", True)]


def test_a_handler_of_later_is_seen(handlers):
    with DeferredSignals():
        pass
    later = Handlers()
    signal.signal(signal.SIGUSR1, later)
    with DeferredSignals():
        signal.raise_signal(signal.SIGUSR1)
        assert later.ran == []
    assert (later.ran, handlers.ran) == ([("SIGUSR1", True)], [])


def test_what_has_no_handler_stays_as_it_is(handlers):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with DeferredSignals():
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


def test_other_threads_do_nothing(handlers):
    seen = []

    def enter():
        with DeferredSignals():
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [handlers]
