"""Real programs that a test starts, signals and watches to their end."""

import os
import select
import subprocess
import sys
from contextlib import contextmanager

import psutil

PATIENCE = 60


def survivors(processes):
    """Return those of *processes* that do not end."""
    return [process for process in processes if not _ends(process)]


def _ends(process):
    """Wait for the end of *process*; it has ended also while nobody has asked for its exit code."""
    if not hasattr(os, "pidfd_open"):
        return psutil.wait_procs([process], timeout=PATIENCE)[1] == []
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def run(*command, stdin=None, **environment):
    """Run Python with *command*; return what it printed, having seen that all went well."""
    done = subprocess.run(
        [sys.executable, *command],
        input=stdin,
        env={**os.environ, "PARALLEL_FACADE_WORKERS": "2", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class Program:
    """A running program in a process group of its own, as a shell would start it."""

    def __init__(self, code, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PARALLEL_FACADE_WORKERS": "2", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what is read ahead would be missing at the end
            start_new_session=True,
        )
        self.seen = set()

    def wait_for(self, text):
        """Read what it prints until a line is *text*."""
        printed = ""
        for line in map(bytes.decode, self.process.stdout):
            printed += line
            if line.strip() == text:
                break
        else:
            code, _, said = self.end()
            raise AssertionError(f"it ended with {code}, {printed!r} and without {text!r}: {said}")
        self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))

    def interrupt(self):
        """Press Ctrl-C: the terminal tells every process of the group."""
        os.killpg(self.process.pid, 2)

    def end(self):
        """Wait for its end; return its exit code, and the rest of what it printed and said."""
        printed, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, printed.decode(), said.decode()

    def survivors(self):
        """Return those of its processes that do not end."""
        return survivors(self.seen)


@contextmanager
def program(code, **environment):
    """Run *code* as a program that is gone at the end of the block."""
    running = Program(code, **environment)
    try:
        yield running
    finally:
        with running.process as process:
            process.kill()
