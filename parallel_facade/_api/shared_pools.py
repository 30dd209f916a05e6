"""The warm pools of the module-level calls: one per back-end, start method and inner threads.

    pmap ─borrow─► pool (made on first use, replaced when more workers are asked for)
         ◄─return─      └─ unused for long: closed by the janitor; at exit: closed

Guarantees:
    - A pool is closed only when no call uses it.
    - A forked child starts without pools: the parent's workers are not its own.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from parallel_facade._api.open_backend import resolve_once
from parallel_facade._api.pool import Pool
from parallel_facade._common.deadlines import Clock
from parallel_facade._common.polling_thread import PollingThread
from parallel_facade._common.shutdown import park_daemon_threads
from parallel_facade._common.threads import new_thread
from parallel_facade._common.worker_role import is_worker
from parallel_facade._configuration.setting_table import Config
from parallel_facade._dispatch.call_options import Options, make_options

IDLE_SECONDS: Final = 300.0
"""If shorter, a notebook starts its workers again after each pause; if longer, unused workers
hold their memory."""

_Key = tuple[Any, str | None, int | None]


class _BorrowedPool:
    """A pool, and the number of calls that use it."""

    def __init__(self, key: _Key, config: Config) -> None:
        self.key = key
        self.asked = config.workers
        self.pool = Pool._of(config)
        self.users = 0
        self.unused_since = 0.0

    def is_too_small_for(self, config: Config) -> bool:
        """Return whether a call asks for more workers than the pool can start."""
        if config.workers is None or self.asked is None:
            return False
        return self.asked < config.workers


class SharedPools:
    """Lends pools to calls.

    Args:
        idle_seconds: Seconds that a pool stays open while no call uses it.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, idle_seconds: float = IDLE_SECONDS, clock: Clock = time.monotonic) -> None:
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._lock = threading.RLock()  # guards all below; R for a `__del__` that makes a call
        # Each lock is held while a pool is made; an RLock, since a `__del__` may make a call.
        self._making: dict[_Key, threading.RLock] = {}
        self._current: dict[_Key, _BorrowedPool] = {}
        self._borrowed: dict[
            int, _BorrowedPool
        ] = {}  # by id of the pool; also replaced pools that are in use
        self._janitor = PollingThread(self.close_idle, "janitor")

    def borrow(self, config: Config) -> Pool:
        """Return an open pool for *config*; return it with `give_back`."""
        # The address is part of the key: the environment may name another cluster later.
        key = (config.backend, config.start_method, config.inner_threads)
        with self._lock:
            making = self._making.setdefault(key, threading.RLock())
        with making:
            return self._borrow(key, config)

    def _borrow(self, key: _Key, config: Config) -> Pool:
        with self._lock:
            borrowed = self._current.get(key)
            if (
                borrowed is not None
                and borrowed.pool.is_usable
                and not borrowed.is_too_small_for(config)
            ):
                borrowed.users += 1
                return borrowed.pool
        # Reaching a cluster may take a minute; calls to other back-ends continue meanwhile.
        fresh = _BorrowedPool(key, config)
        with self._lock:
            retired = self._retire(self._current.get(key))
            self._current[key] = self._borrowed[id(fresh.pool)] = fresh
            fresh.users += 1
        if retired is not None:
            retired.close()
        return fresh.pool

    def give_back(self, pool: Pool) -> None:
        """End the use of *pool* by one call."""
        with self._lock:
            if (borrowed := self._borrowed.get(id(pool))) is None:
                return  # it was borrowed before a fork, and this is the child
            borrowed.users -= 1
            borrowed.unused_since = self._clock()
            is_current = self._current.get(borrowed.key) is borrowed
            retired = None if is_current or borrowed.users else self._borrowed.pop(id(pool)).pool
        if is_current:
            with suppress(RuntimeError):  # the program ends, and that closes all pools
                self._janitor.start()
        if retired is not None:
            # In a thread: this thread may be the pool's own, reporting the end of its last task.
            closing = new_thread(retired.close, name="close", daemon=False)
            with suppress(RuntimeError):  # the program exits, which closes all pools
                closing.start()

    def close_idle(self) -> float | None:
        """Close the pools that have been unused for too long.

        Returns:
            Seconds until the next pool may be due; `None` if there is no pool left.
        """
        with self._lock:
            now = self._clock()
            due = self._take_unused(since=now - self._idle_seconds)
            seconds = self._seconds_to_next(now)
        for borrowed in due:
            borrowed.pool.close()
        return seconds

    def close(self) -> None:
        """Close every pool that no call uses."""
        with self._lock:
            unused = self._take_unused()
        for borrowed in unused:
            borrowed.pool.close()
        self._janitor.hurry()

    def _take_unused(self, since: float = math.inf) -> list[_BorrowedPool]:
        """Remove and return the pools that are unused since *since*, a time of the clock."""
        unused = [
            borrowed
            for borrowed in self._current.values()
            if not borrowed.users and borrowed.unused_since <= since
        ]
        for borrowed in unused:
            del self._current[borrowed.key], self._borrowed[id(borrowed.pool)]
        return unused

    def _seconds_to_next(self, now: float) -> float | None:
        waiting = [
            self._idle_seconds
            if borrowed.users
            else borrowed.unused_since + self._idle_seconds - now
            for borrowed in self._current.values()
        ]
        return min(waiting, default=None)

    def _retire(self, borrowed: _BorrowedPool | None) -> Pool | None:
        """Take *borrowed* out of use; return its pool if it can be closed now."""
        if borrowed is None:
            return None
        del self._current[borrowed.key]
        return None if borrowed.users else self._borrowed.pop(id(borrowed.pool)).pool


_shared = SharedPools()


class Borrowed(NamedTuple):
    """A pool for one call.

    Attributes:
        pool: The pool.
        options: What the call was asked to do.
        give_back: To be called when the call has ended.
    """

    pool: Pool
    options: Options
    give_back: Callable[[], None]


def borrow(
    settings: dict[str, Any], *, retry_on: object = (), return_exceptions: object = False
) -> Borrowed:
    """Return a pool for one call with *settings*.

    Raises:
        ConfigurationError: A setting or an option has a bad value.
    """
    park_daemon_threads()  # here, where no lock is held
    config = resolve_once(settings)
    options = make_options(
        config,
        retry_on=retry_on,
        return_exceptions=return_exceptions,
        workers=config.workers,
    )
    if isinstance(config.backend, str) and not is_worker():
        shared = _shared
        pool = shared.borrow(config)
        return Borrowed(pool, options, lambda: shared.give_back(pool))
    # The user's own executor, or a call in a worker: nothing that is worth keeping.
    pool = Pool._of(config)
    return Borrowed(pool, options, pool.release)


def _start_anew() -> None:
    global _shared
    _shared = SharedPools()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
