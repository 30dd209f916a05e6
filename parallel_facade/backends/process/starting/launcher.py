"""Start worker processes with our own context, channel and fork server.

    pathos pool ── Process() ──► WorkerProcess.launch ── fork, fork server or spawn ──► worker
                                      │                                                   │
           worker handle ◄── caller's end of a socket pair       worker's end ────────────┘

Guarantees:
    - The user's main module is never imported, so the user's script never runs again.
    - Only the worker holds its end, and only the caller holds the other end. So the death of either
      closes the channel for the other, whatever was forked meanwhile.
    - `multiprocess` keeps its default context, its fork server and its start method.
    - When the last context has been closed, its fork server has exited.

Assumes:
    - `multiprocess` looks up `get_preparation_data` and `connect_to_new_process` as globals of the
      functions rebound here (true from 3.11 to 3.15).
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from multiprocess import context, process, spawn
from multiprocess.connection import wait

from parallel_facade._common.errors import ConfigurationError
from parallel_facade.backends.process.starting import resource_tracker as _tracker
from parallel_facade.backends.process.starting.commands import rebound, with_code
from parallel_facade.backends.process.starting.exit_codes import UNKNOWN_EXIT_CODE
from parallel_facade.backends.process.starting.fork_server import (
    CopyServer,
    ForkServer,
    import_path,
)
from parallel_facade.backends.process.starting.lockless_queue import LocklessQueue, can_make_queues
from parallel_facade.backends.process.starting.worker_process import WorkerProcess

FIRST_WORKERS: Final = 2
"""Processes that start with the pool, while the caller encodes its first call."""


class _ReapingPopen:
    """Lets several threads ask for an exit code, which the system returns only once.

    If other code received it, such as a handler of SIGCHLD that waits for any child, the code is
    `UNKNOWN_EXIT_CODE`; `multiprocess` would think that the process is alive.
    """

    def __init__(self, process_obj: Any) -> None:
        self._reaping = threading.Lock()  # held while we ask the system, which does not block
        self._waiting = threading.Lock()  # held by a thread that waits, if its wait takes the code
        super().__init__(process_obj)  # type: ignore[call-arg]  # it is mixed into a Popen

    pid: int
    method: str
    returncode: int | None

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.method == "forkserver":  # the server reports the code, on a pipe
            if flag == 0:
                wait([self.sentinel])  # type: ignore[attr-defined]
            with self._reaping:
                code: int | None = super().poll(flag)  # type: ignore[misc]
                return code
        if flag == 0:
            self._wait_for_exit()
        with self._reaping:
            if self.returncode is None:
                self._ask_for_code()
            return self.returncode

    def _ask_for_code(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            if not self._waiting.locked():  # else the waiting thread received it
                self.returncode = UNKNOWN_EXIT_CODE
        else:
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)

    def _wait_for_exit(self) -> None:
        """Wait until the process has exited, without holding `_reaping`."""
        # Not with the sentinel: a process that the task left behind holds its other end.
        if hasattr(os, "waitid"):
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            return
        with self._waiting, suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)


class WorkerContext(context.BaseContext):  # type: ignore[misc]
    """The context from which the pathos pool gets processes and queues.

    Args:
        method: The start method.
        workers: How many processes the pool makes at first.
        announce: Called with each started process and the caller's end of its channel, in the
            thread that started it.
        report: Called with the error if a process cannot be started, once `is_open` is set.
        preload: The module that workers run.
    """

    is_open = False
    """Whether the pool has been made: from then on, the pool's own thread starts processes."""

    def __init__(
        self,
        method: str,
        workers: int,
        announce: Callable[[WorkerProcess, socket.socket], None],
        report: Callable[[Exception], None],
        preload: str,
    ) -> None:
        _check_interpreter(method)
        self.method = method
        self._preload = preload
        self._workers = workers
        self._starts = 0
        self._later: deque[WorkerProcess] = deque()
        self.announce = announce
        self.report = report
        self.ended: socket.socket
        self.ended, closed = socket.socketpair()
        closed.close()
        self._queues: list[Any] = []
        self._copy: CopyServer | None = None
        _helpers.acquire()
        try:
            self._start_server()
        except BaseException:
            self.close()
            raise
        copy = self._copy
        self.popen: Any = _popen_class(method, lambda: copy or _helpers.fork_server(preload))

    def _start_server(self) -> None:
        if self.method == "fork":
            _refuse_beside_interpreters()
            _warn_of_threads()
            self._copy = CopyServer(self._preload)
        elif self.method == "forkserver":
            # Now, because the server takes longer to start than our remaining imports take.
            _helpers.fork_server(self._preload).start()

    def Process(self, *args: Any, **kwds: Any) -> WorkerProcess:  # noqa: N802 - multiprocess' name
        """Return a new process of this context, not yet started."""
        made = WorkerProcess(*args, **kwds)
        made._context = self
        return made

    def keep_for_later(self, worker: WorkerProcess) -> bool:
        """Keep *worker* for `start_another`; return `False` if it is to be started at once."""
        self._starts += 1
        is_first = self._starts <= FIRST_WORKERS
        is_replacement = self._starts > self._workers  # only one that has run is ever replaced
        if is_first or is_replacement:
            return False
        self._later.append(worker)
        return True

    def start_another(self) -> None:
        """Start one of the processes that were kept for later."""
        self._later.popleft().launch()

    def SimpleQueue(self) -> Any:  # noqa: N802 - multiprocess' name
        """Return a queue without locks where the platform allows it."""
        made = LocklessQueue() if can_make_queues() else super().SimpleQueue()
        self._queues.append(made)
        return made

    def get_start_method(self, allow_none: bool = False) -> str:  # noqa: ARG002
        """Return the start method."""
        return self.method

    def close(self) -> None:
        """Close the queues, and release the shared fork server; the last context stops it."""
        for resource in (*self._queues, self.ended):
            resource.close()
        if self._copy is not None:
            self._copy.stop()
        _helpers.release()


def preparation_data(name: str) -> dict[str, Any]:
    """Return what a new process must know, without the user's main module.

    `multiprocess` would name the main module here, and the new process would run it.
    """
    folder = {}
    with suppress(FileNotFoundError):  # the folder was removed: the new process starts where we are
        folder["dir"] = os.getcwd()
    return {
        **folder,
        "name": name,
        "authkey": process.current_process().authkey,
        "sys_path": import_path(),
        "sys_argv": sys.argv,
        "orig_dir": process.ORIGINAL_DIR,
    }


class _Spawn:
    """`multiprocess.spawn` with our `preparation_data`, and our first statements."""

    get_preparation_data = staticmethod(preparation_data)

    @staticmethod
    def get_command_line(**settings: Any) -> list[str]:
        return with_code(spawn.get_command_line(**settings))

    def __getattr__(self, name: str) -> Any:
        return getattr(spawn, name)


def _popen_class(method: str, server: Callable[[], ForkServer]) -> Any:
    """Return the class that starts a process; if a fork server does that, *server* returns it."""
    if method == "spawn":
        from multiprocess.popen_spawn_posix import Popen

        launch = rebound(Popen._launch, spawn=_Spawn())
    else:
        from multiprocess.popen_forkserver import Popen

        servers = _ForkServerModule(server)
        launch = rebound(Popen._launch, spawn=_Spawn(), forkserver=servers)
    return type("Popen", (_ReapingPopen, Popen), {"_launch": launch})


class _ForkServerModule:
    """`multiprocess.forkserver` with our own fork server; `fork_server` has the reasons."""

    def __init__(self, server: Callable[[], ForkServer]) -> None:
        self._server = server

    def connect_to_new_process(self, fds: list[int]) -> tuple[int, int]:
        return self._server().connect_to_new_process(fds)

    def __getattr__(self, name: str) -> Any:
        from multiprocess import forkserver

        return getattr(forkserver, name)


class _Helpers:
    """The processes that help to start workers, alive while any context is open."""

    def __init__(self) -> None:
        # Guards all below. Reentrant, because a signal handler may also make a pool.
        self._lock = threading.RLock()
        self._users = 0
        self._server: Any = None
        self._tracker_was_running = False
        self._pid = os.getpid()

    def acquire(self) -> None:
        with self._lock:
            if self._users == 0:
                self._tracker_was_running = _tracker.is_running()
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._stop()

    def fork_server(self, preload: str) -> Any:
        with self._lock:
            if self._server is None:
                self._server = ForkServer(preload)
            return self._server

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        if not self._tracker_was_running:
            _tracker.stop()

    def forget_after_fork(self) -> None:
        self.__init__()  # type: ignore[misc]  # the helpers belong to the parent


def _disown_workers() -> None:
    """Leave the workers to the parent, in a forked child, which would end them at its exit."""
    ours = [child for child in process._children if isinstance(child, WorkerProcess)]
    process._children.difference_update(ours)


_helpers = _Helpers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.forget_after_fork)
    os.register_at_fork(after_in_child=_disown_workers)


def _check_interpreter(method: str) -> None:
    """Refuse to start new interpreters if there is none, as in an embedded Python."""
    if method != "fork" and not _tracker.has_interpreter():
        raise ConfigurationError(
            f"start_method={method!r} starts a Python interpreter, and there is none: "
            f"sys.executable is {sys.executable!r}\n\n"
            "Hint: set sys.executable to an interpreter before the first import of "
            "parallel_facade, or use start_method='fork' or backend='thread'."
        )


def _refuse_beside_interpreters() -> None:
    """Refuse to fork while subinterpreters are alive, because the child process would crash."""
    # Python code that has made a subinterpreter has loaded this module.
    if (interpreters := sys.modules.get("_interpreters")) is None:
        return
    if (count := len(interpreters.list_all()) - 1) > 0:
        raise ConfigurationError(
            f"start_method='fork' while {count} subinterpreter(s) are alive: the child would crash"
            "\n\nHint: use start_method='forkserver', or shut down the "
            "InterpreterPoolExecutor first."
        )


@functools.cache
def _warn_of_threads() -> None:
    """Warn once if forking now may copy locks that other threads hold."""
    if threading.active_count() > 1:
        warnings.warn(
            "start_method='fork' while other threads are alive: a lock that one of them holds at "
            "that moment stays locked in the worker for ever; 'forkserver' avoids this",
            RuntimeWarning,
            stacklevel=2,
        )
