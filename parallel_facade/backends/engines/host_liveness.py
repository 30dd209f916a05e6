"""Check whether other hosts answer, by connections that their operating systems accept themselves.

    poll ──► connect ··· accepted or refused: the host is there
               └──────── neither, for SILENT_SECONDS: it is cut off

The operating system answers however busy the host's programs are, and whatever locks they hold.

Guarantees:
    - No poll ever waits.

Assumes:
    - Only one thread polls.
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
"""Seconds between two connections to a host."""

SILENT_SECONDS: Final = 25.0
"""The system retries a connection after 1, 3, 7 and 15 seconds: this allows four lost packets."""

ON_ITS_WAY: Final = {0, errno.EINPROGRESS, errno.ECONNREFUSED}
"""The immediate results of a connection attempt, unless this system has no route to the host."""

Address = tuple[str, int]
"""An address and a port."""


class HostLiveness:
    """Checks which hosts answer.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._hosts: dict[Address, _Host] = {}

    def silent_hosts(self, addresses: Mapping[str, Address]) -> set[str]:
        """Poll the hosts at *addresses*; return the names of those silent for too long."""
        for address in self._hosts.keys() - set(addresses.values()):
            self._hosts.pop(address).close()
        now = self._clock()
        return {
            name for name, address in addresses.items() if self._host(address, now).is_silent(now)
        }

    def close(self) -> None:
        """Close all connections."""
        self.silent_hosts({})

    def _host(self, address: Address, now: float) -> _Host:
        if address not in self._hosts:
            self._hosts[address] = _Host(address, now)
        return self._hosts[address]


class _Host:
    def __init__(self, address: Address, now: float) -> None:
        self._address = address
        self._tried_at = now - ASK_SECONDS
        self._answered_at = now
        self._socket: socket.socket | None = None

    def is_silent(self, now: float) -> bool:
        if self._has_answered():
            self._answered_at = now
        if self._socket is None and now - self._tried_at >= ASK_SECONDS:
            self._tried_at = now
            self._connect()
        return now - self._answered_at >= SILENT_SECONDS

    def _connect(self) -> None:
        with suppress(OSError):  # there is no route to the host: no answer
            family = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.socket(family)
            self._socket.setblocking(False)
            if self._socket.connect_ex(self._address) not in ON_ITS_WAY:
                self.close()

    def _has_answered(self) -> bool:
        """Return whether the connection was accepted or refused since the last poll."""
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
