"""A timeline shows what ran where, and when, on every back-end."""

import contextlib
import itertools
import json
import os
import threading
from collections import defaultdict

import pytest

from parallel_facade import (
    ConfigurationError,
    SerializationError,
    WorkerCrashedError,
    apply_async,
    imap,
    pmap,
    trace,
)
from parallel_facade._dispatch import call_trace as _call_trace

LONG = 200_000
"""To add up so many numbers takes longer than what a timeline leaves out."""


def add_up(n):
    return sum(range(n))


@pytest.fixture(autouse=True)
def nobody_watches_afterwards():
    """See that no test leaves a timeline open, which would keep all calls of the others."""
    yield
    assert _call_trace.listeners == []


def labelled_intervals(timeline, category):
    return [
        event
        for event in timeline.events()["traceEvents"]
        if event["ph"] == "X" and event["cat"] == category
    ]


def test_every_item_is_in_one_chunk(backend):
    with trace() as timeline:
        pmap(lambda x: x, range(1_000))

    chunks = labelled_intervals(timeline, "chunk")
    indexes = itertools.chain.from_iterable(
        range(chunk["args"]["first"], chunk["args"]["first"] + chunk["args"]["items"])
        for chunk in chunks
    )
    assert sorted(indexes) == list(range(1_000))
    assert {chunk["args"]["call"] for chunk in chunks} == {
        "test_every_item_is_in_one_chunk.<locals>.<lambda>"
    }
    assert timeline.report().items == 1_000
    assert timeline.report().calls == 1


def test_items_that_take_long_are_in_it_each(backend):
    with trace() as timeline:
        pmap(add_up, [0, LONG, 0, LONG])

    names = {event["name"] for event in labelled_intervals(timeline, "item")}
    assert {"item 1", "item 3"} <= names


def test_a_worker_does_one_thing_at_a_time_within_its_chunk(backend):
    with trace() as timeline:
        list(imap(add_up, [LONG] * 20))

    chunks, parts = defaultdict(list), defaultdict(list)
    for event in timeline.events()["traceEvents"]:
        if event["ph"] == "X" and event["cat"] != "item":
            lane = event["pid"], event["tid"]
            stretch = event["ts"], event["ts"] + event["dur"]
            if event["cat"] == "chunk":
                chunks[lane].append(stretch)
            elif event["cat"] != "caller":
                parts[lane].append(stretch)
    assert chunks
    for lane, spans in chunks.items():
        assert all(one[1] <= two[0] + 1 for one, two in itertools.pairwise(sorted(spans)))
        assert all(
            any(began - 1 <= part[0] and part[1] <= ended + 1 for began, ended in spans)
            for part in parts[lane]
        )


def test_the_shares_are_of_the_whole(backend):
    with trace() as timeline:
        pmap(add_up, [LONG] * 4)

    report = timeline.report()
    assert sum(report.shares.values()) == pytest.approx(1)
    assert report.shares["run"] > 0
    assert 0 < report.run_seconds <= report.seconds * report.workers


@pytest.mark.requires("needs_serialization")
def test_the_sizes_of_what_is_sent_are_told(backend):
    payload = b"x" * 300_000

    with trace() as timeline:
        pmap(lambda _: len(payload), [1])
        pmap(len, [payload])
        pmap(lambda n: b"x" * n, [300_000])

    report = timeline.report()
    sizes = report.callable_bytes, report.argument_bytes, report.result_bytes
    assert all(300_000 <= size < 320_000 for size in sizes)


def test_single_calls_are_in_it(backend):
    with trace() as timeline:
        results = [apply_async(add_up, (LONG,)) for _ in range(3)]
        assert [result.get() for result in results] == [add_up(LONG)] * 3

    assert timeline.report().calls == 3
    assert len(labelled_intervals(timeline, "chunk")) == 3


def test_what_a_task_calls_is_a_part_of_the_task(backend):
    with trace() as timeline:
        pmap(lambda n: pmap(abs, range(n)), [1, 2])

    assert timeline.report().calls == 1
    assert timeline.report().items == 2


def test_calls_of_other_threads_are_in_it(backend):
    options = {key: backend.settings[key] for key in ("backend", "workers")}

    def call():
        pmap(abs, [-1, -2], **options)

    with trace() as timeline:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    assert timeline.report().items == 2


def test_the_traceback_of_a_traced_item_is_that_of_others(backend):
    def fail(x):
        raise ValueError(x)

    texts = []
    for around in (contextlib.nullcontext(), trace()):
        with around, pytest.raises(ValueError, match="7") as caught:
            pmap(fail, [7])
        texts.append(str(caught.value.__cause__))

    assert "parallel_facade" not in texts[1].replace("test_trace", "")
    assert texts[0] == texts[1]


def test_a_call_that_fails_is_in_the_file(backend, tmp_path):
    file = tmp_path / "run.json"

    with pytest.raises(ZeroDivisionError), trace(file):
        pmap(lambda x: 1 // x, [0])

    events = json.loads(file.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X"}
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")


def test_a_file_that_cannot_be_written_is_known_before_anything_runs(backend, tmp_path):
    ran = []

    with pytest.raises(FileNotFoundError, match="no-folder"):
        with trace(tmp_path / "no-folder" / "run.json"):
            ran.append(1)

    assert not ran


def test_a_timeline_is_of_one_block(backend):
    timeline = trace()
    with timeline:
        pass

    with pytest.raises(ConfigurationError, match="one block"), timeline:
        pass


def test_blocks_in_blocks_see_the_same_call(backend):
    with trace() as outer:
        pmap(abs, [-1])
        with trace() as inner:
            pmap(abs, [-1])

    assert (outer.report().calls, inner.report().calls) == (2, 1)


def test_no_call_is_said_to_be_none(backend):
    with trace() as timeline:
        pass

    assert str(timeline.report()) == "no call was made"


def test_what_is_reported_inside_the_block_is_not_the_end(backend):
    with trace() as timeline:
        results = imap(abs, range(50), chunksize=1, buffersize=1)
        next(results)
        early = timeline.report().items
        list(results)

    assert early < timeline.report().items == 50


def test_the_end_of_the_block_is_the_end_of_what_is_seen(backend):
    with trace() as timeline:
        results = imap(abs, range(50), chunksize=1, buffersize=1)
        next(results)
    seen = timeline.report().items
    list(results)

    assert timeline.report().items == seen < 50


@pytest.mark.requires("needs_serialization")
def test_a_call_that_cannot_be_sent_is_over(backend):
    held = threading.Lock()
    with held, trace() as timeline:
        with pytest.raises(SerializationError):
            pmap(lambda _: held.locked(), [1])
        failed = timeline.report().seconds
        pmap(add_up, [LONG] * 20)

    report = timeline.report()
    assert report.calls == 2
    assert report.seconds >= failed
    assert report.shares["run"] > 0


@pytest.mark.requires("can_recycle")
def test_workers_that_follow_each_other_are_not_idle_for_that(backend):
    with backend.pool(workers=1, max_tasks_per_worker=1) as pool, trace() as timeline:
        pool.pmap(add_up, [LONG] * 4, chunksize=1)

    report = timeline.report()
    assert report.workers == 1
    assert len({event["pid"] for event in labelled_intervals(timeline, "chunk")}) == 4
    assert sum(report.shares.values()) == pytest.approx(1)


def test_two_timelines_may_go_to_one_file(backend, tmp_path):
    file = tmp_path / "run.json"

    with trace(file), trace(file):
        pmap(abs, [-1])

    assert json.loads(file.read_text())["traceEvents"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_callable_that_answers_everything_has_a_name(backend, tmp_path):
    class Answers:
        def __getattr__(self, name):
            if name.startswith("__") and name != "__qualname__":
                raise AttributeError(name)
            return self

        def __call__(self, x):
            return x

    with trace(tmp_path / "run.json") as timeline:
        assert pmap(Answers(), [1]) == [1]

    assert {event["args"]["call"] for event in labelled_intervals(timeline, "chunk")} == {
        "test_a_callable_that_answers_everything_has_a_name.<locals>.Answers"
    }


@pytest.mark.requires("survives_crashes")
@pytest.mark.parametrize("is_map", [True, False])
def test_what_is_lost_with_a_worker_is_told(backend, is_map):
    with trace() as timeline, pytest.raises(WorkerCrashedError):
        if is_map:
            pmap(lambda x: os._exit(3), [1])
        else:
            apply_async(lambda: os._exit(3)).get()

    (lost,) = [one for one in timeline.events()["traceEvents"] if one["ph"] == "i"]
    assert (lost["args"]["first"], lost["args"]["items"]) == (0, 1)
    assert "died" in lost["args"]["why"]
    report = timeline.report()
    assert (report.items, report.lost) == (0, 1)
    assert "1 item was lost with a worker" in report.advice


def test_the_picture_has_a_lane_for_each(backend, tmp_path):
    pytest.importorskip("matplotlib")
    with trace() as timeline:
        pmap(add_up, [LONG] * 4)

    figure = timeline.plot(tmp_path / "run.png")

    lanes = {(event["pid"], event["tid"]) for event in labelled_intervals(timeline, "chunk")}
    assert len(figure.get_axes()[0].get_yticklabels()) == 1 + len(lanes)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
