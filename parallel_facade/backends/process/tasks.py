"""A call and its chunks, as the process back-end has them.

SentCall ◄── CallHandle ◄── Task, a future ──► WorkerHandle, while a worker has it
             └─► TaskControl: what the holder of the future may do to the task
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

from parallel_facade._common.deadlines import Deadline
from parallel_facade._common.errors import PoolClosedError
from parallel_facade._console.replay import ignore
from parallel_facade._serialization.encoder import Payload
from parallel_facade._worker.outcomes import Received, encode_records
from parallel_facade.backends.base import Splitting, Stage, TaskFuture, WorkerLost
from parallel_facade.backends.process.journal import JournalSnapshot

if TYPE_CHECKING:
    from parallel_facade.backends.process.task_control import TaskControl
    from parallel_facade.backends.process.worker_handle import WorkerHandle


MOST_PLACES: Final = (1 << 32) - 1
"""The end of a task whose number of items does not matter."""


class SentCall:
    """What workers have of a call, or of several calls of the same.

    Attributes:
        number: Identifies it to workers.
        payload: What workers are sent.
        is_kept: Whether workers keep it when a call of it has ended.
    """

    __slots__ = ("is_kept", "number", "payload")

    def __init__(self, number: int, payload: Payload) -> None:
        self.number: int = number
        self.payload: Payload = payload
        self.is_kept: bool = False


class CallHandle:
    """A call that is sent to each worker when the worker first needs it.

    Attributes:
        sent: What workers have of it.
        on_record: Takes the records that its tasks send.
        control: What stops its tasks, and looks at them while they run.
    """

    __slots__ = ("control", "number", "on_record", "payload", "sent")

    def __init__(self, sent: SentCall, control: TaskControl) -> None:
        self.sent = sent
        self.number: int = sent.number
        self.payload: Payload = sent.payload
        self.control: TaskControl = control
        self.on_record: Callable[[bytes], object] = ignore

    def again(self) -> CallHandle:
        """Return a handle for another call of what workers know already."""
        return CallHandle(self.sent, self.control)

    def keep(self, *, is_kept: bool) -> None:
        """Have workers keep what they know when the call has ended, or no longer."""
        self.sent.is_kept = is_kept


class Task(TaskFuture):
    """A chunk on its way through one worker."""

    def __init__(
        self,
        call: CallHandle,
        payload: Payload,
        task_timeout: float | None,
        *,
        is_short: bool = False,
        splitting: Splitting | None = None,
        first: int = 0,
    ) -> None:
        super().__init__()
        self.call = call
        self.payload = payload
        self.task_timeout = task_timeout
        self.is_short = is_short
        """It may wait in a worker's channel, behind another short task of its call."""
        self.splitting = splitting
        """How it may be split, and how many items it has; `None` if it may not be."""
        self.first = first
        """The place of its first item in the payload."""
        self.sent_at = 0.0
        """When it was sent, by the manager thread's clock."""
        self.number = 0
        """Identifies the task to the worker; known once the task was sent."""
        self.attempts = 0
        """How often it was sent; again only if a worker died before the worker began it."""
        self.deadline: Deadline = Deadline(None)
        """When it has to end; known once it was sent."""
        self.parts: list[Received] = []
        """The parts of the report that the worker has sent."""
        self.worker: WorkerHandle | None = None
        """The worker that has it, while its channel is open."""

    def stop(self) -> bool:
        """Stop the worker that runs it; another one is started."""
        return self.call.control.stop(self, CancelledError("the task was stopped"))

    def leave_rest(self) -> None:
        """Have its worker begin no further item."""
        self.call.control.leave_rest(self)

    def progress(self) -> list[Any]:
        """Return the outcomes in the journal of its worker."""
        return self.call.control.progress(self)

    def is_wanted(self) -> bool:
        """Return whether it was not cancelled; from now on it cannot be."""
        return self.attempts > 0 or self.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """Resolve the future with *error*, unless it is resolved."""
        if not self.done():
            self.set_exception(error)

    @property
    def is_taken_back(self) -> bool:
        """Whether all its items run elsewhere, as another task."""
        return self.splitting is not None and self.splitting.items == 0

    def leave(self) -> None:
        """Resolve the future of a task that was taken back before it was begun."""
        self.fail(WorkerLost(PoolClosedError("the task was taken back"), Stage.CALLABLE))

    @property
    def end(self) -> int:
        """The place behind its last item in the payload."""
        return MOST_PLACES if self.splitting is None else self.first + self.splitting.items

    def split(self, kept: int) -> Task:
        """Keep the first *kept* items; return the others as another task."""
        splitting = self.splitting
        assert splitting is not None, "it may be split"
        rest = Task(
            self.call,
            self.payload,
            None,
            is_short=self.is_short,
            splitting=splitting._replace(items=splitting.items - kept),
            first=self.first + kept,
        )
        self.splitting = splitting._replace(items=kept)
        splitting.on_split(self, rest, kept)
        return rest

    def give_up(self) -> None:
        """Resolve the future of a task that no worker will run or report any more."""
        if not self.cancel():
            self.fail(PoolClosedError("the pool was closed while the task ran"))

    def parts_so_far(self, progress: JournalSnapshot) -> list[Any]:
        """Return the known outcomes of a task whose items were running."""
        parts = list(self.parts)
        if progress.parts == len(parts) and progress.has_outcomes:
            parts.append(Received(encode_records(progress.slots, progress.records)))
        return parts

    def stage_in(self, progress: JournalSnapshot | None) -> Stage:
        """Return how far a worker came with the task, according to the worker's journal."""
        if progress is None or progress.task > self.number:
            return Stage.UNKNOWN
        if progress.task < self.number:
            return Stage.CALLABLE
        return Stage.ITEMS if progress.is_running else Stage.ARGUMENTS

    def items_begun(self, progress: JournalSnapshot) -> int | None:
        """Return how many of its items were begun; `None` if that is not known any more."""
        stage = self.stage_in(progress)
        if stage is Stage.UNKNOWN:
            return None
        return progress.outcomes + 1 if stage is Stage.ITEMS else 0
