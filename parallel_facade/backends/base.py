"""A back-end: an executor of chunks that declares what it can do.

    serial                in the caller's own thread          pathos SerialPool
    thread                in threads of this process          pathos ThreadPool
    process.backend       in processes of this machine        pathos ProcessPool
    engines.*             in workers of clusters and executors that others own
    borrowed              a back-end of another pool, given back as it was

The dispatcher asks `Backend.capabilities`, never a back-end's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from parallel_facade._common.interrupt_safety import SafeFuture
from parallel_facade._serialization.buffers.object_store import Store
from parallel_facade._serialization.buffers.shared_memory import SegmentPool
from parallel_facade.backends.kept_calls import KeptCalls

TARGET_SECONDS: Final = 0.02
"""Seconds of work in one chunk, unless the back-end sets its own. A message to a worker process
costs both sides together about 0.3 ms, a fiftieth of this. A result may wait this long for its
chunk to end."""

LOAD_PATIENCE: Final = 60.0
"""Seconds that a worker has to rebuild a callable, including its imports, if items are timed. After
that a worker that hangs, or is stopped, is replaced."""


class Capabilities(NamedTuple):
    """What a back-end promises; each field is a fact that calls rely on.

    Attributes:
        needs_serialization: Calls, chunks and reports travel as bytes.
        runs_in_caller: `submit` runs the chunk at once, in the caller's own thread.
        survives_crashes: A worker that dies loses only what it held; the other workers continue.
        tells_what_ran: When a worker dies, it is known which item it ran, and how it died. Without
            this, all items of its chunk are lost.
        may_run_again: After a crash the engine itself runs tasks again.
        is_remote: Workers may be on other machines, and have settings of their own.
        can_stop_running_task: `TaskFuture.stop` ends a task that runs.
        can_time_tasks: ``task_timeout`` can be kept. A task that cannot be stopped is given up.
        has_private_state: No other code changes a worker's global state while a task runs, so
            ``seed`` can be kept.
        can_initialize: Runs ``initializer`` once in each new worker.
        can_recycle: Replaces workers after ``max_tasks_per_worker`` tasks, or when they have
            grown over ``max_memory_per_worker``.
        can_limit_threads: Sets how many threads libraries use in each worker.
        can_take_back: `submit` takes *splitting*: idle workers get what others have not begun.
        can_queue: `submit` takes ``is_short``: the chunk may wait in a worker behind another chunk.
        has_children: Its workers are processes that this process has started, and no other program
            reads what they are sent.
    """

    needs_serialization: bool
    runs_in_caller: bool = False
    survives_crashes: bool = False
    tells_what_ran: bool = False
    may_run_again: bool = False
    is_remote: bool = False
    can_stop_running_task: bool = False
    can_time_tasks: bool = False
    has_private_state: bool = False
    can_initialize: bool = False
    can_recycle: bool = False
    can_limit_threads: bool = False
    can_take_back: bool = False
    can_queue: bool = False
    has_children: bool = False


class WorkerSettings(NamedTuple):
    """The configuration of a back-end's workers.

    Attributes:
        workers: The maximum number of workers.
        start_method: How processes start; `None` for the platform's safe method.
        initializer: Runs once in each new worker: a callable without arguments or, for a back-end
            that needs serialization, its payload. `None` for no initializer.
        max_tasks_per_worker: Replace a worker after this many tasks; `None` for never.
        max_memory_per_worker: Replace a worker whose resident memory, in bytes, is above this;
            `None` for never.
        inner_threads: Threads that libraries use in each worker; `None` for no limit.
        must_limit_threads: Whether the pool was asked for just that number, so that a back-end
            which cannot keep it has to refuse.
        start_timeout: Seconds that a cluster may be without workers.
        address: The part of the setting after the colon; empty if there is none.
    """

    workers: int
    start_method: str | None = None
    initializer: Callable[[], object] | bytes | None = None
    max_tasks_per_worker: int | None = None
    max_memory_per_worker: int | None = None
    inner_threads: int | None = None
    must_limit_threads: bool = False
    start_timeout: float = 60.0
    address: str = ""


class Stage(Enum):
    """What a worker was doing with a chunk when the worker was lost."""

    UNKNOWN = auto()
    CALLABLE = auto()
    """It was rebuilding the callable, or had not begun: no item ran."""
    ARGUMENTS = auto()
    """It was rebuilding the arguments: no item ran."""
    ITEMS = auto()
    """It was running the first item without an outcome; no later item ran."""


class WorkerLost(Exception):  # noqa: N818 - internal; it carries the error
    """Reports how far a worker came with its chunk before the worker ended.

    Args:
        error: The error for the user.
        stage: What the worker was doing.
        parts: The outcomes of the chunk's first items, as parts of a report.
    """

    def __init__(
        self, error: BaseException, stage: Stage = Stage.UNKNOWN, parts: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(error)
        self.error = error
        self.stage = stage
        self.parts = parts


class Splitting(NamedTuple):
    """How a chunk may be split while it runs, so that an idle worker runs a part of it.

    Attributes:
        items: How many items it has.
        begin_size: How many of them begin together.
        on_split: Called, in any thread, before the rest is run: with the future of the chunk, the
            future of the rest, and how many items, from the first, the chunk keeps. The chunk's
            report then has no more outcomes than that.
    """

    items: int
    begin_size: int
    on_split: Callable[[TaskFuture, TaskFuture, int], object]


class TaskFuture(SafeFuture[Any]):
    """The future of a chunk that was submitted, and what its caller may do while it runs."""

    def stop(self) -> bool:
        """Stop the running chunk; return whether its back-end can."""
        return False

    def leave_rest(self) -> None:
        """Begin no further item of the chunk, if its back-end can take items back."""

    def progress(self) -> list[Any]:
        """Return the outcomes of the items that have ended so far, as parts of a report."""
        return []


class Backend(ABC):
    """A way to run calls.

    `call` and `chunk` are `Call` and `Chunk` objects of `_worker.run_chunk`, or their payloads as
    bytes if `Capabilities.needs_serialization`. The future's result is a `ChunkReport`, or a list
    of its parts as bytes. Its exception describes the loss, as `WorkerLost` if more is known.

    Guarantees:
        - Each future is resolved exactly once, even if its worker dies.
        - `close` returns, whatever the workers do.
    """

    capabilities: Capabilities

    segment_pool: SegmentPool | Store | None = None
    """Where large buffers are placed; if set, `put` and `submit` take a `Payload`, not bytes."""

    kept_calls: KeptCalls | None = None
    """The last call, if workers can keep it."""

    owns_workers: bool = True
    """Whether the workers end only when `close` is called."""

    seconds_in_chunk: float = TARGET_SECONDS
    """Seconds of work in a chunk, if its size is free; at least ten times the cost of a message."""

    chunks_in_flight: int = 2
    """How many chunks a worker has; one runs, others wait, so it never idles. More end later."""

    @property
    def is_usable(self) -> bool:
        """Whether `submit` can work: there are workers, or there will be."""
        return True

    @abstractmethod
    def capacity(self) -> int:
        """Return how many chunks can run at the same time."""

    def put(self, call: Any) -> Any:
        """Place *call* where workers find it, and return a handle for `submit`."""
        return call

    def listen(self, handle: Any, on_record: Callable[[bytes], object]) -> None:  # noqa: B027
        """Call *on_record* with each record relayed from the tasks of a call, in any thread.

        Not for workers in this process, where the output of a task arrives by itself.

        Args:
            handle: From `put`.
            on_record: Takes the record, before the future of its chunk is resolved.
        """

    @abstractmethod
    def submit(self, handle: Any, chunk: Any, task_timeout: float | None = None) -> TaskFuture:
        """Run *chunk* through the call behind *handle*.

        Args:
            handle: From `put`.
            chunk: The chunk to run.
            task_timeout: Stop the chunk this many seconds after its start.
        """

    def allow_splits(  # noqa: B027 - nothing to do where chunks are not split
        self, handle: Any, *, are_allowed: bool
    ) -> None:
        """Let idle workers run parts of the call's running chunks, or no longer.

        When this has returned with `False`, no chunk of the call is split any more.
        """

    def drop(self, handle: Any) -> None:  # noqa: B027 - nothing to do for some
        """Forget the call behind *handle*; none of its chunks is in flight any more."""

    def translate(self, error: BaseException) -> BaseException:
        """Return the error that the user gets for *error*, the exception of a future."""
        return error

    def runs_here(self) -> bool:
        """Return whether the current thread is the back-end's own: `close` must not wait for it."""
        return False

    def cancel_waiting(self) -> None:  # noqa: B027 - the default waits for them
        """Cancel the chunks that do not run yet; those that run go on."""

    @abstractmethod
    def close(self, *, cancel: bool) -> None:
        """Release the workers; closing twice is fine.

        Args:
            cancel: Give up tasks that have not ended, instead of waiting for them.
        """
