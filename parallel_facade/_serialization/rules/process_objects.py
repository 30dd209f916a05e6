"""Objects of which each process has its own, such as `os.environ` and the generator of `random`.

They travel by name to a worker, and a task uses those of its worker. Copies would be wrong: one of
the generator gives each worker the same numbers, one of the environment is nobody's environment.
"""

from __future__ import annotations

import pickle
import sys
import threading
import types
from typing import Any, Final

from parallel_facade._serialization.modules.importable import object_at

OWN: Final = {
    ("random", "Random"): (("random", "_inst"),),
    ("random", "SystemRandom"): (("secrets", "_sysrand"),),
    ("numpy.random.mtrand", "RandomState"): (("numpy.random.mtrand", "_rand"),),
    ("os", "_Environ"): (("os", "environ"), ("os", "environb")),
}
"""By module and name of a type: where a process has its own objects of that type."""

SCANNER: Final = ("_json", "Scanner")
"""What a decoder of `json` has compiled its settings to."""


def is_of_process(kind: type) -> bool:
    """Return whether each process has its own object of type *kind*, or makes one from nothing."""
    name = _name_of(kind)
    return name in OWN or name == SCANNER or kind is threading.local or _is_fact(kind)


def _name_of(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _is_fact(kind: type) -> bool:
    """Return whether *kind* is that of a fact about the interpreter, like `sys.version_info`."""
    return kind.__module__ == "sys" and issubclass(kind, tuple)


def place_of(obj: Any) -> tuple[str, str] | None:
    """Return the module and name under which each process has its own *obj*, if it is one."""
    kind = type(obj)
    if _is_fact(kind):  # Python may make a new one when something changes
        name = kind.__name__
        return ("sys", name) if type(getattr(sys, name, None)) is kind else None
    for module, name in OWN.get(_name_of(kind), ()):
        if getattr(sys.modules.get(module), name, None) is obj:
            return module, name
    return None


def reduce_of_process(obj: Any, *, returning: bool) -> Any:
    """Return how to find or make *obj*; `NotImplemented` if a copy is right.

    Args:
        obj: An object for which `is_of_process` is true.
        returning: Whether it is part of a result.

    Raises:
        pickle.PicklingError: It is a worker's environment, which is not the caller's.
    """
    place = place_of(obj)
    if place is None:
        return _remade(obj)
    if returning and _is_fact(type(obj)):
        return own_fact_or_values, (place[1], tuple(obj))
    if returning and place[0] == "os":
        raise pickle.PicklingError(
            f"os.{place[1]} belongs to the worker; return a copy: dict(os.{place[1]})"
        )
    return object_at, place


def own_fact_or_values(name: str, values: tuple[Any, ...]) -> Any:
    """Return what `sys` has as *name* if it has these *values*, and else the values alone."""
    own = getattr(sys, name, None)
    return own if own is not None and tuple(own) == values else values


def _remade(obj: Any) -> Any:
    """Return how to make an object like *obj* from nothing, if that is what a worker needs."""
    kind = type(obj)
    if kind is threading.local:
        return threading.local, ()  # a thread that has not used it finds it empty
    if _name_of(kind) == ("random", "SystemRandom"):
        return kind, ()
    if _name_of(kind) == SCANNER:
        settings = {name: getattr(obj, name) for name in dir(kind) if not name.startswith("_")}
        return new_scanner, (settings,)
    return NotImplemented


def new_scanner(settings: dict[str, Any]) -> Any:
    """Return a scanner with the *settings* of another one."""
    from json import scanner

    make: Any = scanner.make_scanner
    return make(types.SimpleNamespace(**settings))
