"""What cannot travel: a clear error that names the part, the item and a way out; the rest runs."""

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import os
import queue
import selectors
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading

import multiprocess
from runner import main

from parallel_facade import SerializationError, explain


class HoldsALock:
    def __init__(self):
        self.name = "h"
        self._lock = threading.Lock()
        self._lock.acquire()

    def f(self, x):
        return x


class Client:
    def __init__(self, service):
        self.service = service


def refused(pmap, func, items, *texts, path):
    """Assert that a call is refused with *texts* in its message and *path* to the part."""
    try:
        pmap(func, items)
    except SerializationError as exc:
        for text in texts:
            assert text in str(exc), (text, str(exc))
        assert exc.path == path, exc.path
        assert exc.offenders[0].remedy
    else:
        raise AssertionError("it was not refused")
    assert pmap(abs, [-1]) == [1]


def returned(pmap, func, *texts):
    """Assert that the result of *func* is refused for its item alone."""
    results = pmap(lambda x: func() if x == 1 else x, [0, 1, 2], return_exceptions=True)
    assert results[::2] == [0, 2]
    assert type(results[1]) is SerializationError, results[1]
    for text in ("cannot return the result", *texts):
        assert text in str(results[1]), (text, str(results[1]))
    assert any("item 1" in note for note in results[1].__notes__)
    assert results[1].path.startswith("result")


def generator():
    yield 1


async def coroutine():
    return 1


def case_a_held_lock_in_an_object(pmap):
    refused(pmap, HoldsALock().f, [1], "held", path="func.__self__._lock")


def case_deep_in_an_object(pmap):
    client = Client({"a": [Client(HoldsALock())]})
    path = "item 1.service['a'][0].service._lock"

    refused(pmap, lambda c: c, [0, client], "item 1", "held", path=path)


def case_a_socket_in_a_closure(pmap):
    with socket.socket() as connection:
        name = "case_a_socket_in_a_closure.<locals>.<lambda>"
        path = f"closure cell 'connection' of {name}"
        refused(pmap, lambda x: connection.send(x), [b""], "socket", path=path)


def case_a_socket_in_an_object_in_a_closure(pmap):
    with socket.socket() as connection:
        client = Client(connection)
        name = "case_a_socket_in_an_object_in_a_closure.<locals>.<lambda>"
        path = f"(closure cell 'client' of {name}).service"
        refused(pmap, lambda x: client, [0], "socket", path=path)


def case_a_global(pmap):
    globals()["CONNECTION"] = socket.socket()
    try:
        refused(pmap, lambda x: CONNECTION, [0], "socket", path="global 'CONNECTION'")
    finally:
        globals().pop("CONNECTION").close()


def case_a_generator_as_an_item(pmap):
    refused(pmap, list, [generator()], "generator", "make a list", path="item 0")


def case_an_open_file(pmap):
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "f"), "w") as file:
        file.write("kept")
        file.flush()
        refused(pmap, lambda f: f.write("x"), [file], "send its path", path="item 0")
        with open(file.name) as again:
            assert again.read() == "kept"
            refused(pmap, lambda f: f.read(), [again], "reading text", path="item 0")


def case_a_temporary_file_stays(pmap):
    with tempfile.NamedTemporaryFile() as file:
        refused(pmap, lambda f: f.name, [file], "cannot travel", path="item 0.file")
        assert os.path.exists(file.name)


def case_a_frame(pmap):
    refused(pmap, lambda x: x, [sys._getframe()], "frame", path="item 0")


def case_every_part_is_named(pmap):
    pair = [HoldsALock(), {"k": HoldsALock()}]
    try:
        pmap(lambda x: x, [pair])
    except SerializationError as exc:
        paths = [offender.path for offender in exc.offenders]
    assert paths == ["item 0[0]._lock", "item 0[1]['k']._lock"]


def case_what_belongs_to_one_process(pmap):
    parts = multiprocessing.Pipe()
    child = subprocess.Popen([sys.executable, "-c", ""])
    selector = selectors.SelectSelector()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    for owned in (*parts, *multiprocess.Pipe(), child, selector, pool):
        kind = type(owned).__name__
        refused(pmap, lambda x: x, [0, {"k": owned}], f"a {kind} belongs", path="item 1['k']")
        assert not explain(owned).travels
    refused(pmap, lambda x: child.wait(), [0], "a Popen belongs", path=_cell("child"))
    child.wait()
    for one in (*parts, selector):
        one.close()


def _cell(name):
    return f"closure cell '{name}' of case_what_belongs_to_one_process.<locals>.<lambda>"


def case_a_pending_future(pmap):
    ended = concurrent.futures.Future()
    ended.set_result(4)

    refused(pmap, lambda x: x, [concurrent.futures.Future()], "pending", path="item 0")
    assert pmap(lambda future: future.result(), [ended]) == [4]


def case_what_belongs_to_one_process_in_asyncio(pmap):
    async def everything():
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        task = asyncio.ensure_future(asyncio.sleep(0))
        for owned in (loop, server, task, loop.create_future()):
            refused(pmap, lambda x: x, [owned], type(owned).__name__, path="item 0")
        server.close()
        await task

    asyncio.run(everything())


def case_what_belongs_to_the_worker(pmap):
    for module in (multiprocessing, multiprocess):
        returned(pmap, module.Pipe, "a Connection belongs")
        returned(pmap, module.Queue, "inheritance")
    returned(pmap, lambda: subprocess.Popen([sys.executable, "-c", ""]), "a Popen belongs")
    returned(pmap, concurrent.futures.Future, "pending")
    returned(pmap, selectors.SelectSelector, "a SelectSelector belongs")


def case_results_that_cannot_travel(pmap):
    returned(pmap, generator, "generator")
    returned(pmap, lambda: HoldsALock(), "_lock", "held")
    returned(pmap, socket.socket, "socket")
    returned(pmap, lambda: open(os.devnull), "open file")
    returned(pmap, tempfile.TemporaryDirectory, "cannot be returned")


def case_results_with_a_bad_part_deep_inside(pmap):
    results = pmap(lambda x: {"a": [1, generator()]}, [0], return_exceptions=True)

    assert results[0].path == "result['a'][1]"


for _case in list(globals().values()):
    if getattr(_case, "__name__", "").startswith("case_"):
        _case.needs_processes = True


def wrong_kind(pmap, func, *texts):
    try:
        pmap(func, [1, 2])
    except TypeError as exc:
        for text in texts:
            assert text in str(exc), str(exc)
    else:
        raise AssertionError("it was not refused")


def case_async_functions(pmap):
    async def local(x):
        return x

    class Service:
        async def f(self, x):
            return x

        async def __call__(self, x):
            return x

    for func in (local, Service().f, Service()):
        wrong_kind(pmap, func, "async function", "asyncio.run")
    assert pmap(lambda x: asyncio.run(local(x)), [1, 2]) == [1, 2]


def case_generator_functions(pmap):
    def pairs(x):
        yield x
        yield -x

    wrong_kind(pmap, pairs, "generator function", "list(f(x))")
    assert pmap(lambda x: list(pairs(x)), [1]) == [[1, -1]]


def case_async_generator_functions(pmap):
    async def numbers(x):
        yield x

    wrong_kind(pmap, numbers, "async generator function")


class Connection(sqlite3.Connection):
    def __getattr__(self, name):
        raise AttributeError(name)


class Messages(queue.SimpleQueue):
    def __getattr__(self, name):
        raise AttributeError(name)


def case_contents_that_python_cannot_reach(pmap):
    with contextlib.closing(sqlite3.connect(":memory:", factory=Connection)) as connection:
        for kept in (connection, Messages()):
            name = type(kept).__name__
            refused(pmap, lambda x: x, [kept], f"cannot pickle '{name}' object", path="item 0")


case_contents_that_python_cannot_reach.needs_processes = True


class Crew(concurrent.futures.ThreadPoolExecutor):
    def __getstate__(self):
        return {"count": self._max_workers}

    def __setstate__(self, state):
        self.__init__(state["count"])


def case_an_executor_that_says_how_it_travels(pmap):
    crew = Crew(2)

    assert pmap(lambda x: crew.submit(abs, x).result(), [-1]) == [1]


if __name__ == "__main__":
    main(globals())
