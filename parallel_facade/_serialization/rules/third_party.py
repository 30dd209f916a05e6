"""Objects of other libraries whose own way to be pickled fails in another process.

A proxy of wrapt answers for the function that it wraps: it has the function's name and module. So
the function of a module goes by that name, a method by its instance, and the function of a script
with its wrapper. A pydantic model with parameters, like ``Box[int]``, is made again from its
origin, as the other side makes it. Symbols of SQLAlchemy have numbers that differ from process to
process, and its mappers refer to classes that are still being rebuilt.
"""

from __future__ import annotations

from typing import Any, Final

from parallel_facade._serialization.rules.dynamic_attributes import reduce_dynamic

PROXY: Final = "ObjectProxy"


def is_proxy(kind: type) -> bool:
    """Return whether *kind* is a class of wrapt's proxies."""
    return any(one.__name__ == PROXY and "__wrapped__" in vars(one) for one in kind.__mro__)


def reduce_proxy_object(proxy: Any) -> Any:
    """Return how to rebuild *proxy*, which cannot be found by its name."""
    kind = type(proxy).__name__
    if kind == "FunctionWrapper":
        return type(proxy), (proxy.__wrapped__, proxy._self_wrapper, proxy._self_enabled)
    if kind == "BoundFunctionWrapper":
        owner = proxy._self_instance
        if owner is None:  # a class method
            owner = proxy.__wrapped__.__self__
        return getattr, (owner, proxy.__wrapped__.__name__)
    return NotImplemented


def is_mapper_path(kind: type) -> bool:
    """Return whether *kind* is a class of SQLAlchemy's paths from mapper to mapper."""
    return kind.__module__ == "sqlalchemy.orm.path_registry"


def is_mapper(kind: type) -> bool:
    """Return whether *kind* is SQLAlchemy's class of mappers."""
    return (kind.__module__, kind.__qualname__) == ("sqlalchemy.orm.mapper", "Mapper")


def reduce_mapper(mapper: Any) -> tuple[Any, ...]:
    """Return how to rebuild *mapper*, without what it has computed and computes again."""
    make, args, (own, slots), *rest = reduce_dynamic(mapper)
    computed = own.get("_memoized_keys", frozenset())
    kept = {name: value for name, value in own.items() if name not in computed}
    return make, args, (kept | {"_memoized_keys": frozenset()}, slots), *rest


def is_mapped_attribute(kind: type) -> bool:
    """Return whether *kind* is SQLAlchemy's class of attributes of mapped classes."""
    return kind.__module__ == "sqlalchemy.orm.attributes" and kind.__qualname__.endswith(
        "Attribute"
    )


def is_symbol(kind: type) -> bool:
    """Return whether *kind* is SQLAlchemy's class of symbols."""
    return (kind.__module__, kind.__qualname__) == ("sqlalchemy.util.langhelpers", "symbol")


def reduce_symbol(symbol: Any) -> tuple[Any, ...]:
    """Return how to find the symbol of the same name."""
    return type(symbol), (symbol.name,)


def reduce_parametrized(cls: Any) -> tuple[Any, ...] | None:
    """Return how to make *cls* again from its origin; `None` if it is no class with parameters."""
    origin, parameters = _origin_of(cls)
    if origin is None or not parameters or origin is cls:
        return None
    parameters = parameters[0] if len(parameters) == 1 else parameters
    try:
        made = origin[parameters]
    except Exception:
        return None
    return (class_item, (origin, parameters)) if made is cls else None


def _origin_of(cls: Any) -> tuple[Any, tuple[Any, ...]]:
    found = vars(cls).get("__pydantic_generic_metadata__")
    if isinstance(found, dict):
        return found.get("origin"), tuple(found.get("args", ()))
    return vars(cls).get("__origin__"), tuple(vars(cls).get("__args__", ()))


def class_item(origin: Any, parameters: Any) -> Any:
    """Return ``origin[parameters]``."""
    return origin[parameters]
