"""Check an engine within a bounded time, before any user code or data is sent to it.

Guarantees:
    - No compiled code is sent: workers get an expression, which their own Python compiles.
    - An engine that does not answer is an error after `ANSWER_SECONDS`, even if it never answers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from parallel_facade._common.errors import BackendLostError, ConfigurationError
from parallel_facade._common.interrupt_safety import came_from_handler
from parallel_facade._common.threads import new_thread
from parallel_facade._worker.remote_entry import Versions, versions_here

R = TypeVar("R")

CONNECT_SECONDS: Final = 5.0
"""How long a host may take to accept a connection: several round trips around the world."""

ANSWER_SECONDS: Final = 30.0
"""How long an engine may take to answer a question; starting workers import their libraries."""

QUESTION: Final = (
    "('%d.%d' % __import__('sys').version_info[:2], *["
    "next((found.version for found in"
    " __import__('importlib.metadata').metadata.distributions(name=name)), '')"
    " for name in ('parallel-facade', 'dill')])"
)
"""Evaluates to the `Versions` of a worker, as a tuple."""


def check_reachable(host: str, port: int, place: str) -> None:
    """Raise `BackendLostError` if nothing listens at *host* and *port*, which *place* names."""
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as exc:
        raise BackendLostError(
            f"nothing answers at {host}:{port}, the address in {place}: {exc}\n\n"
            "Hint: is the cluster up, and can this machine reach it?"
        ) from exc


def host_and_port(address: str, place: str) -> tuple[str, int]:
    """Return the two parts of *address*, with or without ``scheme://``.

    Raises:
        ConfigurationError: It is not HOST:PORT; the message names *place*.

    >>> host_and_port("tcp://10.0.0.1:8786", "DASK_SCHEDULER_ADDRESS")
    ('10.0.0.1', 8786)
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigurationError(
            f"the address {address!r} in {place} is not valid; expected HOST:PORT"
        )
    return host.strip("[]"), int(port)


def check_versions(versions: Mapping[str, Versions]) -> None:
    """Raise `ConfigurationError` if named workers have other versions than this process."""
    here = versions_here()
    different = {name: here.differences(there) for name, there in versions.items() if there != here}
    if different:
        lines = [f"{name}: {', '.join(found)}" for name, found in sorted(different.items())]
        more = [f"... and {len(lines) - MOST_NAMED} more"] if len(lines) > MOST_NAMED else []
        raise ConfigurationError(
            "workers have other versions than this program, so nothing was sent to them\n  "
            + "\n  ".join(lines[:MOST_NAMED] + more)
            + "\n\nHint: install the same versions on both sides."
        )


def check_worker(name: str, question: Callable[[], tuple[str, ...]]) -> None:
    """Raise `ConfigurationError` if the worker *name* has other versions than this process.

    Args:
        name: The worker's name, for the error message.
        question: Makes a worker evaluate `QUESTION`, and returns the value.
    """
    check_versions({name: Versions(*within(ANSWER_SECONDS, question, f"asking {name}"))})


MOST_NAMED: Final = 10
"""How many workers one error names at most."""


def within(seconds: float, question: Callable[[], R], what: str) -> R:
    """Return or raise the outcome of *question*; raise `BackendLostError` if it takes too long.

    Args:
        seconds: How long it may take. After that, it runs on in a thread that ends with it.
        question: Asks the engine.
        what: The thing that is waited for, for the error message.
    """
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(question())
        except BaseException as exc:
            answer.set_exception(exc)

    new_thread(run, name="ask").start()
    try:
        result: R = answer.result(seconds)
    except TimeoutError as exc:
        if answer.done() or came_from_handler(exc):
            raise
        raise BackendLostError(f"{what}: no answer within {seconds:g} seconds") from None
    return result
