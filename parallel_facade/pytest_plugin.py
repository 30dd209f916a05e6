"""For tests of programs that use this library; pytest loads it by its entry point.

pytest --parallel-facade-backend serial      every call of the run, whatever it says
def test_it(serial_backend): ...             every call of the test
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
    """Put the option in force for the whole run."""
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

    What the serial back-end cannot do, such as *task_timeout*, is left out then.
    """
    from parallel_facade._configuration.settings import force_backend

    end = force_backend("serial")
    yield
    end()


@pytest.fixture
def parallel_faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Give faults that the calls of the test shall meet: ``parallel_faults.crash(item=3)``."""
    from parallel_facade._dispatch.call_hooks import put_in_force
    from parallel_facade._integrations.fault_injection import Faults

    faults = Faults(tmp_path_factory.mktemp("parallel_facade_faults"))
    end = put_in_force(faults)
    yield faults
    end()
    if unmet := faults.unmet():
        pytest.fail(f"faults were planned for items that no call has run: {unmet}", pytrace=False)
