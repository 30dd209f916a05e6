"""Clusters that a test may break."""

import gc
from contextlib import ExitStack

import pytest

from parallel_facade._api import shared_pools as _shared


@pytest.fixture
def cluster(monkeypatch):
    """Starts a cluster for one test, which may break it."""
    with ExitStack() as stack:

        def start(made):
            for variable, value in stack.enter_context(made).items():
                monkeypatch.setenv(variable, value)

        yield start
        # First, as Ray ends a program whose cluster ends before it has taken leave.
        _shared._shared.close()


@pytest.fixture
def untidy_ppft():
    """ppft leaves sockets of broken connections to the collector; not to that of another test."""
    yield
    _shared._shared.close()
    gc.collect()
