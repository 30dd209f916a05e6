"""Names in annotations that were undefined when they were evaluated (`ForwardRef`).

Guarantees:
    - Of the globals that a reference keeps, only those that its text names travel.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

from parallel_facade._serialization.modules.code_names import WORD
from parallel_facade._serialization.modules.script_globals import fill_script
from parallel_facade._serialization.rules.functions import address_of, home


def is_forward_ref(kind: type) -> bool:
    """Return whether objects of *kind* are references that keep globals (Python 3.14 and later)."""
    annotationlib: Any = sys.modules.get("annotationlib")
    return annotationlib is not None and kind is annotationlib.ForwardRef


class State(NamedTuple):
    """The contents of a reference.

    Attributes:
        call_id: The call's id.
        address: The address of its globals, from `address_of`; `None` if it keeps none.
        values: The globals that its text names.
        attributes: What it knows about the place where it was written.
    """

    call_id: str
    address: tuple[str, dict[str, Any]] | None
    values: dict[str, Any]
    attributes: dict[str, Any]


ATTRIBUTES: Final = ("__owner__", "__cell__", "__extra_names__")


def reduce_forward_ref(reference: Any, call_id: str) -> tuple[Any, ...]:
    """Return how to rebuild *reference* in the call *call_id*."""
    text, space = reference.__forward_arg__, reference.__globals__
    words = set(WORD.findall(text))
    made = (text, reference.__forward_module__, reference.__forward_is_class__)
    attributes = {name: getattr(reference, name) for name in ATTRIBUTES}
    if isinstance(cells := attributes["__cell__"], dict):
        attributes["__cell__"] = {name: cells[name] for name in sorted(words & cells.keys())}
    if space is None:
        state = State(call_id, None, {}, attributes)
    else:
        values = {name: space[name] for name in sorted(words & space.keys())}
        address = address_of(space)
        state = State(call_id, address, {} if address[0] == "" else values, attributes)
    return new_forward_ref, made, tuple(state), None, None, fill_forward_ref


def new_forward_ref(text: str, module: str | None, is_class: bool) -> Any:
    """Return a reference with *text*, for `fill_forward_ref`."""
    annotationlib = import_module("annotationlib")  # new in Python 3.14
    return annotationlib.ForwardRef(text, module=module, is_class=is_class)


def fill_forward_ref(reference: Any, state: tuple[Any, ...]) -> None:
    """Give *reference* its globals and what it knows about the place where it was written."""
    contents = State(*state)
    if contents.address is not None:
        reference.__globals__ = vars(home(contents.call_id, *contents.address))
        fill_script(reference.__globals__, contents.values)
    for name, value in contents.attributes.items():
        setattr(reference, name, value)
