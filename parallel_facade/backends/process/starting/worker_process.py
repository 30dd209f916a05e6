"""A process of the pool: it starts with a private channel, and not before a task needs it.

    the pool makes N processes ─ start() ─► the first ones: launch()
                                     └────► the others wait in the context ── tasks wait ─► launch()

So 300 workers for three items are three processes. The pool itself keeps its N from the beginning:
it hands that number to its own thread, which replaces processes, and cannot be told another.

Guarantees:
    - A process that replaces one that has exited is started at once.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from multiprocess import process

from parallel_facade.backends.process.starting import exit_handlers
from parallel_facade.backends.process.starting import resource_tracker as _tracker
from parallel_facade.backends.process.starting.bootstrap import sigint_blocked
from parallel_facade.backends.process.starting.fork_safe_sockets import keep_private, private_pair
from parallel_facade.backends.process.starting.lockless_queue import LocklessQueue


class WorkerProcess(process.BaseProcess):  # type: ignore[misc]  # multiprocess has no types
    """A process of the pool, which starts with a private channel to the caller."""

    _start_method = None  # a task that uses multiprocess itself gets that package's default
    _context: Any
    channel: socket.socket
    _popen: Any
    _sentinel: int

    start_error: Exception | None = None
    """Why the process could not be started; then it counts as exited."""

    def start(self) -> None:
        """Start the process now, or when tasks wait for it."""
        if not self._context.keep_for_later(self):
            self.launch()

    def launch(self) -> None:
        """Start the process, and announce the caller's end of its channel."""
        try:
            self._start_with_channel()
        except Exception as exc:
            if not self._context.is_open:
                raise
            # A thread of the pool replaces a worker here. The error would end that thread; then
            # no workers would be replaced any more, and nothing would report that.
            self.start_error = exc
            self._context.report(exc)

    def _start_with_channel(self) -> None:
        ours, theirs = private_pair()
        self.channel = theirs
        # Before SIGINT is blocked: the tracker sets a signal mask of its own when it starts.
        _tracker.ensure_running()
        try:
            with sigint_blocked():
                super().start()
        except EOFError:
            ours.close()
            raise OSError("the fork server ended while it started a worker") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._context.announce(self, ours)

    @property
    def exitcode(self) -> int | None:
        """The exit code of the process; `None` while it runs."""
        if self.start_error is not None:
            return 1
        code: int | None = super().exitcode
        return code

    @property
    def sentinel(self) -> int:
        """A descriptor that is ready when the process has exited.

        Raises:
            AttributeError: The process has not been started yet: the pool then asks the others.
        """
        if self.start_error is not None:
            ended: int = self._context.ended.fileno()
            return ended
        descriptor: int = self._sentinel
        return descriptor

    def join(self, timeout: float | None = None) -> None:
        """Wait for the process to exit."""
        if self._popen is not None and self.start_error is None:
            super().join(timeout)

    def terminate(self) -> None:
        """Send SIGTERM to the process."""
        if self._popen is not None:
            super().terminate()

    def run(self) -> None:
        """Run the pool's worker loop, in which user code may start its own processes."""
        self._config["daemon"] = False
        keep_private(self.channel).settimeout(None)
        _tracker.use_for_multiprocessing()
        self._introduce()
        is_forked = self._context.method != "spawn"
        if is_forked:
            exit_handlers.forget_inherited()
        for end in self._args[:2]:
            if isinstance(end, LocklessQueue):
                end.use_in_worker(self.channel.fileno())
        try:
            super().run()
        finally:
            if is_forked:
                exit_handlers.run_own()
            # Else Python warns of these in a worker that exits as programs do.
            for end in (self.channel, *self._args[:2]):
                if isinstance(end, socket.socket | LocklessQueue):
                    with suppress(OSError):  # a task has closed all descriptors
                        end.close()

    def _introduce(self) -> None:
        """Let `multiprocessing` know the name and number of this process, as `multiprocess` does.

        Programs choose a GPU by the number, and `logging` shows the name.
        """
        from multiprocessing import process as standard

        current: Any = standard.current_process()
        current._name, current._identity = self.name, self._identity

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the attributes that only the caller can use."""
        return {**self.__dict__, "_popen": None, "_context": WorkerSide(self._context.method)}

    @staticmethod
    def _Popen(  # noqa: N802 # pyright: ignore[reportIncompatibleMethodOverride]
        process_obj: Any,
    ) -> Any:
        return process_obj._context.popen(process_obj)


class WorkerSide:
    """The worker side of the context."""

    def __init__(self, method: str) -> None:
        self.method = method
