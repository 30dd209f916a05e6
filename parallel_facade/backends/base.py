"""Ways to run calls: each an executor of chunks that declares what it can do.

    _serial        in the caller's own thread          pathos SerialPool
    _thread        in threads of this process          pathos ThreadPool
    _process       in processes of this machine        pathos ProcessPool
        _keeper        the thread that makes a pool and ends it
        _launch        how a worker process is started, with a private channel
        _fork_server   the process that forks workers, a new one or a copy of the caller
        _commands      what new processes are told first: _tracker
        _deafness      who hears Ctrl-C
        _packets       the pool's own queues, without locks
        _frames        messages on a channel
        _link          the caller's end of one worker's channel
        _handover      what a worker is given: _journal, _lifeline, _start_messages
        _inner_threads   how many threads libraries may use in it
        _switchboard   the thread that talks to all workers
        _desk          which worker has which task
        _looks         what a task that runs is done with, and what an idle worker may have
        _departures    workers on their way out, with what they started: _family
        _causes        why workers died, in words
        _serve         the worker's end
    _remote        what all engines of others have in common: bytes to workers that they own
        _remote_tasks  what stands for a call and its tasks on the way
        _executor      in any concurrent.futures.Executor
        _mpi           in ranks of MPI                   mpi4py.futures
        _dask          in workers of a Dask cluster      distributed
        _dask_local    a Dask cluster on this machine
        _ray           in workers of a Ray cluster
        _ray_board     where tasks of Ray ask whether they may begin
        _hosts         whether the hosts of a cluster answer
        _ppft          in ppservers                      pathos ParallelPool
        _watch         the thread that ends what takes too long
        _probe         what is asked of workers before any code is sent
    _borrowed      a back-end of somebody else's, given back as it was

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

TARGET_SECONDS: Final = 0.02
"""Work in one chunk, if the back-end does not say otherwise. A message to a worker process costs
both sides some 0.3 ms together, a fiftieth of this; and this is how long a result may wait for its
chunk to end."""

LOAD_PATIENCE: Final = 60.0
"""Seconds that a worker has to rebuild a callable, with all that it imports, where items are timed.
Then a worker that is stuck, or stopped, is replaced."""


class Capabilities(NamedTuple):
    """What a back-end promises; each field is a fact that calls rely on.

    Attributes:
        needs_serialization: Calls, chunks and reports cross as bytes.
        runs_in_caller: `submit` runs the chunk at once, in the caller's own thread.
        survives_crashes: A worker that dies costs what it held; the others go on.
        tells_what_ran: When a worker dies, it is known which item it ran, and how it died. Where
            not, all items of its chunk are lost.
        may_run_again: After a crash the engine runs tasks again by itself.
        is_remote: Workers may be on other machines, and have settings of their own.
        can_stop_running_task: `TaskFuture.stop` ends a task that runs.
        can_time_tasks: ``task_timeout`` can be kept. A task that cannot be stopped is given up.
        has_private_state: No other code changes a worker's global state while a task runs, so
            ``seed`` can be kept.
        can_initialize: Runs ``initializer`` once in each new worker.
        can_recycle: Replaces workers after ``max_tasks_per_worker`` tasks, or when they have
            grown over ``max_memory_per_worker``.
        can_limit_threads: Sets libraries a number of threads in each worker.
        can_take_back: `TaskFuture.take_back` works.
        can_queue: `submit` takes ``is_short``: the chunk may wait for a worker behind another.
        has_children: Its workers are processes that this one has started, and nobody else reads
            what they are sent.
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
    """How the workers of a back-end shall be.

    Attributes:
        workers: How many at most.
        start_method: How processes start; `None` takes the platform's safe one.
        initializer: Runs once in each new worker: a callable without arguments or, for a back-end
            that needs serialization, its payload. `None` for nothing.
        max_tasks_per_worker: Replace a worker after this many tasks; `None` for never.
        max_memory_per_worker: Replace a worker whose resident memory, in bytes, is above this;
            `None` for never.
        inner_threads: Threads that libraries use in each worker; `None` for as many as they like.
        must_limit_threads: Whether the pool was asked for just that number, so that a back-end
            which cannot keep it has to refuse.
        start_timeout: Seconds that a cluster may be without workers.
        address: What stands behind the colon of the setting; empty for nothing.
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
    """What a worker was doing with a chunk when it was lost."""

    UNKNOWN = auto()
    CALLABLE = auto()
    """It rebuilt the callable, or had not begun: nothing was run."""
    ARGUMENTS = auto()
    """It rebuilt the arguments: nothing was run."""
    ITEMS = auto()
    """It ran the first item without an outcome; none behind it."""


class WorkerLost(Exception):  # noqa: N818 - it stays inside, and carries the error
    """Says of a worker that ended while it had a chunk how far it came.

    Args:
        error: What to tell the user.
        stage: What it was doing.
        parts: The outcomes of the chunk's first items, as parts of a report.
    """

    def __init__(
        self, error: BaseException, stage: Stage = Stage.UNKNOWN, parts: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(error)
        self.error = error
        self.stage = stage
        self.parts = parts


class TaskFuture(SafeFuture[Any]):
    """The future of a chunk that was submitted, and what its caller may do while it runs."""

    def stop(self) -> bool:
        """Stop the running chunk; return whether its back-end can."""
        return False

    def take_back(self) -> int | None:
        """Offer the chunk's unstarted items to an idle worker; call again until a count comes.

        The report on the chunk then has no more outcomes than that count. It may have fewer, if
        the chunk's worker was faster to stop.

        Returns:
            How many items, from the first, stay with the chunk's worker; `None` if that is not
            known yet, or if no worker is idle.
        """
        return None

    def progress(self) -> list[Any]:
        """Return the outcomes of the items that have ended so far, as parts of a report."""
        return []


class Backend(ABC):
    """A way to run calls.

    `call` and `chunk` are `_worker.Call` and `_worker.Chunk` objects, or their payloads as bytes
    where `Capabilities.needs_serialization`; the future's result is a `ChunkReport`, or a list of
    its parts as bytes. Its exception is what was lost, as `WorkerLost` where more is known.

    Guarantees:
        - Each future is resolved exactly once, also when its worker dies.
        - `close` returns, whatever the workers do.
    """

    capabilities: Capabilities

    segment_pool: SegmentPool | Store | None = None
    """Where large buffers are placed; then `put` and `submit` take a `Payload` instead of bytes."""

    owns_workers: bool = True
    """Whether somebody has to call `close` for workers to end."""

    seconds_in_chunk: float = TARGET_SECONDS
    """Seconds of work in a chunk, where that is free; ten times what a message costs, or more."""

    chunks_in_flight: int = 2
    """How many a worker has; one runs, others wait, so that it is never idle. More end later."""

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
        """Have *on_record* called with each remark of the tasks of a call, in any thread.

        Not for workers in this process, where what a task says is heard by itself.

        Args:
            handle: From `put`.
            on_record: Takes the remark, before the future of its chunk is resolved.
        """

    @abstractmethod
    def submit(self, handle: Any, chunk: Any, task_timeout: float | None = None) -> TaskFuture:
        """Run *chunk* through the call behind *handle*.

        Args:
            handle: From `put`.
            chunk: What to run.
            task_timeout: Seconds from its start after which the chunk is stopped.
        """

    def drop(self, handle: Any) -> None:  # noqa: B027 - nothing to do for some
        """Forget the call behind *handle*; none of its chunks is in flight any more."""

    def translate(self, error: BaseException) -> BaseException:
        """Return *error*, with which a future failed, in the words of this library."""
        return error

    def runs_here(self) -> bool:
        """Return whether the current thread is one of its own, which `close` must not wait for."""
        return False

    @abstractmethod
    def close(self, *, cancel: bool) -> None:
        """Release the workers; closing twice is fine.

        Args:
            cancel: Give up what has not ended, instead of waiting for it.
        """
