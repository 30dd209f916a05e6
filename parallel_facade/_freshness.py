"""What the caller changed in a module of its own since workers imported it.

    caller: helpers.RATE = 3; pmap(helpers.f, …) ──("helpers", RATE = 3), by name: f──► worker

A function that goes by name runs with the globals of the worker's own import. So the plain values
that it reads, itself or through functions of the user's modules, travel beside its name. In the
worker one is set if it differs from what the last call brought or, at first, from what is there.
What tasks and initializers set there stays as long as the caller's value stays as it was.

Guarantees:
    - Modules of Python and of installed packages are left alone.
    - A list, dictionary or set is brought up to date in place: who imported it sees it too.
    - The side that made the call never has its modules changed by what comes back.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from importlib import import_module
from typing import Any, Final, NamedTuple

from parallel_facade._code import global_names, words_in
from parallel_facade._importable import (
    NEVER_IMPORTED,
    is_importable,
    is_importable_name,
    is_of_user,
    was_replaced,
)
from parallel_facade._namespaces import pinned_in
from parallel_facade._scopes import is_made_here

ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
MOST_ELEMENTS: Final = 10_000
"""Elements of a container that is followed; larger ones cost too much to send with each call."""


Place = tuple[str, str]


class News(NamedTuple):
    """What a payload has to say about the user's modules.

    Attributes:
        plain: (module, dotted path of a holder in it or nothing) → name → value, pickled.
        objects: The same for values that are not plain.
        entries: (module, name of a container) → what the script put in it, such as its plug-ins.
        gone: (module, path) → names that it had in an earlier call.
    """

    plain: dict[Place, dict[str, bytes]]
    objects: dict[Place, dict[str, Any]]
    entries: dict[tuple[str, str], Any]
    gone: dict[Place, list[str]]

    @classmethod
    def none(cls) -> News:
        """Return a record to be filled."""
        return cls({}, {}, {}, {})


_brought: dict[tuple[str, str, str], bytes] = {}  # what the last call brought for each name
_settled: dict[str, set[tuple[str, str, str]]] = {}  # scope → places and names that it brought
_had: dict[Place, set[str]] = {}  # place → names that a call has read there, at the caller's
_MISSING: Final = object()


def is_plain(value: Any, budget: int = MOST_ELEMENTS) -> bool:
    """Return whether *value* is made of numbers, strings and builtin containers of them alone."""
    stack, left = [value], budget
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind in ATOMS:
            continue
        if kind is dict:
            stack += [*one.keys(), *one.values()] if len(one) <= left else [_MISSING]
        elif kind in {list, tuple, set, frozenset}:
            stack += one if len(one) <= left else [_MISSING]
        else:
            return False
        # A container that holds itself uses the budget up.
        left -= len(one) + 1
        if left < 0:
            return False
    return True


class Follower:
    """Collects what one payload has to say about the user's modules."""

    def __init__(self) -> None:
        self._visited: set[int] = set()

    def news_of(self, obj: types.FunctionType | type) -> News:
        """Return what *obj*, which goes by name, reads in the user's modules."""
        news = News.none()
        self._follow([obj], news)
        return news

    def note_globals(self, function: types.FunctionType, reads: dict[str, Any], news: News) -> None:
        """Put *reads*, the globals that *function* uses, in *news*.

        Args:
            function: Lives in a module that workers import, and travels by value.
            reads: What it uses there.
            news: Gets them, and what the functions read that it calls.
        """
        module = function.__globals__["__name__"]
        if is_of_user(module):
            rest = dict(_unplain(news, (module, ""), reads))
            natives = {name: value for name, value in rest.items() if _is_native(value)}
            objects = {name: value for name, value in rest.items() if name not in natives}
            news.objects.setdefault((module, ""), {}).update(objects)
            _note_gone(news, (module, ""), function.__globals__, global_names(function.__code__))
            self._follow(list(natives.values()), news)

    def note_modules(self, within_reach: list[Any], code: types.CodeType, news: News) -> None:
        """Put in *news* what *code* may read as attributes of modules *within_reach*."""
        for module in within_reach:
            if type(module) is types.ModuleType:
                self._follow(list(_follow_module(module, code, news)), news)

    def _follow(self, stack: list[Any], news: News) -> None:
        while stack:
            one = stack.pop()
            if id(one) in self._visited:
                continue
            self._visited.add(id(one))
            if isinstance(one, functools._lru_cache_wrapper):
                one = one.__wrapped__
            if isinstance(one, types.FunctionType):
                stack += _follow_function(one, news)
            elif isinstance(one, type):
                stack += _follow_class(one, news)


def _is_native(value: Any) -> bool:
    """Return whether a module has *value* by being imported, if the value was not replaced."""
    return isinstance(value, types.FunctionType | type | types.ModuleType)


def _follow_function(function: types.FunctionType, news: News) -> Iterator[Any]:
    """Put the plain values that *function* reads in *news*; yield what to follow from there."""
    name, code = str(function.__module__), function.__code__
    space = function.__globals__
    if not is_of_user(name) or vars(sys.modules[name]) is not space:
        return
    reads = {word: space[word] for word in global_names(code) if word in space}
    _note_gone(news, (name, ""), space, global_names(code))
    for _, value in _unplain(news, (name, ""), reads):
        yield value
        if type(value) is types.ModuleType:
            yield from _follow_module(value, code, news)
    if is_importable(function):
        place = name, function.__qualname__
        defaults = {part: getattr(function, part) for part in ("__defaults__", "__kwdefaults__")}
        if place in _had or any(defaults.values()):
            _had.setdefault(place, set())
            yield from dict(_unplain(news, place, defaults)).values()


def _follow_module(module: types.ModuleType, code: types.CodeType, news: News) -> Iterator[Any]:
    name = str(getattr(module, "__name__", ""))
    if is_of_user(name) and is_importable_name(name):
        space = vars(module)
        reads = {word: space[word] for word in words_in(code) if word in space}
        for _, value in _unplain(news, (name, ""), reads):
            yield value


def _follow_class(cls: type, news: News) -> Iterator[Any]:
    for one in cls.__mro__:
        if is_of_user(one.__module__) and is_importable(one):
            attributes = {
                name: value for name, value in vars(one).items() if name not in CLASS_MACHINERY
            }
            place = one.__module__, one.__qualname__
            _note_gone(news, place, attributes, _had.get(place, set()) | attributes.keys())
            for _, value in _unplain(news, place, attributes):
                yield getattr(value, "__func__", value)


def _unplain(
    news: News, place: tuple[str, str], reads: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Put those of *reads* in *news* that are plain or were replaced; yield the others."""
    module, path = place
    for name, value in reads.items():
        if is_plain(value):
            blob = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            news.plain.setdefault(place, {})[name] = blob
        elif (not path and was_replaced(sys.modules[module], name)) or _is_of_script(value):
            news.objects.setdefault(place, {})[name] = value
        else:
            if not path and (entries := _entries_of_script(value)):
                news.entries[module, name] = entries
            yield name, value


def _note_gone(news: News, place: Place, space: Mapping[str, Any], names: AbstractSet[str]) -> None:
    """Put those of *names* in *news* that *space* had in an earlier call, and has no more."""
    had = _had.setdefault(place, set())
    if gone := [name for name in names & had if name not in space]:
        news.gone.setdefault(place, []).extend(gone)
    had.update(name for name in names if name in space)


def _is_of_script(value: Any) -> bool:
    """Return whether importing a module cannot have brought *value*, code of the script."""
    code = getattr(value, "__func__", value)
    return (
        isinstance(code, types.FunctionType | type)
        and getattr(code, "__module__", None) in NEVER_IMPORTED
    )


def _entries_of_script(value: Any) -> Any:
    """Return what the script put into the container *value* of a module: functions, classes."""
    if type(value) is dict and len(value) <= MOST_ELEMENTS:
        return {key: one for key, one in list(value.items()) if _is_of_script(one)}
    if type(value) in {list, set} and len(value) <= MOST_ELEMENTS:
        # Functions are copies, and would be more with each call.
        return [one for one in list(value) if isinstance(one, type) and _is_of_script(one)]
    return None


CLASS_MACHINERY: Final = frozenset(
    {"__module__", "__qualname__", "__doc__", "__slots__", "__match_args__", "__firstlineno__"}
    | {"__static_attributes__", "__annotations__", "__dataclass_fields__", "__parameters__"}
)
"""Attributes of classes that the source alone decides."""


def bring(scope: str, news: News) -> None:
    """Make the modules of this worker hold what the caller's do."""
    if is_made_here(scope):
        return
    for (module_name, path), attributes in news.plain.items():
        _bring_plain(module_name, path, attributes)
    for (module_name, path), objects in news.objects.items():
        _bring_objects(scope, module_name, path, objects)
    for (module_name, name), entries in news.entries.items():
        _add_entries(getattr(import_module(module_name), name, None), entries)
    for (module_name, path), names in news.gone.items():
        _take_away(module_name, path, names)


def _bring_plain(module_name: str, path: str, attributes: dict[str, bytes]) -> None:
    if (holder := _holder(module_name, path)) is None:
        return
    pinned = {} if path else pinned_in(module_name)
    has_changed = False
    for name, blob in attributes.items():
        key = module_name, path, name
        if name not in pinned and _brought.get(key) != blob:
            _brought[key] = blob
            has_changed |= _put(holder, name, pickle.loads(blob))
    if has_changed:
        _forget_results(import_module(module_name))


def _holder(module_name: str, path: str) -> Any:
    holder: Any = import_module(module_name)
    for name in path.split(".") if path else ():
        holder = getattr(holder, name, None)
    return holder


def _forget_results(module: types.ModuleType) -> None:
    """Clear the caches of functions of *module*, which may have read what was changed."""
    for value in list(vars(module).values()):
        if isinstance(value, functools._lru_cache_wrapper):
            value.cache_clear()


def _bring_objects(scope: str, module_name: str, path: str, objects: dict[str, Any]) -> None:
    """Set *objects* the first time in each call; what its functions change meanwhile stays."""
    if (holder := _holder(module_name, path)) is None:
        return
    settled = _settled.setdefault(scope, set())
    pinned = {} if path else pinned_in(module_name)
    for name in objects.keys() - pinned.keys():
        if (module_name, path, name) not in settled:
            settled.add((module_name, path, name))
            _put(holder, name, objects[name])


def _take_away(module_name: str, path: str, names: list[str]) -> None:
    holder = _holder(module_name, path)
    for name in names:
        _brought.pop((module_name, path, name), None)
        if holder is not None and name in vars(holder):
            delattr(holder, name)


def _add_entries(container: Any, entries: Any) -> None:
    if type(container) in {dict, set}:
        container.update(entries)
    elif type(container) is list:
        container += [one for one in entries if not any(one is known for known in container)]


def forget(scope: str) -> None:
    """Forget which values a call that has ended had brought."""
    _settled.pop(scope, None)


def _put(holder: Any, name: str, value: Any) -> bool:
    """Set *name* of *holder*, containers in place; return whether it was another before."""
    is_function = isinstance(holder, types.FunctionType)
    current = getattr(holder, name) if is_function else vars(holder).get(name, _MISSING)
    if _is_same(value, current):
        return False
    if type(value) is type(current) and isinstance(value, dict | set):
        current.clear()
        current.update(value)
    elif type(value) is type(current) is list:
        current[:] = value
    elif isinstance(holder, type):
        type.__setattr__(holder, name, value)
    else:
        setattr(holder, name, value)
    return True


def _is_same(value: Any, current: Any) -> bool:
    if value is current:
        return True
    if type(value) is not type(current):
        return False
    if type(value) in ATOMS:
        return bool(value == current)
    if type(value) is dict:
        return value.keys() == current.keys() and all(
            _is_same(value[key], current[key]) for key in value
        )
    if type(value) in {list, tuple}:
        return len(value) == len(current) and all(map(_is_same, value, current))
    if type(value) in {set, frozenset}:
        return is_plain(value) and is_plain(current) and bool(value == current)
    return False
