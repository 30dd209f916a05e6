"""Whether a host answers, by real connections and a clock of the test's."""

import select
import socket
from contextlib import ExitStack

import pytest

from parallel_facade.backends.engines.host_liveness import ASK_SECONDS, SILENT_SECONDS, HostLiveness


@pytest.fixture
def hosts(clock):
    hosts = HostLiveness(clock)
    yield hosts
    hosts.close()


@pytest.fixture
def server():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server


@pytest.fixture
def silent_place(server):
    """Where nobody takes or refuses a connection: the queue of those that wait is full."""
    server.listen(0)
    with ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()


def times(clock, seconds):
    """Let so many seconds pass, and give the time at each."""
    for _ in range(int(seconds)):
        clock.now += 1
        yield clock.now


def test_a_host_that_takes_connections_is_there(hosts, clock, server):
    server.listen()
    for _ in times(clock, 3 * SILENT_SECONDS):
        assert hosts.silent_hosts({"a": server.getsockname()}) == set()
        while select.select([server], [], [], 0)[0]:
            server.accept()[0].close()


def test_a_host_whose_port_is_closed_is_there(hosts, clock, server):
    place = server.getsockname()
    server.close()

    for _ in times(clock, 3 * SILENT_SECONDS):
        assert hosts.silent_hosts({"a": place}) == set()


def test_a_host_that_does_not_answer_is_silent_after_a_while(hosts, clock, silent_place):
    said = [hosts.silent_hosts({"a": silent_place}) for _ in times(clock, SILENT_SECONDS + 2)]

    assert said[: int(SILENT_SECONDS)] == [set()] * int(SILENT_SECONDS)
    assert said[-1] == {"a"}


def test_a_host_is_asked_now_and_then_only(hosts, clock, server):
    server.listen()
    for _ in range(100):
        hosts.silent_hosts({"a": server.getsockname()})
    clock.now += ASK_SECONDS
    hosts.silent_hosts({"a": server.getsockname()})
    asked = []
    while select.select([server], [], [], 0)[0]:
        asked.append(server.accept()[0])

    for one in asked:
        one.close()
    assert len(asked) == 2


def test_hosts_that_nobody_asks_for_are_forgotten(hosts, clock, silent_place):
    hosts.silent_hosts({"a": silent_place})
    clock.now += SILENT_SECONDS
    hosts.silent_hosts({})

    assert hosts.silent_hosts({"a": silent_place}) == set()


def test_a_host_to_which_the_system_knows_no_way_is_silent_after_a_while(hosts, clock):
    nowhere = ("255.255.255.255", 9)  # to connect to all hosts at once is refused here, not there
    said = [hosts.silent_hosts({"a": nowhere}) for _ in times(clock, SILENT_SECONDS + 2)]

    assert said[-1] == {"a"}
