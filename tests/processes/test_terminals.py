"""What a person sees in a terminal, as a terminal emulator has it on its screen."""

import os
import pty
import subprocess
import sys
import termios

import pyte
import pytest
from gates import PATIENCE

ROWS, COLUMNS = 100, 80

PROGRAM = """
import logging, sys, warnings
from parallel_facade import configure, pmap
from tqdm import tqdm

def say(x):
    print(f"printed {x}", flush=True)
    if x == 39:  # so that no other item writes on in its line
        print("no end", end="", flush=True)
        print("an error", file=sys.stderr)
        logging.getLogger("fit").warning("logged %s", x)
        warnings.warn("warned", stacklevel=1)
    return x

if __name__ == "__main__":
    configure(backend="process", workers=2, start_method=sys.argv[1])
    for _ in tqdm(range(1), desc="Outer", position=0, leave=False, disable="outer" not in sys.argv):
        assert pmap(say, range(40), progress="Fitting") == [*range(40)]
    print("over")
"""


def seen(tmp_path, *arguments, stdout=None):
    """Return the lines of a terminal in which the program was run.

    Args:
        tmp_path: Where its file shall be.
        *arguments: Its arguments.
        stdout: Where it shall write; `None` for to the terminal.
    """
    (tmp_path / "program.py").write_text(PROGRAM)
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (ROWS, COLUMNS))
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), *arguments],
        stdin=its,
        stdout=stdout or its,
        stderr=its,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(its)
        written = b"".join(iter(lambda: _read(ours), b""))
        assert process.wait(PATIENCE) == 0, written.decode()
    os.close(ours)
    screen = pyte.Screen(COLUMNS, ROWS)
    pyte.ByteStream(screen).feed(written)
    return [line.rstrip() for line in screen.display]


def _read(descriptor):
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # so Linux says that nobody has the other end any more
        return b""


@pytest.mark.parametrize("outer", [[], ["outer"]])
def test_what_tasks_say_is_above_the_bar(tmp_path, start_method, outer):
    lines = seen(tmp_path, start_method, *outer)

    said = [f"printed {x}" for x in range(40)] + ["no end", "an error", "logged 39"]
    assert [one for one in said if lines.count(one) != 1] == []
    assert "".join(lines).count("UserWarning: warned") == 1
    bars = [line for line in lines if "Fitting" in line]
    assert len(bars) == 1, bars
    assert "40/40" in bars[0]
    assert lines[lines.index(bars[0]) + 1] == "over"


def test_a_file_gets_what_tasks_print_as_it_is(tmp_path, start_method):
    with open(tmp_path / "out", "w+") as out:
        lines = seen(tmp_path, start_method, stdout=out)
        out.seek(0)
        printed = out.read()

    rest = printed.replace("no end", "", 1).splitlines()
    assert sorted(rest) == sorted([*(f"printed {x}" for x in range(40)), "over"])
    assert "printed" not in "".join(lines)
    assert "40/40" in "".join(lines)
