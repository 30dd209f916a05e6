"""The connection of this process to Ray, which several back-ends share.

Guarantees:
    - A connection that the user has made to Ray is left alone. A connection that the user has ended
      is not made again: any function of Ray would do that, and start a cluster.

Assumes:
    - There is one connection to Ray in a process.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any, Final

import ray

from parallel_facade._common.errors import BackendLostError, ConfigurationError, described
from parallel_facade._configuration.backend_registry import BUILT_IN, LOCAL_WORD
from parallel_facade.backends.base import WorkerSettings
from parallel_facade.backends.engines.handshake import check_reachable, host_and_port, within

INIT_SECONDS: Final = 60.0
"""How long Ray may take to connect, or to start; it reports an error after about 20 s."""

ADDRESS: Final = BUILT_IN["ray"].address

Session = tuple[str, str]
"""Identifies a connection to Ray: its node and its job."""

_lock = threading.Lock()  # guards the two below
_users: Counter[Session] = Counter()  # number of back-ends of each connection that was made here
_connected_to = ""  # the address of the last of these connections


class RayConnection:
    """What one back-end has of the connection.

    Args:
        settings: Its `address` is the head's, ``"auto"``, or ``"local"``.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._to_end = _connect(settings)
        self._session = _session_now()

    @property
    def is_open(self) -> bool:
        """Whether the program has not ended the connection."""
        return self._session == _session_now()

    def close(self) -> None:
        """Release the connection; end it after its last user, if it was made here."""
        if self._to_end is not None:
            _disconnect(self._to_end)
            self._to_end = None


def _session_now() -> Session | None:
    """Return the connection of this process, or `None`; never make a connection."""
    if not ray.is_initialized():
        return None
    here = ray.get_runtime_context()
    return here.get_node_id(), here.get_job_id()


def _connect(settings: WorkerSettings) -> Session | None:
    """Connect to Ray, unless already connected; return the connection if it was made here."""
    global _connected_to
    with _lock:
        session = _session_now()
        if session is None:
            _init(settings)
            session, _connected_to = _session_now(), settings.address
            assert session is not None, "it was made just now"
        elif session not in _users:
            return None
        elif settings.address != _connected_to:
            raise ConfigurationError(
                f"Ray at {settings.address} cannot be used: this program is connected to Ray at "
                f"{_connected_to}, and a process can have only one connection\n\n"
                "Hint: close the pools that use it, or run the other call in another program."
            )
        _users[session] += 1
    return session


def _disconnect(session: Session) -> None:
    """Release a connection that was made here; end it after its last user."""
    with _lock:
        _users[session] -= 1
        if not _users[session]:
            del _users[session]
            if session == _session_now():
                ray.shutdown()


def _init(settings: WorkerSettings) -> None:
    address = settings.address
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": True}
    if address == LOCAL_WORD:
        more = {"num_cpus": settings.workers, "include_dashboard": False}
        ray.init(address=LOCAL_WORD, **more, **quiet)
        return
    if address != "auto":
        check_reachable(*host_and_port(address, ADDRESS), ADDRESS)
    try:
        within(INIT_SECONDS, lambda: ray.init(address=address, **quiet), "connecting to Ray")
    except BackendLostError:
        raise
    except RuntimeError as exc:
        if "ersion mismatch" in str(exc):
            raise ConfigurationError(
                f"the Ray cluster has other versions than this program: {exc}"
            ) from exc
        raise _not_connected(address, exc) from exc
    except Exception as exc:
        raise _not_connected(address, exc) from exc


def _not_connected(address: str, exc: Exception) -> BackendLostError:
    return BackendLostError(
        f"Ray at {address}, the address in {ADDRESS}, cannot be used: {described(exc)}\n\n"
        "Hint: a cluster with tokens needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here, too."
    )
