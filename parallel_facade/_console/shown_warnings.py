"""Shows the warnings of tasks as often as if all tasks had run in the caller.

Guarantees:
    - The filters that apply here decide, as `warnings` would: "once", "default", "module", "error".
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

MOST_SHOWN: Final = 10_000
"""Warnings that are remembered; a task may put its item into the text of each."""

_PARTS_OF_KEY: Final = {"default": 4, "module": 3, "once": 2}
"""Actions of `warnings` that show a warning once, and how many parts of its key they compare: text,
category, module, line."""


class ShownWarnings:
    """The warnings that were shown here.

    The registry of `warnings` does not serve: setting a filter clears it, and dill does that for
    each function that it takes apart.
    """

    def __init__(self) -> None:
        self._shown: set[Any] = set()
        # The list of filters at that time. A ``with catch_warnings()`` block has another list.
        self._filters: Sequence[Any] | None = None

    def show(self, text: str, names: tuple[str, str], file: str, line: int, module: str) -> None:
        """Show a warning of the category with the module and name *names*, if it is to be shown."""
        if self._filters is not (filters := filters_now()):
            self._filters = filters
            self._shown.clear()
        if file == getattr(sys.modules.get("__main__"), "__file__", None):
            module = "__main__"
        category = category_called(*names)
        if category is None:
            category, text = UserWarning, f"{names[1]}: {text}"
        action = _action_for(text, category, line, module)
        key = (text, category, module, line)[: _PARTS_OF_KEY.get(action, 4)]
        if action == "ignore" or (key in self._shown and action in _PARTS_OF_KEY):
            return
        if len(self._shown) >= MOST_SHOWN:
            self._shown.clear()
        self._shown.add(key)
        warnings.showwarning(text, category, file, line)


def filters_now() -> Sequence[Any]:
    """Return the filters of `warnings` that apply here."""
    # With `sys.flags.context_aware_warnings`, `catch_warnings` keeps its filters in the context.
    of_context: Callable[[], Sequence[Any]] | None = getattr(warnings, "_get_filters", None)
    return warnings.filters if of_context is None else of_context()


def category_called(module: str, name: str) -> type[Warning] | None:
    """Return the warning class, if its module is loaded in this process."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else None


def _action_for(text: str, category: type[Warning], line: int, module: str) -> str:
    for action, message, categories, of_module, at_line in filters_now():
        if (
            (message is None or message.match(text))  # type: ignore[attr-defined, unused-ignore]
            and issubclass(category, categories)
            and (
                of_module is None or of_module.match(module)  # type: ignore[attr-defined, unused-ignore]
            )
            and at_line in {0, line}
        ):
            return str(action)
    return "default"
