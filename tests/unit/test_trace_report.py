"""What a timeline is said to come to, for timelines made by hand."""

import pytest

from parallel_facade._dispatch.call_trace import CallTrace
from parallel_facade._tracing.analysis import Interval, merged, overlap
from parallel_facade._tracing.report import report_of
from parallel_facade._worker.timings import MARK, PACK, PACK_CALLABLE, UNPACK, TimedStep, WorkerLane
from parallel_facade.backends.base import Capabilities


class Backend:
    capabilities = Capabilities(needs_serialization=True)


class CallByHand(CallTrace):
    chunks = []


class Timeline:
    """One call from time 0 on, whose workers are processes that were there before."""

    def __init__(self, workers=2):
        self.call = CallByHand(len, Backend(), workers)
        self.call.began = 0.0
        self.chunks = []

    def step(self, what, began, ended, items=1, size=0):
        self.call.steps.append(TimedStep(what, began, ended, 0, items, size, 1))

    def chunk(  # each as a time, after the one before it
        self,
        worker,
        received,
        ready,
        ran,
        encoded=None,
        *,
        items=1,
        submitted=None,
        cpu=0.0,
        thread=0,
        born=-1.0,
        callable_ready=None,
        applied=None,
    ):
        from parallel_facade._worker.timings import ChunkTimes, ItemTimes

        lane = WorkerLane(
            "host", 1 if thread else worker, thread, f"worker {worker}", 0.0 if thread else born
        )
        first = sum(one.items for one in self.chunks)
        self.chunks.append(
            ChunkTimes(
                lane,
                first,
                items,
                received,
                received if callable_ready is None else callable_ready,
                ready,
                ran,
                ran if encoded is None else encoded,
                ran - ready if applied is None else applied,
                cpu,
                [ItemTimes(first, ready, ran)],
            )
        )
        self.call.submissions.append((first, received if submitted is None else submitted))

    def report(self, ended):
        self.call.ended = ended
        self.call.chunks = self.chunks
        return report_of([self.call])


def test_a_function_that_runs_all_the_time_is_what_limits():
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 0, 0, 9.5, cpu=1.0)

    report = timeline.report(10)

    assert report.shares["run"] == pytest.approx(0.95)
    assert report.advice.startswith("The function itself runs for 95 % of the workers' time")


def test_large_arguments_that_the_caller_serializes():
    timeline = Timeline()
    for place in range(4):
        began = place * 2.5
        timeline.step(PACK, began, began + 2, size=8_000_000)
        timeline.chunk(1 + place % 2, began + 2, began + 2, began + 2.5)

    report = timeline.report(10)

    assert report.shares["serialize"] == pytest.approx(15 / 20, abs=0.1)
    assert "the caller serializes the arguments: 8 MB for each item" in report.advice
    assert "functools.partial(f, data)" in report.advice


def test_a_large_callable_that_the_caller_serializes():
    timeline = Timeline()
    timeline.step(PACK_CALLABLE, 0, 8, size=2_000_000_000)
    for worker in (1, 2):
        timeline.chunk(worker, 8, 8, 10)

    report = timeline.report(10)

    assert report.shares["serialize"] == pytest.approx(0.8)
    assert "the caller serializes the callable: 2 GB in 1 call" in report.advice


def test_small_items():
    timeline = Timeline()
    timeline.step(PACK, 0, 1, items=1_000_000, size=3_000_000)
    for worker in (1, 2):
        timeline.chunk(worker, 1, 1.3, 1.5, items=500_000)

    report = timeline.report(1.6)

    assert "an item runs for 0.4 µs only" in report.advice
    assert "backend='serial'" in report.advice


def test_what_is_on_its_way():
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 8, 8, 10, submitted=0)

    report = timeline.report(10)

    assert report.shares["send"] == pytest.approx(0.8)
    assert "they wait for data that is being sent" in report.advice


@pytest.mark.parametrize("what", ["callable", "arguments"])
def test_what_workers_rebuild(what):
    timeline = Timeline()
    timeline.step(PACK, 0, 0, size=50_000_000)
    for worker in (1, 2):
        timeline.chunk(worker, 0, 8, 10, callable_ready=8 if what == "callable" else 0)

    report = timeline.report(10)

    assert report.shares["rebuild"] == pytest.approx(0.8)
    assert f"they rebuild the {what}: " in report.advice


def test_large_results():
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 0, 0, 1, 9)
    timeline.step(UNPACK, 9, 10, items=2, size=40_000_000)

    report = timeline.report(10)

    assert report.shares["return"] == pytest.approx(0.8)
    assert report.shares["take"] == pytest.approx(0.1)
    assert "they serialize the results: 20 MB for each item" in report.advice


def test_results_that_are_serialized_while_others_run():
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 0, 0, 10, applied=2.0)
    timeline.step(UNPACK, 10, 10, items=2, size=40_000_000)

    report = timeline.report(10)

    assert (report.shares["run"], report.shares["return"]) == (
        pytest.approx(0.2),
        pytest.approx(0.8),
    )
    assert "they serialize the results: 20 MB for each item" in report.advice


def test_results_that_the_caller_rebuilds():
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 0, 0, 1)
    timeline.step(UNPACK, 1, 10, items=2, size=40_000_000)

    report = timeline.report(10)

    assert report.shares["take"] == pytest.approx(0.9)
    assert "the caller rebuilds the results: 20 MB for each item" in report.advice


def test_workers_that_start():
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 6, 6, 10, submitted=0, born=6.0)

    report = timeline.report(10)

    assert report.shares["start"] == pytest.approx(0.6)
    assert "make a Pool at the start of the program" in report.advice


def test_one_item_that_takes_long():
    timeline = Timeline(workers=4)
    for worker in (1, 2, 3):
        timeline.chunk(worker, 0, 0, 1)
    timeline.chunk(4, 0, 0, 10)

    report = timeline.report(10)

    assert report.shares["idle"] == pytest.approx(27 / 40)
    assert "item 3 ran for 10 s of 10 s" in report.advice


def test_fewer_items_than_workers():
    timeline = Timeline(workers=8)
    for worker in (1, 2):
        timeline.chunk(worker, 0, 0, 10)

    report = timeline.report(10)

    assert report.shares["idle"] == pytest.approx(0.75)
    assert "they have nothing to do: 2 items for 8 workers" in report.advice


def test_a_caller_that_is_slow():
    timeline = Timeline()
    for place in range(10):
        timeline.chunk(1 + place % 2, place, place, place + 0.1)

    assert "takes results, more slowly than workers run them" in timeline.report(10).advice


def test_threads_that_run_one_at_a_time():
    timeline = Timeline()
    for thread in (1, 2):
        timeline.chunk(0, 0, 0, 10, thread=thread, cpu=5.0)

    assert "2 threads compute as much as 1.0 CPUs" in timeline.report(10).advice


WITHOUT_GIL = "parallel_facade._tracing.advice.is_gil_on"


def test_threads_that_wait_for_each_other_without_a_gil(monkeypatch):
    monkeypatch.setattr(WITHOUT_GIL, lambda: False)
    timeline = Timeline()
    for thread in (1, 2):
        timeline.chunk(0, 0, 0, 10, thread=thread, cpu=5.0)

    assert "backend='process'" not in timeline.report(10).advice


def test_one_thread_without_a_gil_is_told_of_more(monkeypatch):
    monkeypatch.setattr(WITHOUT_GIL, lambda: False)
    timeline = Timeline(workers=1)
    timeline.chunk(0, 0, 0, 10, thread=1, cpu=9.5)

    assert "More threads run at the same time: set workers." in timeline.report(10).advice


def test_what_is_sent_is_not_sent_to_threads_where_they_run_at_the_same_time(monkeypatch):
    monkeypatch.setattr(WITHOUT_GIL, lambda: False)
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 0, 0, 1, 9)
    timeline.step(UNPACK, 9, 10, items=2, size=40_000_000)

    assert "Or use threads, to which nothing is sent" in timeline.report(10).advice


def test_threads_that_wait_for_something_else():
    timeline = Timeline()
    for thread in (1, 2):
        timeline.chunk(0, 0, 0, 10, thread=thread, cpu=0.1)

    assert timeline.report(10).advice.startswith("The function itself runs")


def test_more_workers_than_cpus(monkeypatch):
    monkeypatch.setattr("parallel_facade._tracing.advice.usable_cpus", lambda: 2)
    timeline = Timeline(workers=4)
    for worker in range(4):
        timeline.chunk(worker, 0, 0, 10, cpu=5.0)

    assert "4 workers on 2 CPUs, which compute all the time" in timeline.report(10).advice


def test_a_worker_whose_clock_is_slow_is_not_before_its_time():
    timeline = Timeline(workers=1)
    timeline.chunk(1, 100, 100, 105, submitted=200)
    timeline.call.began = 199.0

    report = timeline.report(206)

    assert report.shares["run"] == pytest.approx(5 / 7)


def test_it_fits_a_terminal_of_80_columns():
    timeline = Timeline()
    for worker in (1, 2):
        timeline.chunk(worker, 1, 2, 8, 9)
    timeline.step(PACK, 0, 1)
    timeline.step(UNPACK, 9, 10)

    lines = str(timeline.report(10)).splitlines()

    assert all(len(line) <= 80 for line in lines)
    assert lines[0] == "1 call, 2 items, 10 s on 2 workers"


def test_remarks_of_others_are_passed_on():
    call, heard = CallTrace(len, Backend(), 1), []
    listen = call.listener(heard.append)

    listen(b"\x80\x05other")
    listen(MARK)

    assert heard == [b"\x80\x05other"]


def test_overlaps():
    covered = merged([Interval(5, 6), Interval(0, 2), Interval(1, 3)])

    assert covered == [Interval(0, 3), Interval(5, 6)]
    assert overlap(Interval(2, 5.5), covered) == 1.5
    assert overlap(Interval(3, 5), covered) == 0
    assert overlap(Interval(-1, 9), covered) == 4


def test_one_thread():
    timeline = Timeline(workers=1)
    timeline.chunk(0, 0, 0, 10, thread=1, cpu=9.5)

    assert "in one thread. Processes run at the same time" in timeline.report(10).advice


def test_a_large_callable_that_is_on_its_way():
    timeline = Timeline()
    timeline.step(PACK_CALLABLE, 0, 0, size=50_000_000)
    timeline.step(PACK, 0, 0, size=100)
    for worker in (1, 2):
        timeline.chunk(worker, 8, 8, 10, submitted=0)

    assert "they wait for data that is being sent: 50 MB in 1 call" in timeline.report(10).advice


def test_a_caller_that_is_slow_with_tiny_items():
    timeline = Timeline()
    for place in range(10):
        timeline.chunk(1 + place % 2, place, place, place + 1e-6)

    assert "takes results, more slowly than workers run them" in timeline.report(10).advice
