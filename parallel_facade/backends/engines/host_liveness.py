"""Whether other hosts answer: a connection now and then, which their systems take by themselves.

    look ──► connect ··· taken, or refused: the host is there
               └─────── neither, for SILENT_SECONDS: it is cut off

The system of a host answers however busy its programs are, and whatever locks they hold.

Guarantees:
    - No look ever waits.

Assumes:
    - One thread looks.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from parallel_facade._common.deadlines import Clock

ASK_SECONDS: Final = 5.0
"""Between two connections to a host."""

SILENT_SECONDS: Final = 25.0
"""A connection is tried anew after 1, 3, 7 and 15 seconds by the system: four lost packets."""

ON_ITS_WAY: Final = {0, errno.EINPROGRESS, errno.ECONNREFUSED}
"""What a connection that is tried comes to at once, unless this system knows no way there."""

Address = tuple[str, int]
"""An address and a port."""


class HostLiveness:
    """Asks hosts whether they are there.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._hosts: dict[Address, _Host] = {}

    def silent_hosts(self, addresses: Mapping[str, Address]) -> set[str]:
        """Ask the hosts at *addresses*; return the names of those that are silent for long."""
        for address in self._hosts.keys() - set(addresses.values()):
            self._hosts.pop(address).close()
        now = self._clock()
        return {
            name for name, address in addresses.items() if self._host(address, now).is_silent(now)
        }

    def close(self) -> None:
        """End all connections."""
        self.silent_hosts({})

    def _host(self, address: Address, now: float) -> _Host:
        if address not in self._hosts:
            self._hosts[address] = _Host(address, now)
        return self._hosts[address]


class _Host:
    def __init__(self, address: Address, now: float) -> None:
        self._address = address
        self._asked_at = now - ASK_SECONDS
        self._answered_at = now
        self._socket: socket.socket | None = None

    def is_silent(self, now: float) -> bool:
        if self._has_answered():
            self._answered_at = now
        if self._socket is None and now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            self._connect()
        return now - self._answered_at >= SILENT_SECONDS

    def _connect(self) -> None:
        with suppress(OSError):  # the system knows no way there: no answer
            family = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.socket(family)
            self._socket.setblocking(False)
            if self._socket.connect_ex(self._address) not in ON_ITS_WAY:
                self.close()

    def _has_answered(self) -> bool:
        """Return whether the connection was taken or refused since the last look."""
        if self._socket is None:
            return False
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        if not poller.poll(0):
            return False
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.close()
        return code in {0, errno.ECONNREFUSED}

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
