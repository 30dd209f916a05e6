"""A process that forks workers: it is single-threaded, private, and has our modules loaded.

    start a worker ──descriptors──► fork server ──fork──► worker
          ◄── its pid, and later its exit code, on a separate pipe ───────┘

It replaces the fork server of `multiprocess`, which listens at a file in the temporary folder: that
file outlives a caller that is killed, and any process that can open it can start processes.

A `ForkServer` is a new Python process, for the start method "forkserver". A `CopyServer` is a copy
of the caller, for "fork": the thread that makes the pool forks it at that time, and workers are
copies of the copy. A replacement worker is not forked from the caller itself, because that would
happen at any moment, in a thread of ours:
    1. main thread  starts a program for the user, and makes a pipe that reports its start
    2. our thread   forks a worker, which inherits the pipe, and keeps it
    3. main thread  waits for the end of the pipe, for as long as that worker lives

Guarantees:
    - Nothing listens, and no file is made: requests arrive on an anonymous socket pair.
    - The server ends when its caller ends. If it ends before, the next request starts a new server.

Assumes:
    - `multiprocess` looks for inherited descriptors in `forkserver._forkserver._inherited_fds`.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from importlib import import_module
from typing import Any, Final, NoReturn

from multiprocess import forkserver, process, resource_tracker, spawn, util

from parallel_facade.backends.process.starting.bootstrap import ignore_interrupts, sigint_blocked
from parallel_facade.backends.process.starting.commands import code_of_command
from parallel_facade.backends.process.starting.fork_safe_sockets import kept_in_fork, private_pair
from parallel_facade.backends.process.starting.resource_tracker import tracker_descriptor

REQUEST: Final = b"F"
FEWEST_DESCRIPTORS: Final = 3
DESCRIPTORS_AT_MOST: Final = 250
"""The kernel takes at most 253 in one message."""


class ForkServer:
    """The caller's end of the connection to a fork server.

    Args:
        preload: The module that workers run.
    """

    def __init__(self, preload: str) -> None:
        self._preload = preload
        self._lock = threading.Lock()  # guards all below
        self._requests: socket.socket | None = None
        self._pid: int | None = None

    def start(self) -> None:
        """Start the server if it does not run; do not wait until it serves requests."""
        with self._lock, sigint_blocked():
            self._ensure_running()

    def connect_to_new_process(self, fds: list[int]) -> tuple[int, int]:
        """Start a process; return a pipe with its pid and exit code, and a pipe to send it data.

        Args:
            fds: The descriptors that the process receives.
        """
        with self._lock:
            self._ensure_running()
            try:
                return self._request(fds)
            except ConnectionError:  # the server died meanwhile
                self._forget()
                self._ensure_running()
                return self._request(fds)

    def stop(self) -> None:
        """Kill the server, whatever it does, even if other processes hold our end of its socket."""
        with self._lock:
            if self._is_running():
                assert self._pid is not None, "it runs"
                os.kill(self._pid, signal.SIGKILL)
            self._forget()

    def _ensure_running(self) -> None:
        if self._is_running():
            return
        self._pid = None
        self._forget()
        ours, theirs = private_pair()
        try:
            self._pid = self._start(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._requests = ours

    def _start(self, requests: socket.socket) -> int:
        """Start the process that serves *requests*; return its pid."""
        command = (
            f"{code_of_command()}import sys; sys.path[:] = {import_path()!r}; "
            f"from {__name__} import serve_requests; "
            f"serve_requests({requests.fileno()}, {self._preload!r})"
        )
        executable = spawn.get_executable()
        flags = util._args_from_interpreter_flags()
        pid: int = util.spawnv_passfds(
            executable, [executable, *flags, "-c", command], [requests.fileno()]
        )
        return pid

    def _is_running(self) -> bool:
        if self._pid is None:
            return False
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] == 0
        except ChildProcessError:  # it has exited, and other code has waited for it
            return False

    def _request(self, fds: list[int]) -> tuple[int, int]:
        assert self._requests is not None, "the server runs"
        status, their_status = os.pipe()
        try:
            their_data, data = os.pipe()
        except OSError:
            os.close(status)
            os.close(their_status)
            raise
        try:
            theirs = [their_data, their_status, tracker_descriptor(), *fds]
            socket.send_fds(self._requests, [REQUEST], theirs)
        except BaseException:
            os.close(status)
            os.close(data)
            raise
        finally:
            os.close(their_status)
            os.close(their_data)
        return status, data

    def _forget(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._pid is not None:
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = None


class CopyServer(ForkServer):
    """The caller's end of the connection to a server that is a copy of the caller as it is now."""

    def __init__(self, preload: str) -> None:
        super().__init__(preload)
        self.start()

    def _start(self, requests: socket.socket) -> int:
        util._flush_std_streams()  # else each copy would write the unflushed output
        with kept_in_fork(requests):
            pid = fork()
        if pid == 0:
            # Context variables that are set now must not reach later calls.
            Context().run(serve_requests, requests.detach(), self._preload)
        return pid


def fork() -> int:
    """Fork without Python's own warning of other threads; we warn users of "fork" ourselves.

    From Python 3.15 on, an "error" filter raises that warning after the child has been created.
    """
    with _without_warning_of_threads():
        return os.fork()


OF_THREADS: Final = ("ignore", re.compile(".*use of fork"), DeprecationWarning, None, 0)


@contextmanager
def _without_warning_of_threads() -> Iterator[None]:
    if getattr(sys.flags, "context_aware_warnings", False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
        return
    # Not with `catch_warnings`, which changes the whole process here:
    #   1. another thread  enters its own block, with its own filters
    #   2. we              enter our block, and save those filters
    #   3. another thread  leaves its block: the filters are as they were
    #   4. we              leave our block, and restore the other thread's filters, forever
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters.insert(0, OF_THREADS)
    try:
        yield
    finally:
        filters.remove(OF_THREADS)


def import_path() -> list[str]:
    """Return the `sys.path` of a new process, valid whatever folder the process starts in."""
    # ORIGINAL_DIR is `None` if the program's start folder had been removed before the start.
    return [path for entry in sys.path if (path := entry or process.ORIGINAL_DIR) is not None]


def serve_requests(fd: int, preload: str) -> NoReturn:
    """Fork a process for each request on the socket *fd*, until its other end is closed.

    Args:
        fd: The socket.
        preload: The module that workers run.
    """
    try:
        import_module(preload)  # so that workers need not load it
        util._close_stdin()
        requests = socket.socket(fileno=fd)
        requests.settimeout(None)  # the program may have set a default
        server = _Server(requests)
        server.run()
    finally:
        # Skip the interpreter's own exit: a child's death would meet half-removed handlers there.
        os._exit(0)


class _Server:
    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._status_pipes: dict[int, int] = {}  # by pid
        self._wakeup, wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        wakeup.setblocking(False)
        self._wakeup_button = wakeup
        self._old_handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
        }
        ignore_interrupts()
        # The caller may have blocked SIGCHLD; then nobody would learn that a worker has exited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._wakeup in ready:
                    self._wakeup.recv(4096)
                    self._report_exit_codes()
                if self._requests in ready:
                    request, fds, *_ = socket.recv_fds(self._requests, 1, DESCRIPTORS_AT_MOST)
                    if not request:
                        self._end_processes()
                        return
                    self._fork(fds)

    def _end_processes(self) -> None:
        """Kill the workers that the caller has left behind; some may not notice that themselves."""
        for pid in self._status_pipes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _fork(self, fds: list[int]) -> None:
        if len(fds) < FEWEST_DESCRIPTORS:
            # This process had no room for all of them. The caller sees its pipes closed.
            for fd in fds:
                os.close(fd)
            return
        data, status, *given = fds
        pid = fork()
        if pid == 0:
            self._become_process(data, status, given)
        self._status_pipes[pid] = status
        self._send_number(status, pid)
        for fd in (data, *given):
            os.close(fd)

    def _become_process(self, data: int, status: int, given: list[int]) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number, handler in self._old_handlers.items():
                # A handler that was not set from Python is unknown, and cannot be restored.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            for end in (self._requests, self._wakeup, self._wakeup_button):
                end.close()
            for fd in (status, *self._status_pipes.values()):
                os.close(fd)
            tracker, *inherited = given
            resource_tracker._resource_tracker._fd = tracker
            vars(forkserver._forkserver)["_inherited_fds"] = inherited
            code = spawn._main(data, os.dup(data))
        except Exception as exc:
            sys.excepthook(type(exc), exc, exc.__traceback__)
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _report_exit_codes(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            pipe = self._status_pipes.pop(pid)
            self._send_number(pipe, os.waitstatus_to_exitcode(status))
            os.close(pipe)

    @staticmethod
    def _send_number(pipe: int, number: Any) -> None:
        with suppress(BrokenPipeError):  # the caller no longer reads it
            forkserver.write_signed(pipe, number)
