"""Bars of tqdm: where there is one, and what is written while it stands there.

    terminal:   ...                      text ──► above_bars ──► the bars are taken away,
                what tasks have said                              the text is written,
                Fitting:  40%|████      |                         the bars are drawn again

Guarantees:
    - What is written in `above_bars` is on lines of its own, whoever made the bars.
    - No lock of tqdm's is held meanwhile: a handler of the user's may wait for one that holds it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any


def new_bar(description: str | None, total: int | None) -> Any:
    """Return a new bar, which is a widget in a notebook, and nothing where nobody looks."""
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


def is_on_terminal(progress: bool | str | Callable[..., object]) -> bool:
    """Return whether what the user asked for as *progress* is a bar on a terminal."""
    if callable(progress) or not progress:
        return False
    return _is_terminal(sys.stderr) and not _is_in_notebook()


def _is_terminal(stream: Any) -> bool:
    with suppress(ValueError):  # of a stream that is closed
        return hasattr(stream, "isatty") and bool(stream.isatty())
    return False


def _is_in_notebook() -> bool:
    """Return whether what this process writes is shown in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def above_bars() -> Iterator[bool]:
    """Return a block that writes whole lines; it is given whether there are bars below them."""
    bars = _bars_on_terminals()
    for bar in bars:
        bar.clear()
    try:
        yield bool(bars)
    finally:
        for bar in bars:
            bar.refresh()


def as_line(text: str, stream: Any) -> str:
    """Return *text*, with the end of its line if *stream* is where a bar would be drawn over it."""
    is_whole = text.endswith(("\n", "\r")) or not _is_terminal(stream)
    return text if is_whole else f"{text}\n"


def _bars_on_terminals() -> list[Any]:
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if not getattr(tqdm, "_instances", None):
        return []
    with tqdm.get_lock():  # who makes a bar just now would change what is looped over
        return [bar for bar in tqdm._instances if _is_drawn_on_terminal(bar)]


def _is_drawn_on_terminal(bar: Any) -> bool:
    is_drawn = hasattr(bar, "start_t") and not bar.disable and not bar.gui
    return is_drawn and _is_terminal(bar.fp)
