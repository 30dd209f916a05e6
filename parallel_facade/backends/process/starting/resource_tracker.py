"""Start and stop the resource tracker of `multiprocess`, which starting a worker also starts.

Nothing of ours needs it. It removes objects that tasks make with `multiprocess`, like semaphores.
Workers also use it for `multiprocessing`: otherwise a worker that attaches a `SharedMemory` starts
a tracker of its own, which destroys the caller's memory when the worker exits.

Assumes:
    - The tracker is started by its `_launch` or, up to Python 3.12, its `ensure_running`; both
      look up `util` as a global.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from multiprocess import process, resource_tracker, spawn, util

from parallel_facade.backends.process.starting.commands import rebound, with_code


class _Util:
    """`multiprocess.util`, which adds our first statements to the commands of new processes."""

    @staticmethod
    def spawnv_passfds(path: str, command: list[str], fds: list[int]) -> int:
        pid: int = util.spawnv_passfds(path, with_code(command), fds)
        return pid

    def __getattr__(self, name: str) -> Any:
        return getattr(util, name)


def is_running() -> bool:
    """Return whether this process has a tracker, whether we or other code started it."""
    return _tracker()._fd is not None


def ensure_running() -> None:
    """Start the tracker unless it runs, or cannot be started."""
    if not has_interpreter():
        return
    tracker = _tracker()
    if not hasattr(tracker, "_launch"):
        rebound(type(tracker).ensure_running, util=_Util())(tracker)
        return
    with tracker._lock:
        if tracker._fd is None:
            rebound(type(tracker)._launch, util=_Util())(tracker)
    tracker.ensure_running()


def tracker_descriptor() -> int:
    """Return the descriptor by which a new process reaches the tracker.

    Without an interpreter to run a tracker, workers get one that leads nowhere.
    """
    if has_interpreter():
        fd: Any = resource_tracker.getfd()
        return int(fd)
    return _descriptor_to_nowhere()


@functools.cache
def _descriptor_to_nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def has_interpreter() -> bool:
    """Return whether there is a Python interpreter to start."""
    executable = spawn.get_executable()
    return bool(executable) and os.path.isfile(executable)


def use_for_multiprocessing() -> None:
    """Make the caller's tracker that of `multiprocessing` in this worker."""
    import multiprocessing.resource_tracker as standard

    tracker: Any = standard._resource_tracker
    tracker._fd, tracker._pid = _tracker()._fd, None


def stop() -> None:
    """Stop the tracker, unless other users of `multiprocess` need it.

    It is killed, although a request would normally do: it would wait for the end of a pipe that a
    process left behind by a task may hold.
    """
    if _is_needed():
        return
    tracker = _tracker()
    with suppress(ChildProcessError):  # other code has waited for it
        if tracker._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(tracker._pid, signal.SIGKILL)
        tracker._stop()


def _tracker() -> Any:
    return resource_tracker._resource_tracker


def _is_needed() -> bool:
    """Return whether other users of `multiprocess` may have something registered there.

    Stopping the tracker while a semaphore is registered would unlink that semaphore.
    """
    if "multiprocess.shared_memory" in sys.modules or process.active_children():
        return True
    synchronize = sys.modules.get("multiprocess.synchronize")
    if synchronize is None:
        return False
    registered = list(util._afterfork_registry.values())
    return any(isinstance(obj, synchronize.SemLock) for obj in registered)


def _disown() -> None:
    """Leave the tracker to the parent, in a forked child, which would wait for it at exit."""
    _tracker()._pid = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)
