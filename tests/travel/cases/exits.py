"""What ends a program, raised by a task: it reaches the caller, and the pool lives."""

import asyncio
import os
import sys
import threading

from runner import main


class OwnBase(BaseException):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


def arrives(pmap, func, kind, items=(1,)):
    """Return what *func* raises in the caller, which must be of *kind*; the pool must live."""
    try:
        pmap(func, items)
    except kind as exc:
        assert type(exc) is kind
        assert pmap(abs, [-1, -2, -3]) == [1, 2, 3]
        return exc
    raise AssertionError(f"{kind.__name__} did not arrive")


def raiser(error):
    def raise_it(_):
        raise error

    return raise_it


def case_system_exit(pmap):
    assert arrives(pmap, raiser(SystemExit(3)), SystemExit).code == 3


def case_sys_exit_with_text(pmap):
    assert arrives(pmap, lambda _: sys.exit("bye"), SystemExit).code == "bye"


def case_sys_exit_without_anything(pmap):
    assert arrives(pmap, lambda _: sys.exit(), SystemExit).code is None


def case_quit(pmap):
    def quits(_):
        raise SystemExit

    assert arrives(pmap, quits, SystemExit).args == ()


def case_keyboard_interrupt(pmap):
    arrives(pmap, raiser(KeyboardInterrupt("k")), KeyboardInterrupt)


def case_generator_exit(pmap):
    assert arrives(pmap, raiser(GeneratorExit(1)), GeneratorExit).args == (1,)


def case_of_the_user(pmap):
    assert arrives(pmap, raiser(OwnBase(5)), OwnBase).code == 5


def case_cancelled(pmap):
    arrives(pmap, raiser(asyncio.CancelledError("c")), asyncio.CancelledError)


def case_in_a_group(pmap):
    group = BaseExceptionGroup("g", [SystemExit(1), ValueError(2)])

    got = arrives(pmap, raiser(group), BaseExceptionGroup)

    assert [type(one) for one in got.exceptions] == [SystemExit, ValueError]


def case_an_exit_is_kept_in_place_by_return_exceptions(pmap):
    results = pmap(lambda x: sys.exit(x) if x else x, [0, 4, 0], return_exceptions=True)

    assert results[::2] == [0, 0]
    assert (type(results[1]), results[1].code) == (SystemExit, 4)


def case_an_interrupt_is_not_kept_in_place_by_return_exceptions(pmap):
    try:
        pmap(raiser(KeyboardInterrupt("k")), [1], return_exceptions=True)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("it must end the call, as it does in a loop")


def case_the_lowest_index_is_raised(pmap):
    def task(x):
        raise SystemExit(x) if x % 2 else ValueError(x)

    got = arrives(pmap, task, SystemExit, [1, 2, 3])

    assert got.code == 1


def case_in_a_thread_of_the_task(pmap):
    def task(x):
        thread = threading.Thread(target=lambda: sys.exit(9))
        thread.start()
        thread.join()
        return x

    assert pmap(task, [1, 2]) == [1, 2]


case_in_a_thread_of_the_task.needs_processes = True  # pytest tells of threads that end so


def case_the_end_of_the_process(pmap):
    results = pmap(lambda x: os._exit(7) if x == 1 else x, [0, 1, 2], return_exceptions=True)

    assert results[::2] == [0, 2]
    assert (type(results[1]).__name__, results[1].exitcode) == ("WorkerCrashedError", 7)
    assert pmap(abs, [-1, -2]) == [1, 2]


case_the_end_of_the_process.needs_processes = True

if __name__ == "__main__":
    main(globals())
