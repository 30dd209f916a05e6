"""A back-end that a distribution of its own brings; it is in tests/plugin, and CI installs it."""

from importlib.util import find_spec

import pytest

from parallel_facade._configuration import backend_registry as _registry
from parallel_facade.testing import BackendContract

INSTALLED = find_spec("parallel_facade_standard") is not None


@pytest.mark.skipif(not INSTALLED, reason="the plug-in in tests/plugin is not installed")
class TestPlugIn(BackendContract):
    settings = {"backend": "standard", "workers": 2}

    def test_it_is_found_by_its_name(self):
        assert "standard" in _registry.known_backends()


class TestSerial(BackendContract):
    settings = {"backend": "serial"}


class TestProcess(BackendContract):
    settings = {"backend": "process", "workers": 2}
