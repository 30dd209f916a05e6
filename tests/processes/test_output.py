"""What tasks print, in a file: it is there before their result, as with a plain loop."""

import os
import subprocess
import sys

PRINTS = """
import os, signal, sys, threading
from parallel_facade import imap, pmap

def step(x):
    sys.stdout.write(f"step {x}")
    print(" to stderr", x, file=sys.stderr)
    if x == 2:
        print(" is the last", flush=False)
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 3:
        print(" is stopped")
        threading.Event().wait()
    return x

for x in imap(step, [0, 1], chunksize=1):
    print(f" result {x}", flush=True)
pmap(step, [2], return_exceptions=True)
print("after the crash", flush=True)
pmap(step, [3], return_exceptions=True, task_timeout=1)
print("after the limit", flush=True)
"""


def test_what_tasks_print_is_in_a_file_before_their_result(start_method, tmp_path):
    environment = {**os.environ, "PARALLEL_FACADE_WORKERS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)
    environment["PARALLEL_FACADE_START_METHOD"] = start_method
    with open(tmp_path / "out", "w+") as out:
        subprocess.run(
            [sys.executable, "-c", PRINTS],
            env=environment,
            stdout=out,
            stderr=subprocess.DEVNULL,
            timeout=100,
            check=True,
        )
        out.seek(0)
        written = out.read()

    for said, then in (
        ("step 0", "result 0"),
        ("step 1", "result 1"),
        ("step 2 is the last", "after the crash"),
        ("step 3 is stopped", "after the limit"),
    ):
        assert 0 <= written.find(said) < written.index(then), written


LOSES_THE_DISK = """
import errno
from parallel_facade import Pool
from parallel_facade.backends.process import worker_loop

def lose_the_disk():
    def refuse():
        raise OSError(errno.ENOSPC, "no space left for what is ours")
    worker_loop._flush_output = refuse

with Pool(workers=1) as pool:
    pool.apply_async(lose_the_disk).get()  # it has ended by then
    print(pool.pmap(abs, [-1]))
"""


def test_an_error_of_our_own_in_a_worker_is_told_before_it_ends(start_method):
    ended = subprocess.run(
        [sys.executable, "-c", LOSES_THE_DISK],
        env={**os.environ, "PARALLEL_FACADE_START_METHOD": start_method},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert ended.stdout == "[1]\n"
    assert "OSError: [Errno 28] no space left for what is ours" in ended.stderr
