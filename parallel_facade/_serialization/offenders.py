"""Find which parts of an object cannot travel, where they are, and what to do.

    object ──parts──► parts ──parts──► …, nearest first, each part once

Guarantees:
    - The search ends, also on cyclic data, and raises only `KeyboardInterrupt`.
    - It uses the pickler that sends, and that pickler refuses every offender that it finds.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from parallel_facade._common.errors import described
from parallel_facade._serialization.object_parts import LEAF_TYPES, Label, parts_of
from parallel_facade._serialization.pickler import Reducer

MOST_PARTS: Final = 300_000
"""Limit of parts to examine. Higher: a search in huge data takes longer. Lower: it finds less."""
MOST_LEVELS: Final = 1_000
"""Limit of nesting levels to examine: data can create further parts without end."""
CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
MOST_OFFENDERS: Final = 20
"""Limit of parts to report; the others are mostly of the same kind."""


class Offender(NamedTuple):
    """A part that cannot travel.

    Attributes:
        path: Where it is, for example ``"func.__self__._lock"`` or ``"closure cell 'f' of g"``.
        type_name: The name of its type.
        reason: Why it cannot travel.
        remedy: What to do.
        trail: The names and types of the parts that lead to it.
    """

    path: str
    type_name: str
    reason: str
    remedy: str
    trail: tuple[tuple[str, str], ...]


class _Node(NamedTuple):
    obj: Any
    label: Label
    whole: _Node | None
    level: int

    def line(self) -> list[_Node]:
        """Return the nodes from the root to this node."""
        line: list[_Node] = []
        node: _Node | None = self
        while node is not None:
            line.append(node)
            node = node.whole
        return line[::-1]


def find_offenders(
    roots: Mapping[str, Any], dump: Callable[[Any], bytes], reducer: Reducer | None
) -> list[Offender]:
    """Return the parts of *roots* that cannot travel, nearest first.

    Args:
        roots: Objects by their names.
        dump: Pickles one object, or raises.
        reducer: Decides how objects travel; `None` for pickle alone.
    """
    nodes = [_Node(obj, Label(name), None, 0) for name, obj in roots.items()]
    refused = [
        (node, error) for node in nodes if (error := _refusal(node.obj, dump, reducer)) is not None
    ]
    returning = reducer is not None and reducer.returning
    found = [
        _offender(node, error, returning)
        for node, error in _search([node for node, _ in refused], dump, reducer)
    ]
    return found or [_offender(node, error, returning) for node, error in refused[:1]]


def _search(
    roots: list[_Node], dump: Callable[[Any], bytes], reducer: Reducer | None
) -> Iterator[tuple[_Node, BaseException]]:
    queue = deque(roots)
    # Keeps the objects too: otherwise the id of a part created by the search could be reused.
    seen = {id(node.obj): node.obj for node in roots}
    listed = 0
    while queue and listed < MOST_OFFENDERS:
        node = queue.popleft()
        parts, error = _parts(node.obj, reducer)
        if error is None and not parts and type(node.obj) not in CONTAINERS:
            error = _refusal(node.obj, dump, reducer)
        if error is not None:
            listed += 1
            yield node, error
        for label, part in parts if node.level < MOST_LEVELS else ():
            if type(part) not in LEAF_TYPES and id(part) not in seen and len(seen) < MOST_PARTS:
                seen[id(part)] = part
                queue.append(_Node(part, label, node, node.level + 1))


def _parts(
    obj: Any, reducer: Reducer | None
) -> tuple[list[tuple[Label, Any]], BaseException | None]:
    parts = []
    try:
        for part in parts_of(obj, reducer):
            parts.append(part)
    except BaseException as exc:
        _let_through(exc, reducer)
        return parts, exc
    return parts, None


def _refusal(
    obj: Any, dump: Callable[[Any], bytes], reducer: Reducer | None
) -> BaseException | None:
    try:
        dump(obj)
    except BaseException as exc:
        _let_through(exc, reducer)
        return exc
    return None


def _let_through(error: BaseException, reducer: Reducer | None) -> None:
    """Raise *error* if the user interrupted the program; in a worker, only objects can raise it."""
    if isinstance(error, KeyboardInterrupt) and not (reducer is not None and reducer.returning):
        raise error


def _offender(node: _Node, error: BaseException, returning: bool) -> Offender:
    line = node.line()
    return Offender(
        _path([one.label for one in line]),
        type(node.obj).__qualname__,
        described(error),
        _remedy(node.obj, error, returning),
        tuple((one.label.text, _type_name(one.obj)) for one in line),
    )


def _path(labels: list[Label]) -> str:
    path = ""
    for label in labels:
        if label.is_place:
            path = label.text
        else:
            path = f"({path})" if path.startswith(("closure", "global", "class")) else path
            path += label.text
    return path


def _type_name(obj: Any) -> str:
    kind = type(obj)
    # Not isinstance, which asks the object for its `__class__`; it may claim another class.
    if kind in {types.FunctionType, types.MethodType} or issubclass(kind, type):
        return f"{kind.__name__} {getattr(obj, '__qualname__', '')}".rstrip()
    return kind.__qualname__


LOCK: Final = (
    "release it before the call, or leave it out in __getstate__; each worker then has a lock of "
    "its own. For one lock that all workers share, use multiprocessing.Manager().Lock()"
)

REMEDIES: Final = {
    "generator": "make a list of it, or send the function that makes it and its arguments",
    "coroutine": "run it in the function: asyncio.run(...)",
    "async_generator": "collect it into a list first",
    "lock": LOCK,
    "RLock": LOCK,
    "TextIOWrapper": "send its path, and open it in the function",
    "BufferedReader": "send its path, and open it in the function",
    "BufferedWriter": "send its path, and open it in the function",
    "BufferedRandom": "send its path, and open it in the function",
    "FileIO": "send its path, and open it in the function",
    "ufunc": "send its Python function, and make the ufunc in the worker",
    "frame": "send the values that the task needs from it",
    "traceback": "send its text: traceback.format_tb(...)",
    "Match": "send what it matched: .group(), .span()",
}
"""Remedies for a part, by the name of its type."""

RESOURCE: Final = (
    "leave it out in __getstate__, create it in the worker with Pool(initializer=...), "
    "or use backend='thread'"
)
INHERITED: Final = "through inheritance"
"""Part of the message of `multiprocessing` and `multiprocess` for an object that a process can only
get when it is started."""
FROM_MANAGER: Final = (
    "use one from a manager, for example multiprocessing.Manager().Lock(), or backend='thread'"
)
RESULT: Final = "return the data in it, not the object"
DEEP: Final = "it is nested too deeply, or without end; send it in a flat form, such as a list"


def _remedy(obj: Any, error: BaseException, returning: bool) -> str:
    if isinstance(error, RecursionError):
        return DEEP
    if INHERITED in str(error):
        return FROM_MANAGER
    return REMEDIES.get(type(obj).__name__) or (RESULT if returning else RESOURCE)


def tree(offenders: list[Offender]) -> str:
    """Return *offenders* as a readable tree, followed by the remedies."""
    branches: dict[Any, Any] = {}
    for offender in offenders:
        level: dict[Any, Any] = branches
        for label, kind in offender.trail[:-1]:
            level = level.setdefault((label, kind), {})
        label, kind = offender.trail[-1]
        level[label, f"{kind} ✗ {_first_line(offender.reason)}"] = {}
    lines = list(_lines(branches, "", is_root=True))
    width = max(len(name) for name, _ in lines)
    drawn = [f"{name:<{width}}  {kind}".rstrip() for name, kind in lines]
    ways = dict.fromkeys(offender.remedy for offender in offenders)
    return "\n".join([*drawn, "", *(f"Way out: {way}." for way in ways)])


def _lines(level: dict[Any, Any], indent: str, *, is_root: bool) -> Iterator[tuple[str, str]]:
    for number, ((label, kind), below) in enumerate(level.items()):
        is_last = number == len(level) - 1
        fork = "" if is_root else ("└── " if is_last else "├── ")
        yield indent + fork + label, kind
        deeper = "" if is_root else ("    " if is_last else "│   ")
        yield from _lines(below, indent + deeper, is_root=False)


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
