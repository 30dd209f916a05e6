"""The table of rules: for each kind of object the reduction by which it travels.

    Reducer ─► RULES: the first test that the type passes ─► handler ─► a rule of `rules`

To change how a kind of object travels, change its rule; to add a kind, add a line to a table here.
"""

from __future__ import annotations

import builtins
import contextlib
import enum
import functools
import itertools
import logging
import mmap
import pickle
import struct
import threading
import types
import weakref
from collections.abc import Callable
from contextvars import Context
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._serialization.dill_bridge import (
    is_carried_by_dill,
)
from parallel_facade._serialization.modules.apply_changes import ModuleChanges, apply_changes
from parallel_facade._serialization.modules.call_globals import space_module
from parallel_facade._serialization.modules.importable import (
    find_path,
    is_importable,
    is_importable_module,
    object_at,
)
from parallel_facade._serialization.modules.ownership import is_built_in, is_ours
from parallel_facade._serialization.modules.registrations import has_own_hash, reducer_of
from parallel_facade._serialization.modules.script_globals import fill_script
from parallel_facade._serialization.rules import classes as _classes
from parallel_facade._serialization.rules import functions as _functions
from parallel_facade._serialization.rules.builtin_values import (
    DESCRIPTOR_TYPES,
    LAZY_IMPORT,
    WEAK_COLLECTIONS,
    is_array_with_attributes,
    reduce_array,
    reduce_context_manager,
    reduce_count,
    reduce_descriptor,
    reduce_lazy_import,
    reduce_memoryview,
    reduce_proxy,
    reduce_view,
    reduce_weak_collection,
    reduce_weakproxy,
    reduce_weakref,
    refuse_finalizer,
)
from parallel_facade._serialization.rules.class_making import came_from_caller
from parallel_facade._serialization.rules.class_tokens import token_for
from parallel_facade._serialization.rules.ctypes_types import (
    is_library,
    is_made_by_ctypes,
    reduce_derived,
    reduce_library,
    reduce_metaclass,
)
from parallel_facade._serialization.rules.dynamic_attributes import (
    has_dynamic_attributes,
    reduce_dynamic,
)
from parallel_facade._serialization.rules.enums import reduce_member
from parallel_facade._serialization.rules.exceptions import (
    is_reduced_here,
    reduce_exception,
    reduce_with_links,
)
from parallel_facade._serialization.rules.files import FILES, reduce_file
from parallel_facade._serialization.rules.forward_refs import is_forward_ref, reduce_forward_ref
from parallel_facade._serialization.rules.loggers import reduce_logger
from parallel_facade._serialization.rules.mapped_memory import (
    is_numpy_array,
    is_torch_tensor,
    reduce_mapped_array,
    reduce_mapped_ctypes,
    reduce_mapped_tensor,
    reduce_mapping,
)
from parallel_facade._serialization.rules.methods import reduce_method
from parallel_facade._serialization.rules.process_bound import (
    is_process_bound,
    refuse_process_bound,
)
from parallel_facade._serialization.rules.process_objects import (
    is_of_process,
    reduce_of_process,
)
from parallel_facade._serialization.rules.singletons import (
    SINGLETON_TYPES,
    reduce_context,
    reduce_singleton,
)
from parallel_facade._serialization.rules.third_party import (
    is_mapped_attribute,
    is_mapper,
    is_mapper_path,
    is_proxy,
    is_symbol,
    reduce_mapper,
    reduce_parametrized,
    reduce_proxy_object,
    reduce_symbol,
)
from parallel_facade._serialization.rules.type_parameters import parts_of

if TYPE_CHECKING:
    from parallel_facade._serialization.pickler import Reducer


Handler = Callable[["Reducer", Any], Any]


def is_registered(kind: type) -> bool:
    """Return whether the user has registered a reducer for *kind* with `copyreg`."""
    registered = reducer_of(kind)
    # tblib, which Dask imports, registers all exception types, and drops fields.
    return registered is not None and getattr(registered, "__module__", "") != TBLIB


TBLIB: Final = "tblib.pickling_support"


def _has_its_own_way(kind: type) -> bool:
    """Return whether *kind* travels by value and defines how its instances are reduced."""
    anything: Any = object
    defines_reduction = (
        kind.__reduce_ex__ is not anything.__reduce_ex__
        or kind.__reduce__ is not anything.__reduce__
    )
    return defines_reduction and not goes_by_name(kind)


def _reduce_exception(_: Reducer, error: BaseException) -> Any:
    if is_reduced_here(type(error)):
        return reduce_exception(error)
    return reduce_with_links(error, error.__reduce_ex__(PROTOCOL))


def _reduce_instance(reducer: Reducer, obj: Any) -> Any:
    if isinstance(obj, enum.Enum) and (member := reduce_member(obj)) is not None:
        return member
    reduced = obj.__reduce_ex__(PROTOCOL)
    if type(reduced) is str:
        return reduce_singleton(obj, reduced, returning=reducer.returning)
    return reduced


_ours: dict[int, Any] = {}  # id → a function or class of this library, which is in every payload


def reduce_named(reducer: Reducer | None, obj: Any, found: tuple[str, str] | None) -> Any:
    """Return how to find *obj* by its name, with the module changes that it may read.

    Args:
        reducer: The payload's; `None` for the standard pickler, which sends no module changes.
        obj: A function, a class, or a function with a cache.
        found: The module and path that `find_path` returned; `None` to leave *obj* to pickle.
    """
    if found is None:
        return NotImplemented
    if is_ours(found[0]) and found[1] == obj.__qualname__:
        _ours[id(obj)] = obj
        return NotImplemented
    if reducer is not None and reducer.collector is not None:
        changes = reducer.collector.changes_of(obj)
        if any(changes):
            return object_at, found, (reducer.call_id, changes), None, None, apply_changes_beside
    # For a private method, pickle would look up its name, but the attribute's name differs.
    has_name = found == (obj.__module__, obj.__qualname__)
    return NotImplemented if has_name else (object_at, found)


def apply_changes_beside(_: object, state: tuple[str, ModuleChanges]) -> None:
    """Apply the module changes that travelled beside an object's name."""
    apply_changes(*state)


def _reduce_function(reducer: Reducer, function: types.FunctionType) -> Any:
    if id(function) in _ours:
        return NotImplemented
    if (found := find_path(function)) is not None:
        return reduce_named(reducer, function, found)
    reducer.function_cells.update(map(id, function.__closure__ or ()))
    if id(function) in reducer.skeletons:
        reducer.skeletons.discard(id(function))
        return _functions.reduce_skeleton(function, reducer.call_id)
    return _functions.reduce_function(function, reducer.call_id, reducer.collector)


def _reduce_class(reducer: Reducer, cls: type) -> Any:
    if id(cls) in _ours:
        return NotImplemented
    if is_built_in(cls):
        return _reduce_builtin_class(cls)
    if (found := find_path(cls)) is not None:
        return reduce_named(reducer, cls, found)
    if cls.__module__ == "_ctypes":
        return reduce_metaclass(cls)
    return _reduce_class_by_value(reducer, cls)


def _reduce_class_by_value(reducer: Reducer, cls: type) -> Any:
    if is_made_by_ctypes(cls) and (derived := reduce_derived(cls)) is not None:
        return derived
    if (parametrized := reduce_parametrized(cls)) is not None:
        return parametrized
    if reducer.returning and came_from_caller(cls):
        return _classes.reduce_to_token(cls)
    if id(cls) in reducer.skeletons:
        reducer.skeletons.discard(id(cls))
        return _classes.reduce_skeleton(cls)
    if token_for(cls) in reducer.defined:
        return _classes.reduce_to_token(cls)
    return _reduce_hierarchy(reducer, cls)


def _reduce_builtin_class(cls: type) -> Any:
    if getattr(builtins, cls.__name__, None) is cls:
        return NotImplemented
    # Many are found under another name: "mappingproxy" is types.MappingProxyType.
    name = _names_in_types().get(cls)
    return NotImplemented if name is None else (object_at, ("types", name))


@functools.cache
def _names_in_types() -> dict[type, str]:
    return {found: name for name, found in vars(types).items() if isinstance(found, type)}


def _reduce_hierarchy(reducer: Reducer, cls: type) -> Any:
    """Reduce *cls* with its bases and metaclass, because their methods may mention it."""
    metaclass: type = type(cls)
    makers = [*reversed(cls.__mro__[1:]), *reversed(metaclass.__mro__)]
    hierarchy = [
        one
        for one in _distinct(makers)
        if not goes_by_name(one) and token_for(one) not in reducer.defined
    ] + [cls]
    functions = [
        function
        for one in hierarchy
        for function in _classes.methods_of(one)
        if not is_importable(function)
    ]
    reducer.defined.update(map(token_for, hierarchy))
    reducer.defined_here.update(map(id, hierarchy))
    reducer.skeletons.update(map(id, [*hierarchy[:-1], *functions]))
    parameters = [part for one in hierarchy for part in parts_of(one)]
    reducer.names.bare.update(id(parameter) for parameter, _ in parameters)
    changes = ModuleChanges.none()
    if reducer.collector is not None:
        # After the class: objects that the program put in a base's module may refer to it.
        reducer.collector.note(filter(goes_by_name, makers), changes)
    return _classes.reduce_hierarchy(
        cls,
        hierarchy,
        functions,
        changes,
        parameters=parameters,
        call_id=reducer.call_id,
        collector=reducer.collector,
    )


def _distinct(classes: list[type]) -> list[type]:
    # By identity: a metaclass may define __eq__ and __hash__, which must not run here.
    return list({id(cls): cls for cls in classes}.values())


def goes_by_name(cls: type) -> bool:
    """Return whether a worker finds *cls* by its name."""
    return is_built_in(cls) or cls.__module__ == "_ctypes" or is_importable(cls)


def _reduce_cell(reducer: Reducer, cell: types.CellType) -> Any:
    # A function fills its own cells once it exists; until then they must not refer to it.
    if id(cell) in reducer.function_cells:
        return _functions.new_cell, ()
    try:
        contents = (cell.cell_contents,)
    except ValueError:
        return _functions.new_cell, ()
    return _functions.new_cell, (), contents, None, None, _functions.fill_cell


def _reduce_module(reducer: Reducer, module: types.ModuleType) -> Any:
    if is_importable_module(module):
        return import_module, (module.__name__,)
    space = vars(module)
    values = {name: value for name, value in space.items() if name not in MODULE_MACHINERY}
    key = _functions.key_of(space)
    made = space_module, (reducer.call_id, key, {"__name__": module.__name__})
    return *made, values, None, None, fill_space


MODULE_MACHINERY: Final = frozenset(
    {"__name__", "__builtins__", "__loader__", "__spec__", "__cached__"}
)


def fill_space(module: types.ModuleType, values: dict[str, Any]) -> None:
    """Fill in the globals of a module that travels by value."""
    fill_script(vars(module), values)


def _reduce_mapped_attribute(reducer: Reducer, attribute: Any) -> Any:
    # Its own way looks it up in its class, which may be on its way in the same payload.
    is_on_its_way = id(attribute.class_) in reducer.defined_here
    return reduce_dynamic(attribute) if is_on_its_way else _reduce_instance(reducer, attribute)


def _reduce_proxy(reducer: Reducer, proxy: Any) -> Any:
    if (found := find_path(proxy)) is None:
        return reduce_proxy_object(proxy)
    named = reduce_named(reducer, proxy, found)
    # The pickler finds only functions and classes by their own name.
    return (object_at, found) if named is NotImplemented else named


def _mapped_or(by_place: Callable[..., Any], otherwise: Handler) -> Handler:
    """Return the handler that sends an object by the place of its memory if that is shared."""

    def handler(reducer: Reducer, obj: Any) -> Any:
        mapped = by_place(obj, returning=reducer.returning)
        return otherwise(reducer, obj) if mapped is NotImplemented else mapped

    return handler


def _reduce_numpy_array(_: Reducer, array: Any) -> Any:
    return reduce_array(array) if is_array_with_attributes(type(array)) else NotImplemented


def _reduce_lru_cache(reducer: Reducer, wrapper: Any) -> Any:
    if (found := find_path(wrapper)) is not None:
        return reduce_named(reducer, wrapper, found)
    return _functions.reduce_lru_cache(wrapper)


def _reduce_lock(_: Reducer, lock: Any) -> Any:
    # dill's copy of a reentrant lock is locked without an owner: its first user waits forever.
    if not repr(lock).startswith("<unlocked"):
        raise pickle.PicklingError(f"a lock that is held cannot travel: {lock!r}")
    return (threading.RLock if type(lock) is RLOCK else threading.Lock), ()


RLOCK: Final = type(threading.RLock())

HANDLERS: Final[dict[type, Handler]] = {
    type: _reduce_class,
    types.FunctionType: _reduce_function,
    types.MethodType: lambda _, method: reduce_method(method),
    types.CellType: _reduce_cell,
    types.ModuleType: _reduce_module,
    types.MappingProxyType: lambda _, proxy: reduce_proxy(proxy),
    **dict.fromkeys(SINGLETON_TYPES, lambda reducer, obj: reducer.names.reduce(obj)),
    Context: lambda _, context: reduce_context(context),
    RLOCK: _reduce_lock,
    type(threading.Lock()): _reduce_lock,
    **dict.fromkeys(DESCRIPTOR_TYPES, lambda _, descriptor: reduce_descriptor(descriptor)),
    contextlib._GeneratorContextManager: lambda _, manager: reduce_context_manager(manager),
    functools._lru_cache_wrapper: _reduce_lru_cache,
    weakref.finalize: lambda reducer, _: refuse_finalizer(returning=reducer.returning),
    LAZY_IMPORT: lambda _, value: reduce_lazy_import(value),
    itertools.count: lambda _, counter: reduce_count(counter),
    struct.Struct: lambda _, form: (struct.Struct, (form.format,)),
    memoryview: lambda reducer, view: reduce_memoryview(view, returning=reducer.returning),
    mmap.mmap: lambda reducer, mapping: reduce_mapping(mapping, returning=reducer.returning),
    weakref.ReferenceType: lambda _, reference: reduce_weakref(reference),
    **dict.fromkeys(weakref.ProxyTypes, lambda _, proxy: reduce_weakproxy(proxy)),
    **dict.fromkeys(WEAK_COLLECTIONS, lambda _, weak: reduce_weak_collection(weak)),
    **dict.fromkeys(FILES, lambda reducer, file: reduce_file(file, returning=reducer.returning)),
    **dict.fromkeys(
        (type({}.keys()), type({}.values()), type({}.items())),
        lambda _, view: reduce_view(view),
    ),
}
HANDLER_BY_ID: Final = {id(kind): handler for kind, handler in HANDLERS.items()}
# By identity: a metaclass may define __eq__ and __hash__, which must not run here.

RULES: Final[tuple[tuple[Callable[[type], bool], Handler], ...]] = (
    (
        lambda kind: id(kind) in HANDLER_BY_ID,
        lambda reducer, obj: HANDLER_BY_ID[id(type(obj))](reducer, obj),
    ),
    (is_numpy_array, _mapped_or(reduce_mapped_array, _reduce_numpy_array)),
    (lambda kind: kind is types.CodeType, lambda reducer, code: reducer.reduce_code(code)),
    (lambda kind: issubclass(kind, type), _reduce_class),
    (lambda kind: issubclass(kind, DESCRIPTOR_TYPES), HANDLER_BY_ID[id(property)]),
    (is_carried_by_dill, lambda reducer, obj: reducer.reduce_by_dill(obj)),
    (lambda kind: issubclass(kind, BaseException), _reduce_exception),
    (lambda kind: issubclass(kind, logging.Logger), lambda _, logger: reduce_logger(logger)),
    (is_of_process, lambda reducer, obj: reduce_of_process(obj, returning=reducer.returning)),
    (is_process_bound, lambda _, obj: refuse_process_bound(obj)),
    (is_made_by_ctypes, _mapped_or(reduce_mapped_ctypes, _reduce_instance)),
    (is_torch_tensor, _mapped_or(reduce_mapped_tensor, _reduce_instance)),
    (is_library, lambda _, library: reduce_library(library)),
    (is_forward_ref, lambda reducer, obj: reduce_forward_ref(obj, reducer.call_id)),
    (is_proxy, _reduce_proxy),
    (is_mapper_path, lambda _, path: reduce_dynamic(path)),
    (is_mapper, lambda _, mapper: reduce_mapper(mapper)),
    (is_mapped_attribute, _reduce_mapped_attribute),
    (is_symbol, lambda _, symbol: reduce_symbol(symbol)),
    (has_dynamic_attributes, lambda _, obj: reduce_dynamic(obj)),
    (lambda kind: issubclass(kind, enum.Enum) or _has_its_own_way(kind), _reduce_instance),
    # The pickler would look up the type in the table of copyreg, which hashes it.
    (has_own_hash, lambda _, obj: obj.__reduce_ex__(PROTOCOL)),
)
"""Tests for types that need more than the pickler itself, and handlers; the first match applies."""


def rule_for(kind: type) -> Handler | None:
    """Return the handler for objects of type *kind*; `None` to leave them to the pickler."""
    if (known := _rules_by_id.get(id(kind))) is not None:
        return known[1]
    found = next((handler for belongs, handler in RULES if belongs(kind)), None)
    # The interpreter's own types, which are most, and ours live on and stay what they are.
    if not kind.__flags__ & HEAP_TYPE or is_ours(kind.__module__):
        _rules_by_id[id(kind)] = kind, found
    return found


HEAP_TYPE: Final = 1 << 9
"""Of the flags of a type: it was made at run time. See Py_TPFLAGS_HEAPTYPE of CPython."""

_rules_by_id: Final[dict[int, tuple[type, Handler | None]]] = {}
