"""The display of progress."""

import io

import tqdm

from parallel_facade import Progress, pmap
from parallel_facade._progress import Reporter, open_reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_progress_is_no_reporter():
    assert open_reporter(False, 3) is None
    assert open_reporter("", 3) is None


def test_a_reporter_tells_the_facts():
    now = [10.0]
    states = []
    reporter = Reporter(5, states.append, clock=lambda: now[0])

    now[0] = 12.5
    reporter.add(2, 1)
    reporter.add(1, 0)

    assert states == [Progress(2, 5, 1, 2.5), Progress(3, 5, 1, 2.5)]


def test_a_bar_reaches_its_total_and_shows_failures(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(tqdm.tqdm, "__init__", _on(terminal, tqdm.tqdm.__init__))

    pmap(lambda x: 1 // x, [0, 1, 2], backend="serial", progress="work", return_exceptions=True)

    last = terminal.getvalue().split("\r")[-1]
    assert "work: 100%" in last
    assert "3/3" in last
    assert "failed=1" in last


def _on(terminal, original):
    def init(self, *args, **kwds):
        original(self, *args, **{**kwds, "file": terminal})

    return init
