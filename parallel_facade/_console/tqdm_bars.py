"""The bars of tqdm: finds them, and lets text be written above them.

    terminal:   ...                      text ──► above_bars ──► the bars are removed,
                output of tasks                                   the text is written,
                Fitting:  40%|████      |                         the bars are drawn again

Guarantees:
    - Text written in `above_bars` is on lines of its own, no matter who made the bars.
    - No tqdm lock is held meanwhile: a handler of the user may wait for a thread that holds it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any


def new_bar(description: str | None, total: int | None) -> Any:
    """Return a new bar: a widget in a notebook, invisible outside of a terminal."""
    how: dict[str, Any] = {"total": total, "desc": description, "unit": "item"}
    if not _is_in_notebook():
        from tqdm import tqdm

        # disable=None shows the bar on a terminal only, so that logs and pipes stay clean.
        return tqdm(**how, disable=None)
    if find_spec("ipywidgets") is None:
        from tqdm import tqdm

        return tqdm(**how)
    from tqdm.notebook import tqdm as widget

    return widget(**how)


def can_show_bars() -> bool:
    """Return whether there is anything to draw a bar on; a program may have no stderr."""
    return _is_in_notebook() or not getattr(sys.stderr, "closed", sys.stderr is None)


def is_on_terminal(progress: bool | str | Callable[..., object]) -> bool:
    """Return whether the *progress* that the user asked for is a bar on a terminal."""
    if callable(progress) or not progress:
        return False
    return _is_terminal(sys.stderr) and not _is_in_notebook()


def _is_terminal(stream: Any) -> bool:
    with suppress(ValueError):  # the stream is closed
        return hasattr(stream, "isatty") and bool(stream.isatty())
    return False


def _is_in_notebook() -> bool:
    """Return whether the output of this process is shown in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def above_bars() -> Iterator[bool]:
    """Return a block for writing whole lines above the bars; it yields whether there are any."""
    bars = _bars_on_terminals()
    for bar in bars:
        bar.clear()
    try:
        yield bool(bars)
    finally:
        for bar in bars:
            bar.refresh()


def as_line(text: str, stream: Any) -> str:
    """Return *text*, ended by a newline if a bar would be drawn over it on *stream*."""
    is_whole = text.endswith(("\n", "\r")) or not _is_terminal(stream)
    return text if is_whole else f"{text}\n"


def _bars_on_terminals() -> list[Any]:
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if not getattr(tqdm, "_instances", None):
        return []
    with tqdm.get_lock():  # a thread that makes a bar now would change the set
        return [bar for bar in tqdm._instances if _is_drawn_on_terminal(bar)]


def _is_drawn_on_terminal(bar: Any) -> bool:
    is_drawn = hasattr(bar, "start_t") and not bar.disable and not bar.gui
    return is_drawn and _is_terminal(bar.fp)
