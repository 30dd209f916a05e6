"""A back-end whose every step is the test's, and a map on it: no processes, no waiting.

run.fill() ─► SteppedBackend.tasks ─► task.run(n), task.end(), task.lose(stage) ─► take(run)
"""

from collections.abc import Iterable, Iterator
from typing import Any

from parallel_facade._configuration.settings import resolve
from parallel_facade._dispatch import map_run as _map_run
from parallel_facade._dispatch.call_options import make_options
from parallel_facade._dispatch.codecs import ObjectCodec
from parallel_facade._dispatch.completion_queue import RECORD_CAME
from parallel_facade._dispatch.map_plan import MapPlan
from parallel_facade._dispatch.map_run import MapRun
from parallel_facade._worker.outcomes import ChunkReport, Failure
from parallel_facade._worker.run_chunk import Call
from parallel_facade.backends.base import (
    Backend,
    Capabilities,
    Splitting,
    Stage,
    TaskFuture,
    WorkerLost,
)


class SteppedTask(TaskFuture):
    """A chunk that runs as far as the test says."""

    def __init__(
        self, call: Call, chunk: Any, is_short: bool, splitting: Splitting | None = None
    ) -> None:
        super().__init__()
        self.splitting = splitting
        self.call = call
        self.chunk = chunk
        self.is_short = is_short
        self.values: list[Any] = []
        self.failures: dict[int, Failure] = {}
        self.kept: int | None = None
        """How many items it keeps, once it was split."""
        self.was_left = False
        self.was_stopped = False

    def begin(self) -> None:
        """Have a worker take it up: from now on it cannot be cancelled."""
        if not self.running():
            self.set_running_or_notify_cancel()

    def run(self, count: int) -> None:
        """Run the next *count* items, or as many as there are."""
        self.begin()
        for item in self.chunk.items[len(self.values) :][:count]:
            try:
                self.values.append(self.call.func(item))
            except Exception as exc:
                self.failures[len(self.values)] = Failure(exc)
                self.values.append(None)
                if self.call.stops_at_failure:
                    return

    def end(self, seconds: float = 0.0) -> None:
        """Run the rest, of which a part may be taken back; report that it took *seconds*."""
        self.run(len(self.chunk.items) if self.kept is None else self.kept - len(self.values))
        self.report(seconds)

    def report(self, seconds: float = 0.0, unread: str = "") -> None:
        """Report what was run."""
        self.begin()
        self.set_result(ChunkReport(self.values, self.failures, unread, seconds))

    def lose(self, stage: Stage, error: BaseException) -> None:
        """Lose the worker, whose outcomes until then are known where items were run."""
        self.begin()
        parts = (ChunkReport(self.values, self.failures),) if stage is Stage.ITEMS else ()
        self.set_exception(WorkerLost(error, stage, parts))

    def progress(self) -> list[Any]:
        return [ChunkReport(list(self.values), dict(self.failures))] if self.values else []

    def split(self, kept: int) -> "SteppedTask":
        """Split it as a back-end does for an idle worker; return the rest."""
        assert self.splitting is not None, "it may be split"
        rest = SteppedTask(
            self.call,
            self.chunk.part(kept, len(self.chunk.items)),
            self.is_short,
            self.splitting._replace(items=self.splitting.items - kept),
        )
        self.kept = kept
        self.splitting.on_split(self, rest, kept)
        return rest

    def leave_rest(self) -> None:
        self.was_left = True

    def stop(self) -> bool:
        self.was_stopped = True
        return True


class SteppedBackend(Backend):
    """Keeps the tasks that are submitted."""

    def __init__(self, workers: int = 2, **can: bool) -> None:
        self.workers = workers
        self.tasks: list[SteppedTask] = []
        self.dropped: list[Any] = []
        self.are_splits_allowed = False
        wanted = {"tells_what_ran": True, "can_take_back": True, "can_queue": True, **can}
        self.capabilities = Capabilities(needs_serialization=False, **wanted)

    def capacity(self) -> int:
        return self.workers

    def submit(
        self,
        handle: Any,
        chunk: Any,
        task_timeout: float | None = None,  # noqa: ARG002 - the test is the clock
        *,
        is_short: bool = False,
        splitting: Splitting | None = None,
    ) -> SteppedTask:
        self.tasks.append(SteppedTask(handle, chunk, is_short, splitting))
        return self.tasks[-1]

    def allow_splits(self, handle: Any, *, are_allowed: bool) -> None:  # noqa: ARG002
        self.are_splits_allowed = are_allowed

    def drop(self, handle: Any) -> None:
        self.dropped.append(handle)

    def close(self, *, cancel: bool) -> None:
        pass

    def unfinished(self) -> list[SteppedTask]:
        """Return the tasks that have not ended, in the order in which they came."""
        return [task for task in self.tasks if not task.done()]

    def items(self) -> list[list[Any]]:
        """Return the items of each task that has not ended."""
        return [task.chunk.items for task in self.unfinished()]


class SteppedCodec(ObjectCodec):
    """Passes objects, and joins the parts of a report."""

    def unpack(self, received: Any, known: int = 0) -> ChunkReport:  # noqa: ARG002
        if isinstance(received, ChunkReport):
            return received
        [report] = received
        return report


def stepped_map(
    monkeypatch: Any,
    backend: SteppedBackend,
    func: Any,
    items: Iterable[Any],
    clock: Any,
    *,
    retry_on: Any = (),
    return_exceptions: bool = False,
    plan: dict[str, Any] | None = None,
    **settings: Any,
) -> MapRun:
    """Return a map on *backend*; an eager one over a list, a lazy one over an iterator."""
    monkeypatch.setattr(_map_run, "codec_for", lambda *_, **__: SteppedCodec())
    options = make_options(
        resolve(settings),
        retry_on=retry_on,
        return_exceptions=return_exceptions,
        workers=None,
    )
    is_lazy = isinstance(items, Iterator)
    how = {
        "total": None if is_lazy else len(items),
        "begin_size": options.settings.chunksize or 1,
        "buffersize": 0 if is_lazy else None,
        **(plan or {}),
    }
    stops = not return_exceptions and not retry_on
    call = Call(func, "one", stops_at_failure=stops, seed=None)
    return MapRun(backend, call, MapPlan(iter(items), **how), options, clock)


def collect(run: MapRun) -> None:
    """Collect what has come, and poll if that is due; without waiting."""
    run._queue.put(RECORD_CAME)
    run.wait()


def take(run: MapRun) -> list[Any]:
    """Collect what has come, and return the outcomes that can be taken now."""
    if run.must_wait:
        collect(run)
    found: list[Any] = []
    while (taken := run.take()) is not None:
        is_failure = isinstance(taken, Failure)
        found += [taken.error] if is_failure else taken
        run.note_taken(1 if is_failure else len(taken))
    return found


def finish(run: MapRun, backend: SteppedBackend) -> list[Any]:
    """Run everything that is left, each task as soon as it is submitted; return the outcomes."""
    found = take(run)
    while not run.is_over:
        run.fill()
        for task in backend.unfinished():
            task.end()
        found += take(run)
    return found
