"""A pytest plugin for programs that use this library; pytest loads it by its entry point.

pytest --parallel-facade-backend serial      all calls of the run, whatever they ask for
def test_it(serial_backend): ...             all calls of the test
def test_it(parallel_faults): ...            faults at chosen items of the test's calls
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from parallel_facade._integrations.fault_injection import Faults

OPTION = "--parallel-facade-backend"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("parallel_facade").addoption(
        OPTION,
        metavar="NAME",
        help="run all calls of parallel_facade on this back-end, whatever they ask for",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Apply the option to the whole run."""
    if (name := config.getoption(OPTION)) is not None:
        from parallel_facade._common.errors import ConfigurationError
        from parallel_facade._configuration.settings import force_backend

        try:
            end = force_backend(name)
        except ConfigurationError as exc:
            raise pytest.UsageError(f"{OPTION}: {exc}") from None
        config.add_cleanup(end)


@pytest.fixture
def serial_backend() -> Iterator[None]:
    """Run all calls of the test in its own thread, whatever back-end they ask for.

    Options that the serial back-end cannot honour, such as *task_timeout*, are ignored then.
    """
    from parallel_facade._configuration.settings import force_backend

    end = force_backend("serial")
    yield
    end()


@pytest.fixture
def parallel_faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Plan faults for the calls of the test: ``parallel_faults.crash(item=3)``."""
    from parallel_facade._dispatch.call_hooks import put_in_force
    from parallel_facade._integrations.fault_injection import Faults

    faults = Faults(tmp_path_factory.mktemp("parallel_facade_faults"))
    end = put_in_force(faults)
    yield faults
    end()
    if unmet := faults.unmet():
        pytest.fail(f"faults were planned for items that no call has run: {unmet}", pytrace=False)
