"""Programs and tasks in unusual processes and systems: pools work there, or say why not."""

import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from programs import program, run

from parallel_facade import Pool

BACKENDS = ["serial", "thread", "process"]

IN_CALLERS = {
    "blocks SIGCHLD": """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print(crashes(), plus())
""",
    "handles SIGCHLD by waiting for any child": """
def reap(*args):
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
signal.signal(signal.SIGCHLD, reap)
print(crashes(), plus())
""",
    "ignores SIGCHLD": """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(crashes(), plus())
""",
    "has few descriptors": """
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, used + 60))
print(crashes(), plus())
""",
    "has many descriptors": """
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
print(crashes(), plus())
""",
    "has closed stdin, stdout and stderr": """
saved = os.dup2(1, 200)
os.set_inheritable(saved, False)
os.closerange(0, 3)
text = f"{crashes()} {plus()}\\n"
os.write(saved, text.encode())
""",
    "has text streams of its own": """
sys.stdin, sys.stdout, sys.stderr = None, io.StringIO(), None
text = f"{crashes()} {plus()}\\n"
os.write(1, text.encode())
""",
    "has left the folder it started in": """
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
print(crashes(), plus())
""",
    "has forked": """
plus()
child = os.fork()
if not child:
    assert plus() == [1, 2, 3]
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(crashes(), plus())
""",
    "has forked a child that exits as programs do": """
plus()
child = os.fork()
if not child:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(crashes(), plus())
""",
    "calls from a thread without end": """
def call_for_ever():
    while True:
        apply_async(abs, (-1,)).get()
threading.Thread(target=call_for_ever, daemon=True).start()
print(crashes(), plus())
""",
}

PREAMBLE = """
import contextlib, io, logging, os, resource, signal, sys, tempfile, threading
from parallel_facade import Pool, WorkerCrashedError, apply_async, pmap

def plus():
    return pmap(lambda x: x + 1, range(3))

def crashes():
    return [type(e).__name__ for e in pmap(os._exit, [3], return_exceptions=True)]
"""


def start(code, start_method, tmp_path):
    return program(
        code,
        PARALLEL_FACADE_START_METHOD=start_method,
        PYTHONWARNINGS="ignore::RuntimeWarning,ignore::DeprecationWarning",
        PYTHONDEVMODE="1",
        TMPDIR=str(tmp_path),
    )


def imports_in_a_removed_folder():
    """Return whether this Python can; 3.13.0 to 3.13.2 cannot (python/cpython#130932)."""
    code = "import os, sys, tempfile\nwith tempfile.TemporaryDirectory() as f: os.chdir(f)\n"
    code += "os.execv(sys.executable, [sys.executable, '-c', 'import socket'])"
    return not subprocess.run([sys.executable, "-c", code], capture_output=True).returncode


def test_workers_leave_a_folder_that_was_removed(start_method, tmp_path, monkeypatch):
    removed, other = tmp_path / "removed", tmp_path / "other"
    removed.mkdir()
    other.mkdir()
    with Pool(start_method=start_method, workers=1) as pool:
        monkeypatch.chdir(removed)
        assert pool.pmap(lambda _: os.getcwd(), [0]) == [str(removed)]
        removed.rmdir()
        monkeypatch.chdir(other)
        assert pool.pmap(lambda _: os.getcwd(), [0]) == [str(other)]


@pytest.mark.parametrize("surroundings", IN_CALLERS)
def test_a_caller_that(start_method, tmp_path, surroundings):
    if "folder" in surroundings and start_method != "fork" and not imports_in_a_removed_folder():
        pytest.skip("a new process of this Python cannot import anything in a removed folder")
    with start(PREAMBLE + IN_CALLERS[surroundings], start_method, tmp_path) as running:
        assert running.end() == (0, "['WorkerCrashedError'] [1, 2, 3]\n", "")
    assert os.listdir(tmp_path) == []


IN_TASKS = {
    "closes every file": """
os.closerange(3, 4096)
""",
    "writes into every file": """
for fd in range(3, 256):
    with contextlib.suppress(OSError):
        os.set_blocking(fd, False)
        os.write(fd, b"garbage" * 100)
""",
    "forks and returns": """
os.fork()
""",
    "forks and raises": """
if not os.fork():
    raise RuntimeError("in the child")
""",
    "leaves its folder, mask and environment": """
os.chdir("/")
os.umask(0o777)
os.environ.clear()
""",
}

USE = """
logging.disable()  # a worker that is replaced for what it sent is told of
with Pool() as pool:
    for _ in range(3):
        [found] = pool.pmap(harm, [5], return_exceptions=True)
        assert found == 5 or isinstance(found, WorkerCrashedError), found
        assert pool.pmap(lambda x: x + 1, range(6), chunksize=1) == [1, 2, 3, 4, 5, 6]
print("all is well")
"""


@pytest.mark.parametrize("harm", IN_TASKS)
def test_a_task_costs_its_item_at_most_that(start_method, tmp_path, harm):
    # In a program of its own: under fork, a worker has the files of its caller, and what belongs to
    # other users of that process would be harmed too.
    task = f"def harm(x):{textwrap.indent(IN_TASKS[harm], '    ')}    return x\n"
    with start(PREAMBLE + task + USE, start_method, tmp_path) as running:
        assert running.end()[:2] == (0, "all is well\n")  # others may say what befell them


def test_bytes_may_not_be_compared_with_text(start_method):
    code = "from parallel_facade import pmap; print(pmap(lambda x: x + 1, [1, 2]))"

    assert run("-bb", "-c", code, PARALLEL_FACADE_START_METHOD=start_method) == "[2, 3]\n"


@pytest.mark.parametrize("executable", [None, "", "/nowhere/python"])
def test_a_python_that_knows_no_interpreter(start_method, executable):
    code = f"""
import sys
sys.executable = {executable!r}
from parallel_facade import ConfigurationError, pmap
try:
    print(pmap(lambda x: x + 1, [1, 2]))
except ConfigurationError as exc:
    print(str(exc).splitlines()[0])
print(pmap(abs, [-1], backend="thread"))
"""
    printed = run("-c", code, PARALLEL_FACADE_START_METHOD=start_method)

    if start_method == "fork":
        assert printed == "[2, 3]\n[1]\n"
    else:
        assert f"sys.executable is {executable!r}" in printed
        assert printed.startswith(f"start_method='{start_method}' starts a Python interpreter")


def test_a_program_without_stderr_has_no_bar(start_method):
    code = """
import sys
sys.stderr = None
from parallel_facade import pmap
print(pmap(lambda x: x + 1, range(3), progress=True), pmap(abs, [-1], progress="Fitting"))
"""
    assert run("-c", code, PARALLEL_FACADE_START_METHOD=start_method) == "[1, 2, 3] [1]\n"


def test_the_default_timeout_of_sockets_is_the_programs_business(start_method):
    code = """
import socket, threading
socket.setdefaulttimeout(0.05)
from parallel_facade import Pool
with Pool(workers=2) as pool:
    for _ in range(3):
        print(pool.pmap(lambda x: x + 1, range(2)))
        threading.Event().wait(0.2)  # longer than the time-out: the workers wait
"""
    assert run("-c", code, PARALLEL_FACADE_START_METHOD=start_method) == "[1, 2]\n" * 3


def can_unshare():
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0


READ_ONLY = """
for folder in / /tmp /var/tmp /usr/tmp; do
    mount --bind "$folder" "$folder" 2>/dev/null && mount -o remount,ro,bind "$folder"
done
cd /; unset TMPDIR TEMP TMP
exec "$PYTHON" -c '
import tempfile
try:
    tempfile.gettempdir()
except FileNotFoundError:
    print("no folder")
from parallel_facade import pmap
print(pmap(lambda x: x + 1, [1, 2]))
'
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None or not can_unshare(), reason="it needs root and unshare"
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_system_that_is_read_only(backend, start_method):
    if backend == "process" and not hasattr(os, "memfd_create"):
        pytest.skip("memory to share is a temporary file here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", READ_ONLY],
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PARALLEL_FACADE_BACKEND": backend,
            "PARALLEL_FACADE_START_METHOD": start_method,
            "PARALLEL_FACADE_WORKERS": "2",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert (done.returncode, done.stdout) == (0, "no folder\n[2, 3]\n"), done.stderr[-2000:]


ATTACHES = """
from {package} import shared_memory
from parallel_facade import Pool

def work(number):
    attached = shared_memory.SharedMemory(name)
    attached.buf[number] = number
    attached.close()
    return number

def make(size):
    made = shared_memory.SharedMemory(create=True, size=size)
    made.buf[0] = 7
    made.close()
    return made.name

memory = shared_memory.SharedMemory(create=True, size=80)
name = memory.name
for _ in range(2):
    with Pool(workers=2) as pool:
        print(pool.pmap(work, [1, 2]), bytes(memory.buf[:3]))
        (theirs,) = pool.pmap(make, [16])
    again = shared_memory.SharedMemory(theirs)
    print(again.buf[0])
    again.close()
    again.unlink()
memory.close()
memory.unlink()
"""


@pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
def test_shared_memory_outlives_the_workers_that_attach_or_make_it(start_method, package):
    printed = run("-c", ATTACHES.format(package=package), PARALLEL_FACADE_START_METHOD=start_method)

    assert printed == "[1, 2] b'\\x00\\x01\\x02'\n7\n" * 2


EXITS = """
import atexit, os, sys, tempfile
from parallel_facade import Pool

folder = sys.argv[1]
mine = tempfile.TemporaryDirectory(dir=folder, prefix="caller")

def begin():
    global theirs
    theirs = tempfile.TemporaryDirectory(dir=folder, prefix="worker")
    atexit.register(open(f"{folder}/ended", "w").close)

with Pool(workers=1, initializer=begin) as pool:
    assert pool.pmap(abs, [-1]) == [1]
print(*sorted(name[:6] for name in os.listdir(folder)))
"""


def test_exit_handlers_of_a_worker_run_and_those_of_its_parent_do_not(tmp_path, start_method):
    printed = run("-c", EXITS, str(tmp_path), PARALLEL_FACADE_START_METHOD=start_method)

    assert printed == "caller ended\n"


EXIT_HANDLER = """
import atexit
from parallel_facade import pmap
atexit.register(lambda: print(pmap(lambda x: x + 1, range(3))))
"""


def test_the_first_call_of_a_program_may_be_in_an_exit_handler(start_method):
    starts = "import atexit, threading; atexit.register(lambda: threading.Thread().start())"
    if subprocess.run([sys.executable, "-c", starts], stderr=subprocess.PIPE, check=True).stderr:
        pytest.skip("this Python starts no thread in an exit handler")

    assert run("-c", EXIT_HANDLER, PARALLEL_FACADE_START_METHOD=start_method) == "[1, 2, 3]\n"


def test_multiprocessing_knows_the_name_and_number_of_a_worker(start_method):
    def identity(_):
        process = multiprocessing.current_process()
        return process.name, process._identity[0], logging.makeLogRecord({}).processName

    with Pool(workers=1, start_method=start_method) as pool:
        [(name, number, logged)] = pool.pmap(identity, [0])

    assert name == f"WorkerPoolWorker-{number}"
    assert logged == name


def test_a_task_may_close_all_descriptors(start_method):
    code = "import os; from parallel_facade import pmap; pmap(lambda _: os.closerange(3, 256), [1])"

    assert run("-c", code, PARALLEL_FACADE_START_METHOD=start_method) == ""
