"""What no library can be faster than, measured beside it: memcpy, a bare pipe, a bare fork.

Each function returns one that takes the number of workers and returns seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def copy_of(size: int, *, kept: bool = False) -> Callable[[int], float]:
    """Return a measurement of copying *size* bytes, 8 MB at a time.

    Args:
        size: Bytes.
        kept: Into new memory, as what is kept has to be; otherwise into memory that is there.
    """

    def seconds(workers: int) -> float:  # noqa: ARG001 - memory has one bus
        block = min(size, 8_000_000)
        count = max(1, size // block)
        sources = [np.ones(block, np.uint8) for _ in range(count)]
        targets = np.ones((1 if kept else count, block), np.uint8)
        held = []
        began = time.perf_counter()
        for number, source in enumerate(sources):
            if kept:
                held.append(source.copy())
            else:
                np.copyto(targets[number], source)
        return time.perf_counter() - began

    return seconds


def bare_pipe(count: int) -> Callable[[int], float]:
    """Return a measurement of *count* round trips of 8 bytes, divided by the workers."""

    def seconds(workers: int) -> float:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=_echo, args=(ours, theirs))
        process.start()
        theirs.close()
        ours.send_bytes(b"12345678")
        ours.recv_bytes()
        began = time.perf_counter()
        for _ in range(count):
            ours.send_bytes(b"12345678")
            ours.recv_bytes()
        taken = time.perf_counter() - began
        ours.close()
        process.join()
        return taken / min(workers, count)

    return seconds


def _echo(ours: Connection, channel: Connection) -> None:
    ours.close()  # a copy, with which the channel would never end
    while True:
        try:
            channel.send_bytes(channel.recv_bytes())
        except EOFError:
            return


def bare_processes(func: Callable[[Any], Any], items: list[Any], workers: int) -> float:
    """Return seconds for *workers* forked processes that loop over a share of *items* each.

    Where CPUs share a core, or a busy machine, that is more than the serial loop divided by them.
    """
    func(items[0])  # what it imports is not measured
    began = time.perf_counter()
    children = []
    for number in range(workers):
        if (pid := os.fork()) == 0:
            for item in items[number::workers]:
                func(item)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    return time.perf_counter() - began


def bare_fork(workers: int) -> float:
    """Return seconds for forking *workers* processes that end at once."""
    began = time.perf_counter()
    children = []
    for _ in range(workers):
        if (pid := os.fork()) == 0:
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    return time.perf_counter() - began
