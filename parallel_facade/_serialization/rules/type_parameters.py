"""Type variables, new types and type aliases, which are compared by identity.

    class C[T: Bound = Default], type A[T] = Value ──► also made by such a statement there:
        T, A exist at once ──► bound, default and value are evaluated when they are used

Guarantees:
    - The expression of a bound, a default or an alias may refer back to its class or to itself.
    - From Python 3.14 on, sending does not evaluate it.
"""

from __future__ import annotations

import functools
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from types import FunctionType
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar, TypeVarTuple

from parallel_facade._serialization.modules.code_names import VALUE
from parallel_facade._serialization.modules.importable import is_importable_name
from parallel_facade._serialization.modules.ownership import is_of_user
from parallel_facade._serialization.rules.singleton_tokens import (
    object_for,
    object_or_new,
    receive,
    token_for,
)

TypeAliasType: Any = getattr(typing, "TypeAliasType", None)
HAS_SYNTAX: Final = TypeAliasType is not None
"""Whether Python has ``class C[T]`` and ``type A``, which need 3.12."""

STARS: Final[dict[Any, str]] = {TypeVar: "", TypeVarTuple: "*", ParamSpec: "**"}
PARTS: Final = ("bound", "constraints", "default", "value")
"""Parts that are evaluated late: attribute ``__bound__``, and ``evaluate_bound`` from 3.14 on."""

_parts: dict[str, dict[str, Callable[[], Any]]] = {}  # token → part → function that returns it


class Shape(NamedTuple):
    """A type parameter without the parts that are evaluated late.

    Attributes:
        token: Its token.
        kind: Its type.
        name: Its name.
        module: The module that made it.
        constraints: The number of its constraints.
        has_bound: Whether it has a bound.
        has_default: Whether it has a default.
        options: The options of its variance; `None` if it was made by a statement.
    """

    token: str
    kind: Any
    name: str
    module: str
    constraints: int
    has_bound: bool
    has_default: bool
    options: dict[str, bool] | None


def reduce_parameter(obj: Any) -> tuple[Any, ...]:
    """Return how to rebuild *obj*, a type variable of any kind."""
    shape = _shape_of(obj)
    if shape.options is None:
        return new_parameter, (tuple(shape),), (shape.token, _late(obj)), None, None, fill_parts
    # Made by a call, which takes all parts at once.
    options: dict[str, Any] = dict(shape.options)
    if shape.has_bound:
        options["bound"] = obj.__bound__
    if shape.has_default:
        options["default"] = obj.__default__
    return _made_by_call(obj, getattr(obj, "__constraints__", ()), options)


def places_of_parameters() -> dict[int, tuple[str, str, int]]:
    """Return where the user's modules hold type parameters: module, path and position, by id.

    The parameters do not know it: one made by a statement has `typing` as its module.
    """
    return {
        id(parameter): (name, path, position)
        for name, module in list(sys.modules.items())
        if is_of_user(name) and is_importable_name(name)
        for path, owner in _owners_in(vars(module), name)
        for position, parameter in enumerate(owner.__type_params__)
    }


def _owners_in(space: Mapping[str, Any], module: str, outer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the functions, aliases and classes of *module* in *space*, and those inside classes."""
    for name, value in list(space.items()):
        owner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not isinstance(owner, type | FunctionType | TypeAliasType) or owner.__module__ != module:
            continue
        path = f"{outer}{name}"
        if not isinstance(owner, TypeAliasType) and owner.__qualname__ != path:
            continue  # another name for it, perhaps for an enclosing class
        yield path, owner
        if isinstance(owner, type):
            yield from _owners_in(vars(owner), module, f"{path}.")


def parameter_at(module: str, path: str, position: int) -> Any:
    """Return a type parameter of the object at the dotted *path* of *module*."""
    owner = functools.reduce(getattr, path.split("."), import_module(module))
    return getattr(owner, "__func__", owner).__type_params__[position]


def parts_of(cls: type) -> list[tuple[Any, tuple[str, dict[str, tuple[bool, Any]]]]]:
    """Return the type parameters of *cls* made by a statement, each with the state to fill it."""
    return [
        (one, (token_for(one), _late(one)))
        for one in getattr(cls, "__type_params__", ())
        if _shape_of(one).options is None
    ]


def reduce_new_type(obj: Any) -> tuple[Any, ...]:
    """Return how to rebuild *obj*, made by `typing.NewType`."""
    return _made_by_call(obj, (obj.__supertype__,), {})


def reduce_alias(obj: Any) -> tuple[Any, ...]:
    """Return how to rebuild *obj*, a type alias."""
    shapes = [_shape_of(parameter) for parameter in obj.__type_params__]
    if not obj.__name__.isidentifier() or any(shape.options is not None for shape in shapes):
        return _made_by_call(obj, (obj.__value__,), {"type_params": obj.__type_params__})
    token = token_for(obj)
    made = (token, obj.__name__, _module_of(obj), [tuple(shape) for shape in shapes])
    late = [(token, _late(obj))]
    late += [(token_for(parameter), _late(parameter)) for parameter in obj.__type_params__]
    return new_alias, made, late, None, None, fill_all_parts


def _shape_of(obj: Any) -> Shape:
    kind = type(obj)
    options = None
    # A TypeVarTuple does not say how it was made; made by a statement, it is the same.
    if kind is not TypeVarTuple and not getattr(obj, "__infer_variance__", False):
        options = {"covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
    if not HAS_SYNTAX:
        options = options or {}
    return Shape(
        token_for(obj),
        kind,
        obj.__name__,
        _module_of(obj),
        _number_of_constraints(obj),
        _has_bound(obj),
        bool(getattr(obj, "has_default", bool)()),
        options,
    )


def _number_of_constraints(obj: Any) -> int:
    if getattr(obj, "evaluate_constraints", 0) is None:
        return 0
    return len(getattr(obj, "__constraints__", ()))


def _has_bound(obj: Any) -> bool:
    if hasattr(obj, "evaluate_bound"):
        return obj.evaluate_bound is not None
    try:
        return getattr(obj, "__bound__", None) is not None
    except Exception:  # the user's code ran and raised
        return True


def _late(obj: Any) -> dict[str, tuple[bool, Any]]:
    """Return the late parts of *obj*: for each, whether it is a function, and the part itself."""
    found = {}
    for part in PARTS:
        evaluate = getattr(obj, f"evaluate_{part}", None)
        if isinstance(evaluate, FunctionType):
            found[part] = True, evaluate
        else:
            with suppress(Exception):  # it has none, or its code ran in Python 3.13 and raised
                found[part] = False, getattr(obj, f"__{part}__")
    return found


def new_parameter(fields: tuple[Any, ...]) -> Any:
    """Return the type parameter with the `Shape` of *fields*; make it if it is new here."""
    shape = Shape(*fields)
    if (known := object_for(shape.token)) is None:
        (known,) = _made_by_statement("def made[{}](): pass", "made", shape.module, [shape])
    return known


def new_alias(token: str, name: str, module: str, shapes: list[tuple[Any, ...]]) -> Any:
    """Return the alias known as *token*; if it is new here, make it with its parameters."""

    def make() -> Any:
        parameters = [Shape(*fields) for fields in shapes]
        statement = f"type {name}[{{}}] = part_of({token!r}, 'value')()"
        if not parameters:
            statement = statement.replace("[{}]", "{}")
        space = _run_statement(statement, module, parameters)
        for made, shape in zip(space[name].__type_params__, parameters, strict=True):
            receive(made, shape.token)
        return space[name]

    return object_or_new(token, make)


def _made_by_statement(
    statement: str, name: str, module: str, shapes: list[Shape]
) -> tuple[Any, ...]:
    made: tuple[Any, ...] = _run_statement(statement, module, shapes)[name].__type_params__
    for one, shape in zip(made, shapes, strict=True):
        receive(one, shape.token)
    return made


def _run_statement(statement: str, module: str, shapes: Iterable[Shape]) -> dict[str, Any]:
    # An object made by a statement gets the module of the surrounding code.
    space: dict[str, Any] = {"__name__": module, "part_of": part_of}
    exec(statement.format(", ".join(map(_written, shapes))), space)
    return space


def _written(shape: Shape) -> str:
    """Return the source of a type parameter as it is written in brackets."""
    text = STARS[shape.kind] + shape.name
    if shape.constraints:
        each = (f"part_of({shape.token!r}, 'constraints')()[{n}]" for n in range(shape.constraints))
        text += f": ({', '.join(each)},)"
    elif shape.has_bound:
        text += f": part_of({shape.token!r}, 'bound')()"
    return text + (f" = part_of({shape.token!r}, 'default')()" if shape.has_default else "")


def part_of(token: str, part: str) -> Callable[[], Any]:
    """Return the function that returns a *part* of the object known as *token*."""
    return _parts[token][part]


def fill_parts(_: Any, state: tuple[str, dict[str, tuple[bool, Any]]]) -> None:
    """Give an object its late parts, as they are in this call."""
    token, late = state
    _parts[token] = {part: _returns(*found) for part, found in late.items()}


def fill_all_parts(_: Any, states: list[tuple[str, dict[str, tuple[bool, Any]]]]) -> None:
    """Give an alias and its parameters their late parts."""
    for state in states:
        fill_parts(_, state)


def _returns(is_function: bool, found: Any) -> Callable[[], Any]:
    return (lambda: found(VALUE)) if is_function else (lambda: found)


def _module_of(obj: Any) -> str:
    return str(getattr(obj, "__module__", "__main__"))


def _made_by_call(obj: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    made = (token_for(obj), type(obj), obj.__name__, _module_of(obj), args, options)
    return typing_object, made


def typing_object(  # noqa: PLR0917 - pickle passes arguments by position
    token: str, kind: Any, name: str, module: str, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Return the type variable, new type or alias known as *token*; make it if it is new here."""

    def make() -> Any:
        made = kind(name, *args, **options)
        if kind is not TypeAliasType:
            made.__module__ = module
        return made

    return object_or_new(token, make)
