"""Bound methods by object, defining class and name: a correct form of the `copyreg` recipe.

The usual recipe sends ``(method.__name__, method.__self__)`` and calls `getattr` on the other side.
For a method reached by `super()`, that returns the wrong function, the subclass's override. For a
``__private`` method, it finds nothing, because the attribute's name is mangled. Here the class that
holds the function is looked up in the method resolution order, and also travels.
"""

from __future__ import annotations

import types
from typing import Any

from parallel_facade._serialization.modules.code_names import mangle


def reduce_method(method: types.MethodType) -> tuple[Any, ...]:
    """Return how to rebuild *method* from its object, the class that defines it, and its name."""
    found = find_definition(method)
    if found is None or _was_given(method.__func__, found[0]):
        return types.MethodType, (method.__func__, method.__self__)
    return bind_method, (method.__self__, *found)


def _was_given(function: Any, owner: type) -> bool:
    """Return whether the script put *function* into *owner*, a class of another module."""
    return getattr(function, "__module__", "") == "__main__" != owner.__module__


def bind_method(self: Any, owner: type, name: str) -> Any:
    """Return the method that *owner* defines as *name*, bound to *self*."""
    # The plain function, without the descriptors of subclasses, because super() reached it so.
    return types.MethodType(_function_in(owner, name), self)


def find_definition(method: types.MethodType) -> tuple[type, str] | None:
    """Return the class whose body holds *method*'s function, and the attribute's name there."""
    self, function = method.__self__, method.__func__
    cls = self if isinstance(self, type) else type(self)
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        return None
    for owner in type.mro(cls) if cls is type else cls.__mro__:
        for attribute in (name, mangle(name, owner)):
            if _function_in(owner, attribute) is function:
                return owner, attribute
    return None


def _function_in(owner: type, attribute: str) -> Any:
    """Return the function that *owner* itself stores, unwrapped from a class or static method."""
    # From __dict__, because getattr could run a property or a metaclass's __getattr__.
    stored = owner.__dict__.get(attribute)
    return stored.__func__ if isinstance(stored, classmethod | staticmethod) else stored
