"""Pickle objects by the rules of this library: how each kind of object travels.

    object ──► TravelPickler (C) ──► payload ──► pickle.loads ──► object
                  │ function, class, method, cell, module: our own reducers
                  └ types that only dill supports (code, super, …): dill, inside the payload

Guarantees:
    - A reducer that the user registered with `copyreg` takes precedence over ours.
    - `pickle` and `copyreg` are never changed.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import types
from collections.abc import Callable
from typing import Any, ClassVar

from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._serialization.call_parts import SentParts, part_of_call
from parallel_facade._serialization.dill_bridge import (
    dump_by_dill,
    dump_code,
    load_code,
    load_nested,
)
from parallel_facade._serialization.modules.collect_changes import ChangeCollector
from parallel_facade._serialization.modules.importable import (
    NEVER_IMPORTED,
    find_path,
)
from parallel_facade._serialization.reductions import (
    HANDLER_BY_ID,
    is_registered,
    reduce_named,
    rule_for,
)
from parallel_facade._serialization.rules.methods import reduce_method
from parallel_facade._serialization.rules.process_objects import (
    is_of_process,
    reduce_of_process,
)
from parallel_facade._serialization.rules.singletons import (
    Names,
)

_IN_PYTHON: Any = pickle._Pickler


class StandardPickler(pickle.Pickler):
    """The standard library's pickler with the bound-method recipe, without dill."""

    parts: SentParts | None = None
    """The objects of the callable, for its items."""

    returning: bool = False
    """Whether the payload goes back to the side that has sent the call."""

    def reducer_override(self, obj: Any) -> Any:
        """Reduce methods; refuse what the main script defines; leave the rest to pickle."""
        if self.parts is not None and (number := self.parts.number_of(obj)) is not None:
            return part_of_call, (number,)
        if type(obj) is types.MethodType and types.MethodType not in copyreg.dispatch_table:
            return reduce_method(obj)
        if isinstance(obj, types.FunctionType | type) and obj.__module__ in NEVER_IMPORTED:
            raise pickle.PicklingError(f"{obj!r} belongs to the main script, not to a module")
        if type(obj) is types.FunctionType:
            return reduce_named(None, obj, find_path(obj))
        if is_of_process(type(obj)):
            return reduce_of_process(obj, returning=self.returning)
        return NotImplemented


class Reducer:
    """Decides how each function, class and special object of one payload travels.

    Args:
        call_id: The id of the call.
        defined: Tokens of the classes that the receiver knows; the reducer adds new tokens.
        returning: Whether the payload goes back to the side that owns the received classes.
        parts: The objects of the callable, for its items; `None` for another payload.
    """

    def __init__(
        self,
        call_id: str,
        defined: set[str],
        *,
        returning: bool,
        parts: SentParts | None = None,
    ) -> None:
        self.parts = parts
        self.call_id: str = call_id
        self.defined = defined
        self.defined_here: set[int] = set()  # classes that this payload brings along
        self.returning: bool = returning
        # A returned payload has no module changes: the modules are the receiver's own.
        self.collector = None if returning else ChangeCollector(self.dump)
        self.names: Names = Names()
        self.function_cells: set[int] = set()
        self.skeletons: set[int] = set()  # functions and classes; their contents are sent elsewhere
        self._ordinary: set[int] = set()  # ids of types that the pickler handles itself

    def reduce(self, obj: Any) -> Any:
        """Return the reduction of *obj*, or `NotImplemented` to leave it to the pickler."""
        if self.parts is not None and (number := self.parts.number_of(obj)) is not None:
            return part_of_call, (number,)
        kind = type(obj)
        if id(kind) in self._ordinary:
            return NotImplemented
        if not is_registered(kind) and (handler := rule_for(kind)) is not None:
            return handler(self, obj)
        self._ordinary.add(id(kind))
        return NotImplemented

    def dump(self, obj: Any) -> bytes:
        """Return *obj* as a separate payload, which is sent inside this one."""
        nested = Reducer(self.call_id, set(self.defined), returning=self.returning)
        nested.collector = self.collector
        buffer = io.BytesIO()
        TravelPickler(buffer, nested).dump(obj)
        return buffer.getvalue()

    def reduce_by_dill(self, obj: Any) -> tuple[Any, ...]:
        """Return how to rebuild *obj* from bytes that dill writes."""
        return load_nested, (dump_by_dill(obj, self._reduce_part),)

    def reduce_code(self, code: types.CodeType) -> tuple[Any, ...]:
        """Return how to rebuild *code*."""
        return load_code, (dump_code(code, self._reduce_part),)

    def _reduce_part(self, obj: Any) -> Any:
        """Reduce *obj*, a part of an object that dill pickles, if it needs our rules."""
        kind = type(obj)
        return (
            self.reduce(obj)
            if id(kind) in HANDLER_BY_ID or issubclass(kind, type)
            else NotImplemented
        )


TakesBuffer = Callable[[pickle.PickleBuffer], Any] | None
"""Returns whether a large buffer stays in the payload; `None` if all buffers do."""


class TravelPickler(pickle.Pickler):
    """The C pickler, which asks a `Reducer` about everything that is not plain data."""

    def __init__(self, buffer: io.BytesIO, reducer: Reducer, take: TakesBuffer = None) -> None:
        super().__init__(buffer, PROTOCOL, buffer_callback=take)
        self._reduce = reducer.reduce

    def reducer_override(self, obj: Any) -> Any:
        """Reduce *obj* by the rules of this library."""
        return self._reduce(obj)


class DeepPickler(pickle._Pickler):
    """The pickler in Python, which can recurse as deeply as Python allows.

    Assumes:
        - No call between one level of the data and the next uses ``*args``: this would use the C
          stack, and its depth cannot be set from Python 3.12 on.
    """

    # Without the entries that dill adds to pickle's table when it is imported.
    dispatch: ClassVar[dict[type, Any]] = {
        kind: method
        for kind, method in _IN_PYTHON.dispatch.items()
        if method.__module__ == "pickle"
    }

    def __init__(self, buffer: io.BytesIO, reducer: Reducer, take: TakesBuffer = None) -> None:
        super().__init__(buffer, PROTOCOL, buffer_callback=take)
        self._this: Any = self  # its base is not typed
        self._reduce = reducer.reduce

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:  # noqa: ARG002
        """Write *obj* by the rules of this library."""
        this = self._this
        this.framer.commit_frame()
        if (known := this.memo.get(id(obj))) is not None:
            this.write(this.get(known[0]))
            return
        kind = type(obj)
        reduced = self._reduce(obj)
        if reduced is NotImplemented:
            if kind is types.FunctionType or issubclass(kind, type):
                this.save_global(obj)
                return
            if (method := self.dispatch.get(kind)) is not None:
                method(self, obj)
                return
            registered = copyreg.dispatch_table.get(kind)
            reduced = obj.__reduce_ex__(PROTOCOL) if registered is None else registered(obj)
        if type(reduced) is str:
            this.save_global(obj, reduced)
            return
        make, args, state, elements, entries, fill = [*reduced, None, None, None, None][:6]
        this.save_reduce(make, args, state, elements, entries, fill, obj=obj)
