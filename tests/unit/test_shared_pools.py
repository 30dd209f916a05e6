"""The warm pools behind the verbs: lent, grown, closed when idle."""

import threading

import pytest

from parallel_facade import Pool, configure, pmap
from parallel_facade._api.shared_pools import SharedPools
from parallel_facade._configuration.settings import resolve

PATIENCE = 30


@pytest.fixture
def pools(clock):
    pools = SharedPools(idle_seconds=10, clock=clock)
    yield pools
    pools.close()


def config(workers=1):
    return resolve({"backend": "thread", "workers": workers})


def test_the_same_pool_is_lent_again(pools):
    first = pools.borrow(config())
    pools.give_back(first)

    assert pools.borrow(config()) is first
    pools.give_back(first)


def test_more_workers_make_a_larger_pool_and_fewer_do_not(pools):
    small = pools.borrow(config(1))
    large = pools.borrow(config(3))
    pools.give_back(large)

    assert (small.workers, large.workers) == (1, 3)
    assert pools.borrow(config(2)) is large
    assert small.is_usable, "a call still uses it"
    pools.give_back(large)
    closed = threading.Event()
    small._callback_thread.close = lambda patience: closed.set()
    pools.give_back(small)
    assert closed.wait(30)


def test_an_idle_pool_is_closed_and_a_used_one_is_not(pools, clock):
    idle = pools.borrow(config())
    used = pools.borrow(resolve({"backend": "serial"}))
    pools.give_back(idle)

    clock.now = 9
    assert pools.close_idle() == 1
    assert idle.is_usable
    clock.now = 10
    assert pools.close_idle() == 10
    assert not idle.is_usable
    assert used.is_usable

    pools.give_back(used)
    clock.now = 20
    assert pools.close_idle() is None


def test_a_closed_pool_is_not_lent(pools):
    first = pools.borrow(config())
    first.close()
    pools.give_back(first)

    second = pools.borrow(config())

    assert second is not first
    pools.give_back(second)


def test_the_janitor_ends_with_the_last_pool(pools):
    before = threading.enumerate()
    pool = pools.borrow(config())
    pools.give_back(pool)
    (janitor,) = (
        thread
        for thread in set(threading.enumerate()) - set(before)
        if thread.name.endswith("janitor")
    )

    pools.close()

    janitor.join(PATIENCE)
    assert not janitor.is_alive()


def test_closing_does_not_wait_for_a_call_that_uses_a_pool(pools):
    used, unused = pools.borrow(config(1)), pools.borrow(resolve({"backend": "serial"}))
    pools.give_back(unused)

    pools.close()

    assert (used.is_usable, unused.is_usable) == (True, False)
    pools.give_back(used)


def test_calls_use_one_warm_pool():
    threads = {
        name
        for _ in range(3)
        for name in pmap(lambda _: threading.current_thread().name, range(8), backend="thread")
    }

    assert len(threads) <= len({t.name for t in threading.enumerate()})
    assert threads <= {t.name for t in threading.enumerate()}


def test_while_a_pool_is_made_others_are_lent_and_it_is_made_once(pools, monkeypatch):
    connecting, connected = threading.Event(), threading.Event()

    def connect_slowly(config):
        if config.backend == "thread":
            connecting.set()
            assert connected.wait(PATIENCE)
        return pool_of(config)

    pool_of = Pool._of
    monkeypatch.setattr(Pool, "_of", connect_slowly)
    found = []
    slow = resolve({"backend": "thread"})
    threads = [threading.Thread(target=lambda: found.append(pools.borrow(slow))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert connecting.wait(PATIENCE)

    other = pools.borrow(resolve({"backend": "serial"}))
    connected.set()
    for thread in threads:
        thread.join()

    assert other.is_usable
    assert found[0] is found[1]
    for pool in (other, *found):
        pools.give_back(pool)


def test_what_is_configured_meanwhile_is_for_the_next_call(pools, monkeypatch):
    """The key of a pool and the pool itself follow from one look at the settings."""
    pool_of = Pool._of

    def configure_and_make(config):  # as another thread may, between the two
        configure(start_method="forkserver")
        return pool_of(config)

    monkeypatch.setattr(Pool, "_of", configure_and_make)
    configure(start_method="spawn")
    try:
        pool = pools.borrow(resolve({"backend": "process", "workers": 1}))
    finally:
        configure(start_method=None)

    assert pool._backend._context.get_start_method() == "spawn"
    pools.give_back(pool)
