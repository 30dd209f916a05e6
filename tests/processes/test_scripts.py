"""Real programs, without a main guard, run as a user runs them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run, survivors

BACKENDS = ["serial", "thread", "process"]

SCRIPT = """
import os, sys
from pathlib import Path
from parallel_facade import pmap, imap, apply_async

with open(os.environ["TRACE"], "a") as trace:
    trace.write("run\\n")

OFFSET = 100

def shifted(x):
    return x + OFFSET

class Point:
    def __init__(self, x):
        self.x = x
    def __eq__(self, other):
        return type(other) is Point and other.x == self.x
    def plus(self, y):
        return Point(self.x + y)

class OwnError(Exception):
    pass

def fail(x):
    raise OwnError(x)

double = lambda x: 2 * x

print(pmap(shifted, range(5)))
print(pmap(double, range(5)))
print(pmap(Point, [1, 2]) == [Point(1), Point(2)])
print(pmap(Point(1).plus, [1, 2]) == [Point(2), Point(3)])
print(list(imap(double, range(3))))
print(apply_async(shifted, (1,)).get())
print(pmap(lambda n: pmap(double, range(n)), [2, 3]))
try:
    pmap(fail, [1, 2])
except OwnError as exc:
    print("caught", exc.args, exc.__notes__)
OFFSET = 200
print(pmap(shifted, range(2)))
"""

EXPECTED = """\
[100, 101, 102, 103, 104]
[0, 2, 4, 6, 8]
True
True
[0, 2, 4]
101
[[0, 2], [0, 2, 4]]
caught (1,) ['while running item 0: 1']
[200, 201]
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unchanged_script_prints_the_same_on_every_back_end(tmp_path, trace, backend):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    printed = run(str(script), PARALLEL_FACADE_BACKEND=backend, TRACE=str(trace))

    assert printed == EXPECTED
    assert trace.read_text() == "run\n"


def test_an_unguarded_script_runs_once_on_every_start_method(tmp_path, trace, start_method):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    printed = run(str(script), PARALLEL_FACADE_START_METHOD=start_method, TRACE=str(trace))

    assert printed == EXPECTED
    assert trace.read_text() == "run\n"


def test_from_the_command_line_and_from_standard_input(trace, start_method):
    options = {"PARALLEL_FACADE_START_METHOD": start_method, "TRACE": str(trace)}

    assert run("-c", SCRIPT, **options) == EXPECTED
    assert run("-", stdin=SCRIPT, **options) == EXPECTED
    assert trace.read_text() == "run\n" * 2


def test_as_a_module_and_from_a_package_beside_the_script(tmp_path, trace, start_method):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("def cube(x):\n    return x**3\n")
    (tmp_path / "program.py").write_text(
        "from parallel_facade import pmap\nimport helpers\n"
        "print(pmap(helpers.cube, range(3)), pmap(lambda x: helpers.cube(x), [3]))\n"
    )
    options = {"PARALLEL_FACADE_START_METHOD": start_method, "PYTHONPATH": str(tmp_path)}

    assert run("-m", "program", **options) == "[0, 1, 8] [27]\n"


def test_modules_made_importable_after_the_workers_started(tmp_path, start_method):
    (tmp_path / "late_module.py").write_text("def square(x):\n    return x * x\n")
    code = (
        "import sys; from parallel_facade import pmap; pmap(abs, [1])\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import late_module; print(pmap(late_module.square, [3]))"
    )

    assert run("-c", code, PARALLEL_FACADE_START_METHOD=start_method) == "[9]\n"


def test_relative_paths_are_the_callers_of_now(tmp_path, start_method):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data.txt").write_text("found")
    code = (
        "import os; from parallel_facade import pmap; pmap(abs, [1])\n"
        f"os.chdir({str(tmp_path / 'here')!r})\n"
        "print(pmap(lambda name: open(name).read(), ['data.txt']))"
    )

    printed = run("-W", "ignore", "-c", code, PARALLEL_FACADE_START_METHOD=start_method)

    assert printed == "['found']\n"


def test_in_a_thread(start_method):
    code = """
import threading
from parallel_facade import pmap
results = []
thread = threading.Thread(target=lambda: results.append(pmap(lambda x: x * x, range(10))))
thread.start(); thread.join()
print(results)
"""
    options = {"PARALLEL_FACADE_START_METHOD": start_method}
    if start_method == "fork":
        options["PYTHONWARNINGS"] = "ignore"

    assert run("-c", code, **options) == "[[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]]\n"


def test_fork_beside_other_threads_warns_once():
    code = """
import threading, warnings
from parallel_facade import Pool
stay = threading.Event()
threading.Thread(target=stay.wait, daemon=True).start()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        Pool(start_method="fork").close()
print(sum("start_method='fork' while other threads" in str(one.message) for one in caught))
"""
    assert run("-c", code) == "1\n"


NESTING = """
import os
from parallel_facade import pmap, Pool

def depth(n):
    if n == 0:
        return [os.getpid()]
    return sum(pmap(depth, [n - 1] * 2, backend="process", workers=2), [])

pids = set(depth(4))
print(len(pids) <= 2, os.getpid() in pids)

def own_pool(_):
    with Pool(backend="process", workers=3) as pool:
        return set(pool.pmap(lambda _: os.getpid(), range(4))) == {os.getpid()}

print(pmap(own_pool, range(2)))
"""


def test_nested_calls_never_multiply_the_workers(start_method):
    printed = run("-c", NESTING, PARALLEL_FACADE_START_METHOD=start_method)

    assert printed == "True False\n[True, True]\n"


def test_a_task_may_start_processes_of_its_own(start_method):
    code = """
import multiprocess, multiprocessing
from parallel_facade import pmap
def run(package):
    context = (multiprocess if package else multiprocessing).get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=queue.put, args=(package,))
    process.start(); process.join()
    return queue.get()
print(pmap(run, [0, 1]))
"""
    assert run("-c", code, PARALLEL_FACADE_START_METHOD=start_method) == "[0, 1]\n"


LEAVES = """
import psutil
from parallel_facade import Pool, pmap
{use}
print([child.cmdline()[-1] for child in psutil.Process().children(recursive=True)])
"""


def test_a_closed_pool_leaves_no_process_at_all(start_method):
    use = f"with Pool(start_method={start_method!r}) as pool: pool.pmap(abs, [1])"

    assert run("-c", LEAVES.format(use=use)) == "[]\n"


LEFT_OPEN = """
import os, psutil
from parallel_facade import Pool, imap, apply_async, pmap
pmap(abs, [1])
forgotten = Pool(workers=1)
started = imap(lambda x: x, range(100))
next(started)
pending = [apply_async(__import__("time").sleep, (600,)) for _ in range(4)]
open(os.environ["TRACE"], "w").write(
    "\\n".join(str(child.pid) for child in psutil.Process().children(recursive=True)))
print("end")
"""


def test_the_program_ends_with_work_in_flight_and_leaves_nothing(trace, start_method):
    printed = run(
        "-W", "ignore::ResourceWarning", "-c", LEFT_OPEN,
        PARALLEL_FACADE_START_METHOD=start_method, TRACE=str(trace),
    )  # fmt: skip

    assert printed == "end\n"
    pids = [int(line) for line in trace.read_text().splitlines()]
    assert len(pids) >= 3
    assert [pid for pid in pids if _is_alive(pid)] == []


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


ORPHANS = """
import os, psutil, sys
from parallel_facade import pmap
children = pmap(lambda _: os.getpid(), range(10), chunksize=1)
print(*{child.pid for child in psutil.Process().children(recursive=True)}, flush=True)
sys.stdin.read()
"""


def test_workers_leave_when_their_parent_is_killed(start_method):
    import psutil

    with subprocess.Popen(
        [sys.executable, "-c", ORPHANS],
        env={**os.environ, "PARALLEL_FACADE_START_METHOD": start_method},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]

        parent.send_signal(signal.SIGKILL)

        alive = survivors(workers)
    assert len(workers) >= 2
    assert alive == []


FORKED_CHILD = """
import os
from parallel_facade import pmap
print(pmap(lambda x: x + 1, [1, 2]), flush=True)
pid = os.fork()
print(pmap(lambda x: x * 10, [1, 2]), flush=True)
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_a_forked_child_makes_a_pool_of_its_own(start_method):
    printed = run("-W", "ignore", "-c", FORKED_CHILD, PARALLEL_FACADE_START_METHOD=start_method)

    assert printed == "[2, 3]\n" + "[10, 20]\n" * 2


INTERRUPTED = """
import os, signal, threading
from parallel_facade import pmap
from gates import Gate
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
gate = Gate(Path(os.environ["TRACE"]))

def interrupt():
    gate.wait_for_arrivals(2)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    pmap(gate.pass_through, range(10), chunksize=1)
except KeyboardInterrupt:
    print("interrupted")
print(pmap(abs, [-1, -2]))
"""


def test_ctrl_c_stops_a_running_map_and_the_next_call_works(trace, start_method):
    printed = run(
        "-W", "ignore", "-c", INTERRUPTED,
        PARALLEL_FACADE_START_METHOD=start_method,
        TRACE=str(trace),
        PYTHONPATH=str(Path(__file__).parents[1]),
    )  # fmt: skip

    assert printed == "interrupted\n[1, 2]\n"


def test_the_process_keeps_its_start_method_and_pickle_as_they_were():
    code = """
import copyreg, pickle, sys, multiprocess, multiprocessing
from parallel_facade import explain, pmap
class Local: pass
main = sys.modules["__main__"]
names = {*globals(), "names", "before", "dill", "settings"}
before = dict(copyreg.dispatch_table), pickle.Pickler, pickle.dumps
import dill
settings = dict(dill.settings)
assert type(pmap(lambda x: Local(), [1])[0]) is Local
assert not explain(x for x in []).travels
print(sys.modules["__main__"] is main, set(globals()) == names)
print(multiprocess.get_start_method(allow_none=True), multiprocessing.get_start_method(True))
print(before == (dict(copyreg.dispatch_table), pickle.Pickler, pickle.dumps))
print(settings == dict(dill.settings))
"""
    assert run("-c", code) == "True True\nNone None\nTrue\nTrue\n"


def test_print_and_exit_in_a_serial_task_are_the_callers(tmp_path):
    code = (
        "import sys; from parallel_facade import imap\n"
        "for x in imap(lambda x: print('in', x) or (x < 2 or sys.exit(0)), range(9)):\n"
        "    print('out', x)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PARALLEL_FACADE_BACKEND": "serial"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stdout == "in 0\nout True\nin 1\nout True\nin 2\n"
    assert done.stderr == "item 2 has raised SystemExit(0), which ends the program\n"
    assert done.returncode == 0


NO_REPLACEMENT = """
import os, resource
from parallel_facade import WorkerCrashedError, pmap

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
pmap(abs, [1])
in_use = max(int(name) for name in os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (in_use, hard))
for attempt in range(2):
    try:
        pmap(os._exit, [7], workers=1)
        print("no error")
    except (WorkerCrashedError, OSError) as exc:
        print(type(exc).__name__)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(pmap(abs, [-1]))
"""


def test_a_worker_that_cannot_be_replaced_is_an_error(start_method):
    printed = run(
        "-W", "ignore", "-c", NO_REPLACEMENT,
        PARALLEL_FACADE_START_METHOD=start_method, PARALLEL_FACADE_WORKERS="1",
    )  # fmt: skip

    *errors, after = printed.splitlines()
    assert errors[0] == "WorkerCrashedError"
    assert errors[1] in {"WorkerCrashedError", "OSError"}
    assert after == "[1]"
