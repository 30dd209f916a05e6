"""Signals to programs, and the ends of programs: at once, without a word, and nothing stays."""

import fcntl
import logging
import os
import signal
import threading

import pytest
from programs import PATIENCE, program

from parallel_facade import Pool

PREAMBLE = """
import os, signal, sys, threading, time
from parallel_facade import Pool, apply_async, imap, pmap
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it


def hang(x):
    os.write(1, b"running\\n")
    threading.Event().wait()

def hold_the_gil(x):
    os.write(1, b"running\\n")
    sum(range(10**14))

def stop_itself(x):
    os.write(1, b"running\\n")
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def start(code, start_method, tmp_path):
    return program(
        PREAMBLE + code,
        PARALLEL_FACADE_START_METHOD=start_method,
        PYTHONWARNINGS="ignore:start_method='fork':RuntimeWarning",
        TMPDIR=str(tmp_path),
    )


CAUGHT = """
for attempt in range(2):
    try:
        pmap(hang, range(20))
    except KeyboardInterrupt:
        os.write(1, b"interrupted\\n")
print(pmap(lambda x: x + 1, range(3)))
"""


def test_ctrl_c_stops_a_map_and_the_next_call_works(start_method, tmp_path):
    with start(CAUGHT, start_method, tmp_path) as running:
        for _ in range(2):
            running.wait_for("running")
            running.wait_for("running")
            running.interrupt()
            running.wait_for("interrupted")

        assert running.end() == (0, "[1, 2, 3]\n", "")
    assert running.survivors() == []


@pytest.mark.parametrize(
    "call",
    [
        "pmap(hang, range(20))",
        "list(imap(hang, range(20)))",
        "apply_async(hang, (1,)).get()",
        "with Pool() as pool: pool.pmap(hang, range(4))",
    ],
)
def test_ctrl_c_ends_a_program_with_one_traceback(start_method, tmp_path, call):
    with start(call, start_method, tmp_path) as running:
        running.wait_for("running")
        running.interrupt()
        code, _, said = running.end()

    assert code != 0
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert running.survivors() == []


IMPATIENT = """
try:
    with Pool() as pool:
        pool.pmap(hang, range(4))
finally:
    os.write(1, b"over\\n")
"""


def test_a_second_ctrl_c_while_it_cleans_up_is_safe(start_method, tmp_path):
    with start(IMPATIENT, start_method, tmp_path) as running:
        running.wait_for("running")
        running.interrupt()
        running.interrupt()
        code, printed, said = running.end()

    assert code != 0
    assert "over\n" in printed  # the other worker may come to its item after that
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "PoolWorker" not in said
    assert running.survivors() == []
    assert os.listdir(tmp_path) == []


WHILE_IT_IS_MADE = """
import psutil
from pathos.multiprocessing import ProcessPool
make = ProcessPool.__init__
def interrupted(*args, **settings):
    make(*args, **settings)
    os.kill(os.getpid(), signal.SIGINT)
ProcessPool.__init__ = interrupted
try:
    Pool()
except KeyboardInterrupt:
    print([process.cmdline() for process in psutil.Process().children(recursive=True)])
    print([thread.name for thread in threading.enumerate() if "parallel_facade" in thread.name])
ProcessPool.__init__ = make
print(pmap(lambda x: x + 1, range(3)))
"""


def test_ctrl_c_while_a_pool_is_made_leaves_nothing_of_it(start_method, tmp_path):
    with start(WHILE_IT_IS_MADE, start_method, tmp_path) as running:
        assert running.end() == (0, "[]\n[]\n[1, 2, 3]\n", "")
    assert os.listdir(tmp_path) == []


BEFORE_IT_IS_KNOWN = """
import tempfile
from parallel_facade.backends.process.backend import ProcessBackend
begun = os.path.join(tempfile.mkdtemp(), "begun")
os.mkfifo(begun)
def begin(x):
    open(begun, "w").close()
    threading.Event().wait()
submit = ProcessBackend.submit
def interrupted(*args, **settings):
    future = submit(*args, **settings)
    open(begun).close()  # waits until the item is being run
    os.kill(os.getpid(), signal.SIGINT)
    return future
for call in (lambda: pmap(begin, range(9)), lambda: next(imap(begin, range(9))),
             lambda: apply_async(begin, (1,))):
    ProcessBackend.submit = interrupted
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted")
    ProcessBackend.submit = submit
    print(pmap(lambda x: x + 1, range(3)))
"""


def test_a_task_is_stopped_that_began_before_its_interrupted_caller_knew_of_it(
    start_method, tmp_path
):
    code = 'import os\nos.environ["PARALLEL_FACADE_WORKERS"] = "1"\n'
    with start(code + BEFORE_IT_IS_KNOWN, start_method, tmp_path) as running:
        assert running.end() == (0, "interrupted\n[1, 2, 3]\n" * 3, "")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("task", ["hang", "hold_the_gil", "stop_itself"])
def test_workers_end_with_their_caller(start_method, tmp_path, signum, task):
    if start_method == "spawn" and task != "hang" and not hasattr(fcntl, "F_SETSIG"):
        pytest.skip("only the kernel of Linux ends what can run no thread")
    with start(f"pmap({task}, range(20))", start_method, tmp_path) as running:
        running.wait_for("running")
        running.wait_for("running")
        running.process.send_signal(signum)
        code, _, said = running.end()

    assert (code, said) == (-signum, "")
    assert len(running.seen) >= 2
    assert running.survivors() == []
    assert os.listdir(tmp_path) == []


class Alarm(Exception):
    """What a program raises in a handler, to be told of in the middle of whatever it does."""


class RaisesASignal:
    """Has a signal come while it is pickled, or rebuilt, in the process that made it."""

    def __init__(self, when):
        self.when = when
        self.pid = os.getpid()

    def __getstate__(self):
        if self.when == "pickled" and self.pid == os.getpid():
            signal.raise_signal(signal.SIGUSR1)
        return vars(self)

    def __setstate__(self, state):
        vars(self).update(state)
        if self.when == "rebuilt" and self.pid == os.getpid():
            signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("when", ["pickled", "rebuilt"])
@pytest.mark.parametrize("raised", [Alarm, SystemExit])
def test_what_a_handler_raises_is_no_failure_of_an_item(start_method, when, raised):
    def handler(*_):
        raise raised("now")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with Pool(workers=1, start_method=start_method) as pool:
            with pytest.raises(raised, match="now"):
                pool.pmap(lambda x: x, [RaisesASignal(when)], return_exceptions=True)
            assert pool.pmap(abs, [-1]) == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def alarm():
    """A signal whose handler raises `Alarm`, and that comes when the fixture is called."""

    def handler(*_):
        raise Alarm("now")

    before = signal.signal(signal.SIGUSR1, handler)
    yield lambda: signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_what_a_handler_raises_while_a_remark_is_shown_ends_the_call(start_method, alarm, caplog):
    def log(x):
        logging.getLogger("tests.signals").warning("at %s", x)

    class Shows(logging.Handler):
        def emit(self, record):
            alarm()

    logger, shows = logging.getLogger("tests.signals"), Shows()
    logger.addHandler(shows)
    with Pool(workers=1, start_method=start_method) as pool:
        with pytest.raises(Alarm, match="now"):
            pool.pmap(log, [1])
        logger.removeHandler(shows)
        assert pool.pmap(abs, [-1]) == [1]


def test_what_a_handler_raises_while_input_is_pulled_ends_the_call_at_once(start_method, alarm):
    def items():
        yield -1
        alarm()
        yield -2

    with Pool(workers=2, start_method=start_method) as pool:
        results = pool.imap(abs, items())
        with pytest.raises(Alarm, match="now"):
            next(results)
        assert pool.pmap(abs, [-1]) == [1]


def test_a_pool_may_be_closed_by_a_collection_in_its_own_thread(gate, start_method):
    closed = threading.Event()
    blocker = gate()

    def close(_):
        pool.close()
        closed.set()

    pool = Pool(workers=1, start_method=start_method)
    result = pool.apply_async(blocker.pass_through)
    later = pool.apply_async(abs, (-2,))
    # The callbacks of this future are called in the thread that a `__del__` would run in.
    blocker.wait_for_arrivals(1)
    result._call._inner.add_done_callback(close)
    blocker.open()

    assert result.exception(PATIENCE) is None
    assert later.get(PATIENCE) == 2
    assert closed.wait(PATIENCE)
    pool.close()


ENDS = {
    "with work in flight": """
results = [apply_async(hang, (1,)) for _ in range(4)]
iterator = imap(hang, range(100))
waiter = threading.Thread(target=lambda: next(iterator), daemon=True)
waiter.start()
""",
    "by sys.exit in a callback": """
done = threading.Event()
apply_async(abs, (-1,), callback=lambda _: sys.exit(3)).get()
apply_async(abs, (-1,), callback=lambda _: done.set())
done.wait()
""",
    "with a daemon thread in a map": """
threading.Thread(target=pmap, args=(hang, range(9)), daemon=True).start()
""",
    "with a thread that exits": """
thread = threading.Thread(target=lambda: (pmap(abs, [1]), sys.exit(3)))
thread.start()
thread.join()
pending = apply_async(hang, (1,))
""",
    "by SystemExit in a map": """
try:
    pmap(lambda x: sys.exit(x), [5])
except SystemExit as exc:
    assert exc.code == 5
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends(start_method, tmp_path, end):
    code = ENDS[end] + 'os.write(1, b"end\\n")\n'
    with start("import logging; logging.disable()\n" + code, start_method, tmp_path) as running:
        running.wait_for("end")

        assert running.end()[::2] == (0, "")
    assert running.survivors() == []
    assert os.listdir(tmp_path) == []
