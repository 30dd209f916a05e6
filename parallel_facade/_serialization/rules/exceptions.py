"""Exceptions by their contents, not by their `__init__`.

Pickle calls the class with `args`. That is wrong if `__init__` takes other arguments than it passes
on: too few arguments raise an error, and a message is formatted twice. Pickle also drops causes.
Here an exception is made without `__init__`, then receives all its contents.

Guarantees:
    - `__cause__`, `__context__`, notes and the members of groups travel; tracebacks do not.
    - A class that defines its own pickling keeps it.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from parallel_facade._common.errors import message_of
from parallel_facade._serialization.modules.ownership import is_built_in

DESCRIPTORS: Final = (types.MemberDescriptorType, types.GetSetDescriptorType)
ELSEWHERE: Final = frozenset(
    {"args", "__dict__", "__weakref__", "__traceback__", "__cause__", "__context__", "obj"}
    | {"__suppress_context__", "__class__", "exceptions", "message"}
)
"""Fields that travel in another way; `AttributeError.obj` may be anything and is left behind."""
LINKS: Final = ("__cause__", "__context__", "__suppress_context__")
OWN_WAYS: Final = ("__reduce_ex__", "__reduce__", "__getstate__", "__setstate__", "__getnewargs__")


def is_reduced_here(cls: type) -> bool:
    """Return whether exceptions of *cls* do not define their own pickling."""
    holders = (
        next((one for one in cls.__mro__ if way in one.__dict__), object) for way in OWN_WAYS
    )
    return all(is_built_in(holder) for holder in holders)


def reduce_exception(error: BaseException) -> tuple[Any, ...]:
    """Return how to rebuild *error*."""
    state = (contents_of(error), links_of(error))
    made: tuple[Any, ...] = (type(error), args_of(error))
    if isinstance(error, BaseExceptionGroup):
        group = vars(BaseExceptionGroup)
        made += group["message"].__get__(error), list(group["exceptions"].__get__(error))
        return new_group, made, state, None, None, fill_exception
    return new_exception, made, state, None, None, fill_exception


def reduce_with_links(error: BaseException, reduced: Any) -> Any:
    """Return *reduced*, which the class of *error* returned, with causes added."""
    links = links_of(error)
    if not any(links) or not isinstance(reduced, tuple) or len(reduced) not in {2, 3}:
        return reduced
    return (*reduced[:2], (reduced[2:], links), None, None, fill_from_state)


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return the arguments of *error*, bypassing overrides in its class."""
    args: tuple[Any, ...] = BaseException.args.__get__(error)  # type: ignore[attr-defined]
    return args


def contents_of(error: BaseException) -> dict[str, Any]:
    """Return the attributes and fields of *error*."""
    contents: dict[str, Any] = {}
    for one in type(error).__mro__:
        for name, descriptor in vars(one).items():
            if isinstance(descriptor, DESCRIPTORS) and name not in ELSEWHERE:
                with suppress(AttributeError):  # an empty slot
                    value = descriptor.__get__(error)
                    # A built-in field set to None is shown: "[Errno None]". If unset, it is not.
                    if value is not None or not is_built_in(one):
                        contents.setdefault(name, value)
    return {**contents, **_dict_of(error)}


def links_of(error: BaseException) -> tuple[Any, ...]:
    """Return the cause and the context of *error*, and whether the context is hidden."""
    return tuple(vars(BaseException)[name].__get__(error) for name in LINKS)


def new_exception(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return an exception of *cls*, made without running the user's code."""
    builtin: Any = next(one for one in cls.__mro__ if is_built_in(one))
    error: BaseException = builtin.__new__(cls)
    BaseException.args.__set__(error, args)  # type: ignore[attr-defined]
    return error


def new_group(
    cls: type[BaseException], args: tuple[Any, ...], message: str, members: Any
) -> BaseException:
    """Return an exception group of *cls*, made without running the user's code."""
    error = BaseExceptionGroup.__new__(cls, message, members)  # type: ignore[type-var]
    BaseException.args.__set__(error, args)  # type: ignore[attr-defined]
    return error


def fill_exception(error: BaseException, state: tuple[dict[str, Any], tuple[Any, ...]]) -> None:
    """Give *error* its contents and causes."""
    contents, links = state
    own = _dict_of(error)
    for name, value in contents.items():
        descriptor = _descriptor(type(error), name)
        if descriptor is None:
            own[name] = value
        else:
            with suppress(AttributeError, TypeError):  # set by __new__, and read-only
                descriptor.__set__(error, value)
    link(error, links)


def fill_from_state(error: BaseException, state: tuple[tuple[Any, ...], tuple[Any, ...]]) -> None:
    """Give *error* the state that its class defines, as pickle would, and its causes."""
    states, links = state
    for contents in states:
        if hasattr(error, "__setstate__"):
            error.__setstate__(contents)
        elif contents:
            _dict_of(error).update(contents)
    link(error, links)


def link(error: BaseException, links: tuple[Any, ...]) -> None:
    """Give *error* its cause and context."""
    # Bypass the __setattr__ of an exception that is a frozen dataclass.
    for name, value in zip(LINKS, links, strict=True):
        BaseException.__setattr__(error, name, value)


def _dict_of(error: BaseException) -> dict[str, Any]:
    own: dict[str, Any] = BaseException.__dict__["__dict__"].__get__(error)
    return own


def _descriptor(cls: type, name: str) -> Any:
    for one in cls.__mro__:
        if isinstance(found := one.__dict__.get(name), DESCRIPTORS):
            return found
    return None


class _Portable:
    """An exception without its parts that cannot travel."""

    def __init__(self, reduction: tuple[Any, ...]) -> None:
        self._reduction = reduction

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduction


def portable(error: BaseException, can_travel: Callable[[Any], bool]) -> Any:
    """Return an object that travels as *error*, without the parts that cannot travel.

    Args:
        error: Any exception.
        can_travel: Returns whether a part can travel.
    """
    return _portable(error, can_travel, set())


def _portable(error: BaseException, can_travel: Callable[[Any], bool], seen: set[int]) -> Any:
    seen.add(id(error))

    def part(value: Any) -> Any:
        if isinstance(value, BaseException) and id(value) not in seen:
            return value if can_travel(value) else _portable(value, can_travel, seen)
        return value if can_travel(value) else f"<{type(value).__qualname__}, left behind>"

    def link_of(value: Any) -> Any:
        return None if id(value) in seen else part(value)

    contents = contents_of(error)
    left = [name for name, value in contents.items() if not can_travel(value)]
    kept = {name: value for name, value in contents.items() if name not in left}
    if left:
        kept["__notes__"] = [*kept.get("__notes__", ()), f"left behind in the worker: {left}"]
    *links, hides = links_of(error)
    state = kept, (*map(link_of, links), hides)
    made, args, *_ = reduce_exception(error)
    if made is new_group:
        cls, own, message, members = args
        args = cls, tuple(own[:1]), message, list(map(part, members))
    else:
        args = args[0], tuple(map(part, args[1]))
    return _Portable((made, args, state, None, None, fill_exception))


def is_like(rebuilt: Any, error: BaseException) -> bool:
    """Return whether *rebuilt* has the class and the message of *error*."""
    return type(rebuilt) is type(error) and message_of(rebuilt) == message_of(error)


def add_cause(error: BaseException, cause: BaseException) -> None:
    """Add *cause* as the first cause of *error*, at the end of its chain of causes."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, type(cause)):
            return
        before, context, hides = links_of(error)
        if before is None and (hides or context is None):
            # Bypass the __setattr__ of an exception that is a frozen dataclass.
            BaseException.__setattr__(error, "__cause__", cause)
            return
        error = before if before is not None else context
