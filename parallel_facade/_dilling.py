"""What dill carries and pickle does not: code objects and the rarer built-in types.

Guarantees:
    - dill is asked for single objects, never to walk data; what leads back to functions and
      classes is handed to the rules of this library.
    - `dill.settings` is not touched: options are passed with each call.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any, Final

from parallel_facade._plain import PROTOCOL

Reduce = Callable[[Any], Any]
"""Returns an object's reduction, or `NotImplemented` to leave it to the pickler."""


def is_carried_by_dill(kind: type) -> bool:
    """Return whether dill has a way of its own to carry objects of *kind*."""
    # By identity: a metaclass may define __eq__ and __hash__, which must not run here.
    return id(kind) in _ids_of(len(_dispatch()))


def dump_by_dill(obj: Any, reduce: Reduce) -> bytes:
    """Return *obj* written by dill, with the functions and classes in it by *reduce*."""
    buffer = io.BytesIO()
    pickler = _code_pickler()(buffer, PROTOCOL, recurse=True, byref=False, fmode=0)
    pickler._reduce = reduce
    pickler.dump(obj)
    return buffer.getvalue()


def load_nested(payload: bytes) -> Any:
    """Return what dill wrote into a payload."""
    return pickle.loads(payload)


def _dispatch() -> dict[type, Any]:
    import dill

    table: dict[type, Any] = dill.Pickler.dispatch
    return table


@functools.lru_cache(maxsize=1)
def _ids_of(_: int) -> frozenset[int]:
    """Return the ids of the types that dill alone carries, for a table of the given length."""
    # The length, since types are registered with dill at any time, by users too.
    return frozenset(map(id, _dispatch().keys() - CARRIED_BY_PICKLE))


# Not asked of pickle itself: when dill is imported, it adds its types to the table of pickle's
# Python version.
CARRIED_BY_PICKLE: Final[frozenset[type]] = frozenset(
    {
        type(None),
        type(NotImplemented),
        type(...),
        bool,
        int,
        float,
        bytes,
        bytearray,
        str,
        tuple,
        list,
        dict,
        set,
        frozenset,
        range,
        slice,
        pickle.PickleBuffer,
        type(str.join),
        type(str.__init__),
        type(dict.fromkeys),
        type(list[int]),
    }
)
"""Types in dill's table that pickle does as well, and faster."""


@functools.cache
def _code_pickler() -> Any:
    import dill

    class CodePickler(dill.Pickler):  # type: ignore[misc]  # dill has no types
        """dill's pickler, leaving functions and classes to the rules of this library."""

        _reduce: Reduce

        def reducer_override(self, obj: Any) -> Any:
            return self._reduce(obj)

    return CodePickler
