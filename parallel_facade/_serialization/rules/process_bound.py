"""Objects that belong to one process, by a number that means something else in another one.

A connection is the number of a descriptor, a child process the number of a process. A copy would
read, close or wait for whatever has that number over there. So these are refused, in arguments and
in results, also if pickle would copy them.
"""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from typing import Any, Final

BOUND: Final = frozenset(
    {
        ("multiprocessing.connection", "_ConnectionBase"),
        ("multiprocess.connection", "_ConnectionBase"),
        ("multiprocessing.connection", "Listener"),
        ("multiprocess.connection", "Listener"),
        ("multiprocessing.process", "BaseProcess"),
        ("multiprocess.process", "BaseProcess"),
        ("multiprocessing.managers", "BaseManager"),
        ("multiprocess.managers", "BaseManager"),
        ("subprocess", "Popen"),
        ("selectors", "BaseSelector"),
        ("socketserver", "BaseServer"),
        ("asyncio.events", "AbstractEventLoop"),
        ("asyncio.events", "AbstractServer"),
        ("asyncio.transports", "BaseTransport"),
        ("concurrent.futures._base", "Executor"),
    }
)
"""Classes whose instances, and those of subclasses, cannot be used in another process. By name, so
that no module is imported to ask."""

OWN_WAYS: Final = ("__reduce__", "__reduce_ex__", "__getstate__")
"""Methods of `object` that a class defines to say how its objects are pickled."""


def is_process_bound(kind: type) -> bool:
    """Return whether *kind* is a class of objects that may belong to one process.

    A class that says itself how its objects are pickled knows better.
    """
    anything: Any = object
    return all(getattr(kind, name) is getattr(anything, name) for name in OWN_WAYS) and (
        issubclass(kind, Future)
        or any((one.__module__, one.__qualname__) in BOUND for one in kind.__mro__)
    )


def refuse_process_bound(obj: Any) -> Any:
    """Refuse *obj*; leave a future that has ended to the pickler.

    Raises:
        pickle.PicklingError: *obj* belongs to this process.
    """
    kind = type(obj).__qualname__
    if isinstance(obj, Future):
        if obj.done():
            return NotImplemented
        raise pickle.PicklingError(f"a copy of a pending {kind} would never get a result")
    raise pickle.PicklingError(f"a {kind} belongs to the process that made it")
