"""What tasks log, print and warn of reaches the caller, on every back-end."""

import contextlib
import gc
import io
import logging
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest

from parallel_facade import Pool, WorkerCrashedError, apply_async, config, imap, pmap

pytestmark = pytest.mark.each_start_method

PATIENCE = 30


class Keeper(logging.Handler):
    """Keeps the records that it is given."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    @property
    def texts(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def logger():
    """The caller's logger, from INFO up, with a handler that keeps what it gets as ``keeper``."""
    logger = logging.getLogger("tests.relay")
    logger.keeper = Keeper()
    logger.addHandler(logger.keeper)
    logger.setLevel(logging.INFO)
    yield logger
    logger.removeHandler(logger.keeper)
    logger.setLevel(logging.NOTSET)


def log(x):
    logging.getLogger("tests.relay").info("at %s", x, extra={"place": ("here", x)})
    return x


def test_records_reach_the_callers_handlers_as_they_were_logged(backend, logger):
    pmap(log, range(20))

    records = sorted(logger.keeper.records, key=lambda record: record.place[1])
    assert [record.getMessage() for record in records] == [f"at {x}" for x in range(20)]
    assert [record.place for record in records] == [("here", x) for x in range(20)]
    assert {(record.funcName, record.levelname) for record in records} == {("log", "INFO")}


@pytest.mark.requires("needs_serialization")
def test_records_tell_their_item_and_worker(backend, logger):
    pmap(log, range(20))
    pids = set(pmap(lambda _: os.getpid(), range(20)))

    assert {record.place[1]: record.item for record in logger.keeper.records} == {
        x: x for x in range(20)
    }
    workers = {record.worker for record in logger.keeper.records}
    assert workers == {record.process for record in logger.keeper.records}
    if backend.name != "executor-interpreter":
        assert os.getpid() not in workers | pids


def test_a_record_is_there_before_the_result(backend, logger):
    for number, x in enumerate(imap(log, range(5))):
        assert f"at {x}" in logger.keeper.texts
        assert len(logger.keeper.texts) > number

    assert apply_async(log, (70,)).get(30) == 70
    assert "at 70" in logger.keeper.texts


def test_what_the_callers_levels_and_filters_do_not_want_is_not_handled(backend, logger):
    def log_both(x):
        logging.getLogger("tests.relay").debug("below the level")
        logging.getLogger("tests.relay.quiet").warning("of a quiet child")
        logging.getLogger("tests.relay").info("at %s", x)

    def is_even(record):
        return not record.getMessage().endswith(("1", "3"))

    logging.getLogger("tests.relay.quiet").setLevel(logging.ERROR)
    logger.addFilter(is_even)
    try:
        pmap(log_both, range(4))
    finally:
        logger.removeFilter(is_even)
        logging.getLogger("tests.relay.quiet").setLevel(logging.NOTSET)

    assert sorted(logger.keeper.texts) == ["at 0", "at 2"]


def test_levels_are_those_of_each_call(backend, logger):
    pmap(log, [1])
    logger.setLevel(logging.ERROR)
    pmap(log, [2])
    logger.setLevel(logging.DEBUG)
    pmap(log, [3])

    assert logger.keeper.texts == ["at 1", "at 3"]


def test_a_logged_exception_has_its_traceback(backend, logger):
    def fail_and_log(x):
        try:
            return 1 / x
        except ZeroDivisionError:
            logging.getLogger("tests.relay").exception("it went wrong")

    pmap(fail_and_log, [0])

    [record] = logger.keeper.records
    text = logging.Formatter().format(record)
    assert "in fail_and_log" in text
    assert text.endswith("ZeroDivisionError: division by zero")


@pytest.mark.requires("needs_serialization")
def test_a_record_that_cannot_be_told_fails_no_item(backend, logger):
    def log_badly(x):
        loop = []
        loop.append(loop)
        logging.getLogger("tests.relay").info("no number: %d", "x")
        logging.getLogger("tests.relay").info("at %s", x, extra={"loop": loop})
        return x

    with contextlib.redirect_stderr(io.StringIO()) as complaints:
        assert pmap(log_badly, range(3)) == [0, 1, 2]

    assert sorted(logger.keeper.texts) == ["at 0", "at 1", "at 2"]
    assert {record.loop for record in logger.keeper.records} == {"[[...]]"}
    assert complaints.getvalue().count("Logging error") == 3


def test_threads_of_a_task_are_heard(backend, logger):
    if backend.name in {"dask", "ray", "mpi", "ppft", "executor-process", "executor-interpreter"}:
        pytest.skip("its process is not the library's, and may run tasks of others")

    def log_in_a_thread(x):
        thread = threading.Thread(target=log, args=(x,))
        thread.start()
        thread.join()

    pmap(log_in_a_thread, range(4))

    assert sorted(logger.keeper.texts) == [f"at {x}" for x in range(4)]


def print_both(x):
    print("line", x)
    print("no end", x, end="", file=sys.stderr)
    return x


def test_printed_text_is_written_where_the_caller_writes(backend):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        pmap(print_both, range(4), chunksize=1)

    assert sorted(out.getvalue().splitlines()) == [f"line {x}" for x in range(4)]
    assert sorted(err.getvalue().replace("no", "\nno").split("\n")[1:]) == [
        f"no end {x}" for x in range(4)
    ]


def test_printed_text_is_captured_by_pytest(backend, capsys):
    apply_async(print_both, (7,)).get(30)

    assert capsys.readouterr() == ("line 7\n", "no end 7")


def test_a_task_that_redirects_keeps_its_text(backend, capsys):
    if not backend.capabilities.has_private_state:
        pytest.skip("its workers share one standard output")

    def captured(x):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            print(x)
        return out.getvalue()

    assert pmap(captured, range(3)) == ["0\n", "1\n", "2\n"]
    assert capsys.readouterr().out == ""


def warn(x):
    warnings.warn("be careful", UserWarning, stacklevel=1)
    return x


@pytest.mark.parametrize(("action", "count"), [("default", 1), ("ignore", 0), ("always", 8)])
def test_warnings_are_shown_as_often_as_the_callers_filters_say(backend, action, count):
    if not backend.capabilities.needs_serialization and action == "default":
        pytest.skip("the interpreter itself forgets what it has shown when dill takes code apart")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(action)
        pmap(warn, range(8), chunksize=1)

    ours = [one for one in shown if "careful" in str(one.message)]
    assert len(ours) == count
    assert all(one.category is UserWarning and one.filename == __file__ for one in ours)


def test_warnings_of_calls_in_the_background_are_recorded(backend):
    for x in range(6):
        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            apply_async(warn, (x,)).get(30)
        assert [str(one.message) for one in recorded] == ["be careful"]


def test_a_warning_that_is_an_error_to_the_caller_is_one_in_the_task(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="be careful"):
            pmap(warn, range(3))


class OwnWarning(UserWarning):
    pass


def test_a_warning_of_the_callers_own_class_is_shown_as_that(backend):
    def warn_of_own(x):
        warnings.warn("mine", OwnWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        pmap(warn_of_own, [1])

    assert [(str(one.message), one.category) for one in shown if "mine" in str(one.message)] == [
        ("mine", OwnWarning)
    ]


@pytest.mark.requires("needs_serialization")
def test_without_relay_nothing_comes(backend, logger, capsys):
    with config(relay=False):
        pmap(log, range(3))
        assert logger.keeper.records == []

        if backend.name in {"ppft", "ray"}:
            pytest.skip("the engine itself prints what its tasks print, some time later")
        assert pmap(print_both, range(3)) == [0, 1, 2]

    assert capsys.readouterr() == ("", "")


@pytest.mark.requires("tells_what_ran")
def test_what_a_worker_said_before_it_died_is_heard(backend, logger):
    def log_and_die(x):
        log(x)
        os._exit(3)

    with pytest.raises(WorkerCrashedError):
        pmap(log_and_die, [1])

    assert logger.keeper.texts == ["at 1"]


@pytest.mark.requires("tells_what_ran")
def test_a_process_that_a_task_forks_does_not_speak_for_it(backend, logger):
    def fork_and_log(x):
        pid = os.fork()
        if not pid:
            log("never")
            print("never", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        return log(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        assert pmap(fork_and_log, range(4)) == [0, 1, 2, 3]

    assert sorted(logger.keeper.texts) == [f"at {x}" for x in range(4)]


@pytest.mark.requires("tells_what_ran")
def test_what_a_finalizer_prints_in_the_middle_of_a_message_breaks_nothing(backend, capsys):
    class Noisy:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            print("gone")

    def leave_cycles(x):
        for _ in range(50):
            Noisy()
        print("x" * 10_000)
        gc.collect()
        return bytes(200_000)

    assert pmap(len, pmap(leave_cycles, range(20))) == [200_000] * 20
    assert capsys.readouterr().out.count("x" * 10_000) == 20


def test_a_program_in_a_terminal_prints_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import logging, sys, warnings\n"
        "from parallel_facade import pmap\n"
        "def f(x):\n"
        "    sys.stdout.write(f'printed {x}\\n')\n"
        "    sys.stdout.flush()\n"
        "    logging.warning('logged %s', x)\n"
        "    warnings.warn('warned')\n"
        "pmap(f, range(4), backend='process', workers=2, chunksize=1)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)

    assert sorted(ended.stdout.splitlines()) == [f"printed {x}" for x in range(4)]
    logged = [line for line in ended.stderr.splitlines() if line.startswith("logged")]
    assert sorted(logged) == [f"logged {x}" for x in range(4)]
    assert ended.stderr.count("UserWarning: warned") == 1


def test_handlers_that_a_worker_has_set_up_are_called(start_method, tmp_path, logger):
    file = tmp_path / "worker.log"

    def log_to_file():
        logging.getLogger("tests.relay").addHandler(logging.FileHandler(file))

    with Pool("process", 1, start_method=start_method, initializer=log_to_file) as pool:
        pool.pmap(log, [1, 2])

    assert file.read_text().split("\n") == ["at 1", "at 2", ""]
    assert logger.keeper.texts == ["at 1", "at 2"]


@pytest.mark.requires("can_take_back")
def test_a_task_that_talks_all_the_time_holds_no_other_up(backend, tmp_path):
    heard = tmp_path / "heard"

    def talk(x):
        until = time.monotonic() + PATIENCE
        while x == 1 and not heard.exists():
            print("on and on")
            assert time.monotonic() < until, "nobody had the outcome of item 0 meanwhile"
        return x

    results = imap(talk, [0, 1], chunksize=2)
    assert next(results) == 0
    heard.touch()
    assert next(results) == 1
