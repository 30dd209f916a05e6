"""The last call on a back-end, which its workers keep for the case that it comes again.

    call 1: f ─► packed, sent, rebuilt in a worker
    call 2: f again ─► the same; and now its footprint is taken, and the workers keep it
    call 3: f again, and its footprint is current ─► only the arguments are packed and sent

Guarantees:
    - A call is taken for the kept one only if it would be packed to the same bytes.
    - Workers keep one call at a time. Each other call on the back-end ends that: tasks of the other
      call may set globals that this one reads.

Assumes:
    - Calls that overlap have no order, so none has to see what tasks of the other one set.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from parallel_facade._common.plain_data import is_plain
from parallel_facade._serialization.footprint import Footprint, footprint_of

MOST_ELEMENTS_LOOKED_AT = 64
"""Of arguments, to see whether they are plain; those of larger ones take longer to send anyway."""


class KeepableHandle(Protocol):
    """A handle of a call that workers can keep."""

    def again(self) -> Any:
        """Return a handle for another call of what workers know already."""

    def keep(self, *, is_kept: bool) -> None:
        """Have workers keep what they know when the call has ended, or no longer."""


class KeptCall:
    """What was sent of a call.

    Args:
        footprint: That of its callable, taken before it was packed.
        how: How the callable is applied, and the surroundings of its tasks.
        call_id: Its id.
        handle: From the back-end.
    """

    def __init__(
        self, footprint: Footprint, how: tuple[Any, ...], call_id: str, handle: KeepableHandle
    ) -> None:
        self.footprint = footprint
        self.how = how
        self.call_id = call_id
        self.handle = handle


class KeptCalls:
    """Remembers the last call on a back-end.

    Args:
        drop: Makes workers forget the call behind a handle, unless they keep it.
    """

    def __init__(self, drop: Callable[[Any], None]) -> None:
        self._drop = drop
        # Guards _kept. Reentrant: garbage collection may run a `__del__` that makes a call.
        self._lock = threading.RLock()
        self._kept: KeptCall | None = None
        self._last: weakref.ref[Any] | None = None

    def find(self, func: Callable[..., Any], how: tuple[Any, ...]) -> KeptCall | None:
        """Return the kept call if it is this one."""
        kept = self._kept
        if kept is None or kept.how != how or not kept.footprint.is_of(func):
            return None
        return kept

    def footprint_of(self, func: Callable[..., Any]) -> Footprint | None:
        """Return the footprint of *func* if it was called just now; else `None`.

        Taking it is not free, and most functions that are made for a call never come again.
        """
        last, self._last = self._last, None
        if last is not None and last() is func:
            found = footprint_of(func)
            self._last = last
            return found
        try:
            self._last = weakref.ref(func)
        except TypeError:
            self._last = None
        return None

    def note(self, call: KeptCall | None) -> None:
        """Keep *call* from now on, instead of the one before."""
        with self._lock:
            before, self._kept = self._kept, call
        if before is not None:
            before.handle.keep(is_kept=False)
            self._drop(before.handle.again())
        if call is not None:
            call.handle.keep(is_kept=True)


def are_plain_arguments(arguments: Any) -> bool:
    """Return whether *arguments* consist of plain data, so that they bring no code along."""
    return is_plain(arguments, MOST_ELEMENTS_LOOKED_AT)
