"""The display of progress."""

import io

import tqdm

from parallel_facade import Progress, pmap
from parallel_facade._console.progress import Reporter, open_reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_progress_is_no_reporter():
    assert open_reporter(False, 3, int) is None
    assert open_reporter("", 3, int) is None


def test_a_reporter_tells_the_facts():
    now = [10.0]
    states = []
    reporter = Reporter(5, states.append, lambda: 4, clock=lambda: now[0])

    now[0] = 12.5
    reporter.succeed(2)
    reporter.retry()
    reporter.fail()

    assert states == [
        Progress(done=1, total=5, failed=0, retried=0, in_flight=4, elapsed=2.5),
        Progress(done=2, total=5, failed=0, retried=0, in_flight=4, elapsed=2.5),
        Progress(done=2, total=5, failed=0, retried=1, in_flight=4, elapsed=2.5),
        Progress(done=3, total=5, failed=1, retried=1, in_flight=4, elapsed=2.5),
    ]


def test_what_comes_together_is_told_of_together_where_that_is_enough():
    states = []
    reporter = Reporter(None, states.append, int, one_by_one=False)

    reporter.succeed(1000)

    assert [state.done for state in states] == [1000]


def test_a_bar_reaches_its_total_and_shows_failures(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(tqdm.tqdm, "__init__", _on(terminal, tqdm.tqdm.__init__))

    pmap(
        lambda x: 1 // x,
        [0, 1, 2],
        backend="serial",
        progress="work",
        return_exceptions=True,
        retries=1,
        retry_on=ZeroDivisionError,
    )

    last = terminal.getvalue().split("\r")[-1]
    assert "work: 100%" in last
    assert "3/3" in last
    assert "failed=1" in last
    assert "retried=1" in last


def _on(terminal, original):
    def init(self, *args, **kwds):
        original(self, *args, **{**kwds, "file": terminal})

    return init
