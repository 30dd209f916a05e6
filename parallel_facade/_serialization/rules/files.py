"""Open files: a file that can be opened again at the same place travels; others are refused.

A copy that writes would empty the file, or overwrite what another process wrote. A copy that reads
text would have to guess the treatment of line ends, which a file object does not reveal. A file
without a path (a pipe, a temporary file) is a number that means something else in another process.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from contextlib import suppress
from typing import Any, Final

FILES: Final = (
    io.TextIOWrapper,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.FileIO,
)
STANDARD_STREAMS: Final = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def reduce_file(file: Any, *, returning: bool) -> tuple[Any, ...]:
    """Return how to open *file* again.

    Args:
        file: An open file, or one of the standard streams.
        returning: Whether it is part of a result; a worker's file is not the caller's.

    Raises:
        pickle.PicklingError: *file* cannot be opened again as it is.
    """
    for name in STANDARD_STREAMS:
        if getattr(sys, name, None) is file:
            return standard_stream, (name,)
    if returning:
        raise pickle.PicklingError("an open file cannot be returned")
    if file.closed or not isinstance(file.name, str | bytes):
        raise pickle.PicklingError("a file that is closed, or has no path, cannot travel")
    mode = _raw(file).mode
    if mode == "ab":
        options = _text_options(file) if _is_text(file) else _buffering(file)
        return open_again, (_path_of(file), "a" if _is_text(file) else "ab", options, None)
    if mode == "rb" and not _is_text(file):
        return open_again, (_path_of(file), "rb", _buffering(file), file.tell())
    purpose = "reading text" if mode == "rb" else "writing"
    raise pickle.PicklingError(f"a file that is open for {purpose} cannot travel: {file.name!r}")


def _path_of(file: Any) -> str | bytes:
    """Return a path that leads to *file* now; its name may be from before a change of folder.

    Raises:
        pickle.PicklingError: There is none, or it is not known.
    """
    opened = os.fstat(file.fileno())
    name: str | bytes = file.name
    with suppress(OSError):
        if os.path.samestat(os.stat(name), opened):
            return name
    with suppress(OSError):
        path = os.readlink(f"/proc/self/fd/{file.fileno()}")
        if os.path.samestat(os.stat(path), opened):
            return path
    raise pickle.PicklingError(f"the file that was opened as {file.name!r} is not there any more")


def _text_options(file: Any) -> dict[str, Any]:
    return {
        "encoding": file.encoding,
        "errors": file.errors,
        "line_buffering": file.line_buffering,
        "write_through": file.write_through,
    }


def _buffering(file: Any) -> dict[str, Any]:
    return {"buffering": 0} if isinstance(file, io.FileIO) else {}


def open_again(name: str | bytes, mode: str, options: dict[str, Any], position: int | None) -> Any:
    """Return the file *name*, opened as it was; its user closes it, like the original."""
    if mode == "a":
        encoding, errors = options.pop("encoding"), options.pop("errors")
        text = open(name, "a", encoding=encoding, errors=errors)  # noqa: SIM115
        text.reconfigure(**options)
        return text
    file = open(name, mode, **options)  # noqa: SIM115
    if position:
        file.seek(position)
    return file


def standard_stream(name: str) -> Any:
    """Return the stream that `sys` has as *name*."""
    return getattr(sys, name)


def _raw(file: Any) -> Any:
    buffered = file.buffer if _is_text(file) else file
    return getattr(buffered, "raw", buffered)


def _is_text(file: Any) -> bool:
    return isinstance(file, io.TextIOWrapper)
