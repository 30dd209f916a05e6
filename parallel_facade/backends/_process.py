"""The process back-end: pathos owns the processes, the switchboard owns the conversation.

    ProcessPool(nodes=N, maxtasksperchild=1, context=ours)
        │ starts and replaces processes, each of which takes one call of `serve`
        ▼
    serve ══ private channel ══ Switchboard ── submit / future

Guarantees:
    - `close` returns whatever the workers do; after it there is no process, thread or file of ours.
    - A worker that ends is replaced by pathos, and given a new call of `serve` by us.

Assumes:
    - Returning from `serve` ends the process, since ``maxtasksperchild`` is 1.
"""

from __future__ import annotations

import itertools
import os
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from parallel_facade._errors import TaskTimeoutError
from parallel_facade._outcomes import decode_report
from parallel_facade.backends import Backend, Capabilities, WorkerLost, WorkerSettings
from parallel_facade.backends._family import Family
from parallel_facade.backends._launch import WorkerContext, default_start_method
from parallel_facade.backends._link import CallHandle, Link, Task
from parallel_facade.backends._serve import serve, start_body
from parallel_facade.backends._switchboard import InitializerError, Switchboard
from parallel_facade.backends._thread import settle

LEAVE_PATIENCE: Final = 5.0
"""Seconds that an idle worker has to end by itself, its exit handlers included."""

_pool_numbers = itertools.count()


class ProcessBackend(Backend):
    """Run chunks in processes of this machine."""

    capabilities = Capabilities(
        needs_serialization=True,
        survives_crashes=True,
        can_stop_running_task=True,
        has_private_state=True,
        can_initialize=True,
        can_recycle=True,
    )

    def __init__(self, settings: WorkerSettings) -> None:
        from pathos.multiprocessing import ProcessPool

        self._workers = settings.workers
        initializer = settings.initializer
        assert not callable(initializer), "it crosses a border, as a payload"
        self._lock = threading.Lock()  # guards _pool and _serves
        self._serves: list[Any] = []
        self._context = WorkerContext(
            settings.start_method or default_start_method(), self._adopt, self._start_failed
        )
        self._switchboard = Switchboard(
            start_body(settings),
            hears_start=initializer is not None,
            on_gone=self._issue_serve,
            on_broken=self._end_pool,
        )
        # pathos keeps pools in a table by id: with one of our own, no two back-ends share workers.
        pool_id = f"parallel_facade-{os.getpid()}-{next(_pool_numbers)}"
        # Workers may die before the pool is made, and the switchboard then asks for more.
        try:
            with self._lock:
                self._pool = ProcessPool(
                    nodes=self._workers, id=pool_id, maxtasksperchild=1, context=self._context
                )
        except BaseException:
            _see_off(self._switchboard.close())
            self._context.close()
            raise
        self._closer = _Closer(self._release)
        self._context.is_open = True
        for _ in range(self._workers):
            self._issue_serve()

    @property
    def is_usable(self) -> bool:
        """Whether workers can be started."""
        return self._switchboard.broken is None

    def capacity(self) -> int:
        """Return the number of worker processes."""
        return self._workers

    def put(self, call: bytes) -> CallHandle:
        """Keep the call's payload for the workers that will need it."""
        return self._switchboard.put(call)

    def submit(
        self, handle: CallHandle, chunk: bytes, task_timeout: float | None = None
    ) -> Future[list[bytes]]:
        """Send *chunk* to the next idle worker."""
        task = Task(handle, chunk, task_timeout)
        try:
            self._switchboard.submit(task)
        except InitializerError as exc:
            raise self.translate(exc) from None
        return task.future

    def translate(self, error: BaseException) -> BaseException:
        """Return what the user's initializer raised, or the error that says why a worker died."""
        if isinstance(error, InitializerError):
            return decode_report([error.report]).failures[0].to_raise()
        return error.error if isinstance(error, WorkerLost) else error

    def stop(self, future: Future[Any]) -> bool:
        """End the worker that runs the task behind *future*; pathos starts another."""
        return self._switchboard.stop(future, TaskTimeoutError("the task was stopped"))

    def outcomes_so_far(self, future: Future[Any]) -> list[bytes]:
        """Return what the worker's journal holds of the task behind *future*."""
        return self._switchboard.outcomes_so_far(future)

    def drop(self, handle: CallHandle) -> None:
        """Let the workers forget the call."""
        self._switchboard.drop(handle)

    def close(self, *, cancel: bool) -> None:
        """End the workers: after what is in flight or, with *cancel*, at once."""
        try:
            if not cancel:
                self._switchboard.wait_until_settled()
        finally:  # also after Ctrl-C
            self._closer.run()

    def _release(self) -> None:
        # The pool first: it replaces every worker that ends, for as long as it is open.
        self._end_pool()
        links = self._switchboard.close()
        _see_off(links)
        self._pool.clear()
        self._context.close()
        # Files of theirs close when the last reference goes, which the user's to us may outlive.
        del self._pool, self._context, links

    def _adopt(self, process: Any, sock: socket.socket) -> None:
        self._switchboard.adopt(process, sock)

    def _start_failed(self, error: Exception) -> None:
        self._switchboard.start_failed(f"{type(error).__name__}: {error}")

    def _issue_serve(self) -> None:
        """Give the pool one call of `serve`, for a process that is starting."""
        with self._lock, suppress(ValueError):  # closed meanwhile: it starts no more processes
            if not hasattr(self, "_pool"):
                return
            self._serves = [*_not_ready(self._serves), self._pool.apipe(serve)]
            # The pool looks for dead processes when it is woken, and a process that a task left
            # behind can keep it from noticing by itself.
            self._pool._serve()._change_notifier.put(None)

    def _end_pool(self) -> None:
        """Close the pool to replacements, and settle its calls.

        A call of `serve` whose process died never completes by itself:
            1. worker  takes the call, and dies
            2. pool    starts a replacement, but the call is in nobody's hands
            3. join    waits for the call's result, for ever
        """
        with self._lock:
            self._pool.close()
            serves, self._serves = self._serves, []
        for call in _not_ready(serves):
            settle(call)


def _not_ready(calls: list[Any]) -> list[Any]:
    return [call for call in calls if not call.ready()]


class _Closer:
    """A thread that runs *action* when it is told, where no Ctrl-C is raised.

    It is there from the beginning: `threading.Thread.start` waits, by a condition that an interrupt
    can leave locked, and then the thread would never run.
    """

    def __init__(self, action: Callable[[], object]) -> None:
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ended = threading.Lock()  # held until the action has ended
        self._ended.acquire()
        self._action = action
        self._thread = threading.Thread(target=self._run, name="parallel_facade-close", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Run the action, once, and wait for its end; an interrupt ends the waiting only."""
        self._told.put(None)
        with self._ended:  # a lock, since an interrupt leaves it to whoever waits next
            pass
        self._thread.join()

    def _run(self) -> None:
        self._told.get()
        try:
            self._action()
        finally:
            del self._action
            self._ended.release()


def _see_off(links: list[Link]) -> None:
    """Wait for idle workers to leave; end the others, with what they started."""
    busy = [Family(link.pid) for link in links if link.task is not None or not link.is_ready]
    for family in busy:
        family.kill()
    for link in links:
        link.end(LEAVE_PATIENCE)
        link.release()
