"""Type variables, new types and type aliases, which are themselves and nothing else.

    class C[T: Bound = Default], type A[T] = Value ──► made by such a statement there, too:
        T, A exist at once ──► bound, default and value are looked at when somebody asks

Guarantees:
    - What is written in a bound, a default or an alias may lead back to its class or to itself.
    - From Python 3.14 on it is not evaluated by being sent.
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
    known_as,
    known_or,
    receive,
    token_for,
)

TypeAliasType: Any = getattr(typing, "TypeAliasType", None)
HAS_SYNTAX: Final = TypeAliasType is not None
"""``class C[T]`` and ``type A``, which Python 3.12 brought."""

STARS: Final[dict[Any, str]] = {TypeVar: "", TypeVarTuple: "*", ParamSpec: "**"}
PARTS: Final = ("bound", "constraints", "default", "value")
"""What is evaluated late; an attribute ``__bound__``, and ``evaluate_bound`` from 3.14 on."""

_parts: dict[str, dict[str, Callable[[], Any]]] = {}  # token → part → returns its value


class Shape(NamedTuple):
    """What a type parameter is, apart from what is evaluated late.

    Attributes:
        token: Its token.
        kind: Its type.
        name: Its name.
        module: Where it was made.
        constraints: How many it has.
        has_bound: Whether it has one.
        has_default: Whether it has one.
        options: Of its variance, if it was not made by a statement.
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
    # Made by a call, which takes all at once.
    options: dict[str, Any] = dict(shape.options)
    if shape.has_bound:
        options["bound"] = obj.__bound__
    if shape.has_default:
        options["default"] = obj.__default__
    return _made_by_call(obj, getattr(obj, "__constraints__", ()), options)


def places_of_parameters() -> dict[int, tuple[str, str, int]]:
    """Return where the user's modules have type parameters: module, path and position, by id.

    They do not say so themselves: a parameter made by a statement calls itself one of `typing`.
    """
    return {
        id(parameter): (name, path, position)
        for name, module in list(sys.modules.items())
        if is_of_user(name) and is_importable_name(name)
        for path, owner in _owners_in(vars(module), name)
        for position, parameter in enumerate(owner.__type_params__)
    }


def _owners_in(space: Mapping[str, Any], module: str, outer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the functions, aliases and classes of *module* in *space*, and those in classes."""
    for name, value in list(space.items()):
        owner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not isinstance(owner, type | FunctionType | TypeAliasType) or owner.__module__ != module:
            continue
        path = f"{outer}{name}"
        if not isinstance(owner, TypeAliasType) and owner.__qualname__ != path:
            continue  # another name of it, perhaps of a class around this one
        yield path, owner
        if isinstance(owner, type):
            yield from _owners_in(vars(owner), module, f"{path}.")


def parameter_at(module: str, path: str, position: int) -> Any:
    """Return a type parameter of what stands at the dotted *path* of *module*."""
    owner = functools.reduce(getattr, path.split("."), import_module(module))
    return getattr(owner, "__func__", owner).__type_params__[position]


def parts_of(cls: type) -> list[tuple[Any, tuple[str, dict[str, tuple[bool, Any]]]]]:
    """Return the type parameters of *cls* that a statement has made, with what fills each."""
    return [
        (one, (token_for(one), _late(one)))
        for one in getattr(cls, "__type_params__", ())
        if _shape_of(one).options is None
    ]


def reduce_new_type(obj: Any) -> tuple[Any, ...]:
    """Return how to rebuild *obj*, which `typing.NewType` has made."""
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
    # A tuple of them does not say; what is made like this is the same.
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
    except Exception:  # the user's code has run, and has raised
        return True


def _late(obj: Any) -> dict[str, tuple[bool, Any]]:
    """Return the parts of *obj* that are evaluated late: whether it is a function, and that."""
    found = {}
    for part in PARTS:
        evaluate = getattr(obj, f"evaluate_{part}", None)
        if isinstance(evaluate, FunctionType):
            found[part] = True, evaluate
        else:
            with suppress(Exception):  # not there, or as Python 3.13 cannot tell without running it
                found[part] = False, getattr(obj, f"__{part}__")
    return found


def new_parameter(fields: tuple[Any, ...]) -> Any:
    """Return the type parameter of that `Shape`, made if it is new here."""
    shape = Shape(*fields)
    if (known := known_as(shape.token)) is None:
        (known,) = _made_by_statement("def made[{}](): pass", "made", shape.module, [shape])
    return known


def new_alias(token: str, name: str, module: str, shapes: list[tuple[Any, ...]]) -> Any:
    """Return the alias known as *token*, made together with its parameters if it is new here."""

    def make() -> Any:
        parameters = [Shape(*fields) for fields in shapes]
        statement = f"type {name}[{{}}] = part_of({token!r}, 'value')()"
        if not parameters:
            statement = statement.replace("[{}]", "{}")
        space = _run_statement(statement, module, parameters)
        for made, shape in zip(space[name].__type_params__, parameters, strict=True):
            receive(made, shape.token)
        return space[name]

    return known_or(token, make)


def _made_by_statement(
    statement: str, name: str, module: str, shapes: list[Shape]
) -> tuple[Any, ...]:
    made: tuple[Any, ...] = _run_statement(statement, module, shapes)[name].__type_params__
    for one, shape in zip(made, shapes, strict=True):
        receive(one, shape.token)
    return made


def _run_statement(statement: str, module: str, shapes: Iterable[Shape]) -> dict[str, Any]:
    # The module of what a statement makes is that of the code around it.
    space: dict[str, Any] = {"__name__": module, "part_of": part_of}
    exec(statement.format(", ".join(map(_written, shapes))), space)
    return space


def _written(shape: Shape) -> str:
    """Return a type parameter as it is written in brackets."""
    text = STARS[shape.kind] + shape.name
    if shape.constraints:
        each = (f"part_of({shape.token!r}, 'constraints')()[{n}]" for n in range(shape.constraints))
        text += f": ({', '.join(each)},)"
    elif shape.has_bound:
        text += f": part_of({shape.token!r}, 'bound')()"
    return text + (f" = part_of({shape.token!r}, 'default')()" if shape.has_default else "")


def part_of(token: str, part: str) -> Callable[[], Any]:
    """Return what returns a *part* of the object known as *token*."""
    return _parts[token][part]


def fill_parts(_: Any, state: tuple[str, dict[str, tuple[bool, Any]]]) -> None:
    """Have an object its parts, as they are in this call."""
    token, late = state
    _parts[token] = {part: _returns(*found) for part, found in late.items()}


def fill_all_parts(_: Any, states: list[tuple[str, dict[str, tuple[bool, Any]]]]) -> None:
    """Do so for an alias and its parameters."""
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
    """Return the type variable, new type or alias known as *token*, made if it is new here."""

    def make() -> Any:
        made = kind(name, *args, **options)
        if kind is not TypeAliasType:
            made.__module__ = module
        return made

    return known_or(token, make)
