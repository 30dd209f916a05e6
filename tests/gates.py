"""Gates: tasks wait at them, in any thread or process, and the test sees them arrive."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 30
"""Seconds after which a gate that was never reached, or never opened, fails the test."""


class Gate:
    """A place at which tasks wait; it travels to workers as its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener: socket.socket | None = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._listener.settimeout(PATIENCE)
        self._waiting: list[socket.socket] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_listener": None, "_waiting": []}

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *exc_info: object) -> None:
        for waiting in self._waiting:
            waiting.close()
        assert self._listener is not None
        self._listener.close()

    def pass_through(self, value: Any = None) -> Any:
        """Wait, in a task, until the test opens the gate; return *value*."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.path))
            assert sock.recv(1) == b"1", "the gate was never opened"
        return value

    def wait_for_arrivals(self, count: int) -> None:
        """Wait, in the test, until *count* tasks stand at the gate."""
        assert self._listener is not None
        for _ in range(count):
            self._waiting.append(self._listener.accept()[0])

    def open(self) -> None:
        """Let those through that have arrived."""
        for waiting in self._waiting:
            with suppress(BrokenPipeError):  # its worker was stopped meanwhile
                waiting.sendall(b"1")
            waiting.close()
        self._waiting.clear()
