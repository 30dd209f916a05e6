"""What type checkers must accept, conclude and refuse; read by them, never run."""

from collections.abc import Iterable
from concurrent.futures import Executor
from typing import assert_type

from parallel_facade import (
    AsyncResult,
    Config,
    Pool,
    Progress,
    ResultIterator,
    apply_async,
    config,
    configure,
    cpu_count,
    get_config,
    imap,
    pmap,
)


def half(x: int) -> float:
    return x / 2


def joined(x: int, y: str) -> bytes:
    return f"{x}{y}".encode()


def total(x: int, y: int, z: int) -> int:
    return x + y + z


def show(progress: Progress) -> None:
    print(progress.done)


assert_type(pmap(str, [1]), list[str])
assert_type(pmap(half, range(3)), list[float])
assert_type(pmap(joined, [1], ["a"]), list[bytes])
assert_type(pmap(total, [1], [2], [3], strict=True), list[int])
assert_type(pmap(str, [1], return_exceptions=True), list[str | Exception])
assert_type(pmap(half, [1], progress=show, seed=1, retries=2, retry_on=OSError), list[float])
assert_type(pmap(half, [1], backend=Pool(), timeout=1.5), list[float])

assert_type(imap(half, [1]), ResultIterator[float])
assert_type(imap(half, [1], ordered=False, buffersize=3), ResultIterator[float])
assert_type(imap(half, [1], return_exceptions=True), ResultIterator[float | Exception])
assert_type(next(imap(joined, [1], ["a"])), bytes)

assert_type(apply_async(half, (1,)), AsyncResult[float])
assert_type(apply_async(half, (1,), timeout=2).get(), float)


async def wait_for_it() -> None:
    assert_type(await apply_async(half, (1,)), float)
    async for value in imap(half, [1]):
        assert_type(value, float)


async def wait_for_all(pool: Pool) -> None:
    assert_type(await pool.amap(half, [1]), list[float])
    assert_type(await pool.amap(half, [1], return_exceptions=True), list[float | Exception])


with Pool(backend="thread", workers=2) as pool:
    executor: Executor = pool
    assert_type(pool.pmap(half, [1]), list[float])
    assert_type(pool.pmap(half, [1], return_exceptions=True), list[float | Exception])
    assert_type(pool.submit(half, 1).result(), float)
    some: Iterable[float] = pool.map(half, [1])
    both: Iterable[float | Exception] = pool.map(half, [1], return_exceptions=True, buffersize=1)

with config(workers=2) as settings:
    assert_type(settings, Config)
assert_type(get_config().workers, int | None)
assert_type(cpu_count(), int)

configure(worker=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
configure(retries="two")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
with config(backnd="thread"):  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pass
pmap(half, [1], wrokers=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
pmap(half, ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
pmap(half, [1], timeout="soon")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
imap(half, [1], bufersize=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
apply_async(half, (1,), chunksize=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
