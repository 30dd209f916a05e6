"""Real programs that a test starts, signals and watches to their end."""

import os
import subprocess
import sys
from contextlib import contextmanager

import psutil

PATIENCE = 60


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
        return psutil.wait_procs(self.seen, timeout=PATIENCE)[1]


@contextmanager
def program(code, **environment):
    """Run *code* as a program that is gone at the end of the block."""
    running = Program(code, **environment)
    try:
        yield running
    finally:
        with running.process as process:
            process.kill()
