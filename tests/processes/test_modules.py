"""Modules that a worker finds, and modules that only the caller has."""

import importlib
import importlib.util
import itertools
import os
import sys

import pytest
from programs import run

from parallel_facade import config, pmap
from parallel_facade._serialization.modules.importable import find_path

SOURCE = """
SCALE = {scale}

def f(x):
    return SCALE * x

class Kind:
    def g(self, x):
        return (type(self).__name__, f(x))
"""
_numbers = itertools.count()


@pytest.fixture
def write(tmp_path):
    """Writes a module of a new name and returns its name and file."""

    def write(scale, folder="a", name=None):
        name = name or f"made_for_test_{next(_numbers)}"
        file = tmp_path / folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(SOURCE.format(scale=scale))
        return name, file

    yield write
    for name in [name for name in sys.modules if name.startswith("made_for_test_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def warm(start_method):
    with config(backend="process", workers=2, start_method=start_method):
        assert pmap(abs, [-1, -2]) == [1, 2]
        yield


def assert_travels(module, scale):
    assert pmap(module.f, [1, 2]) == [scale, 2 * scale]
    assert pmap(module.Kind().g, [1]) == [("Kind", scale)]
    assert [type(one) for one in pmap(lambda _: module.Kind(), [0])] == [module.Kind]


def test_a_folder_that_was_added_to_the_path(write, monkeypatch):
    name, file = write(3)
    monkeypatch.syspath_prepend(str(file.parent))
    module = importlib.import_module(name)

    assert find_path(module.f) == (name, "f")
    assert_travels(module, 3)


def load_from(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("registered", [True, False])
def test_a_file_that_was_loaded_from_its_place(write, registered):
    name, file = write(4)
    module = load_from(name, file)
    if registered:
        sys.modules[name] = module

    assert find_path(module.f) is None
    assert_travels(module, 4)


def test_a_file_that_is_gone(write, monkeypatch):
    name, file = write(5)
    monkeypatch.syspath_prepend(str(file.parent))
    module = importlib.import_module(name)
    file.unlink()

    assert find_path(module.f) is None
    assert_travels(module, 5)


def test_a_module_that_another_one_hides(write, monkeypatch):
    name, file = write(6)
    monkeypatch.syspath_prepend(str(file.parent))
    module = importlib.import_module(name)
    _, other = write(7, folder="b", name=name)
    monkeypatch.syspath_prepend(str(other.parent))

    assert find_path(module.f) is None
    assert_travels(module, 6)


def test_a_module_that_fails_to_import_in_workers(write, monkeypatch):
    name, file = write(8)
    file.write_text(
        f"import os\nif os.getpid() != {os.getpid()}: raise RuntimeError('mine')\n"
        + file.read_text()
    )
    monkeypatch.syspath_prepend(str(file.parent))
    module = importlib.import_module(name)

    (error,) = pmap(module.f, [1], return_exceptions=True)

    assert "could not be rebuilt in the worker: RuntimeError: mine" in str(error)
    assert pmap(abs, [-1]) == [1]


@pytest.mark.skipif(sys.version_info < (3, 15), reason="this Python has no lazy imports")
def test_lazy_imports_of_a_script_are_seen_by_tasks(start_method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
lazy import json
lazy import os.path
lazy from math import sqrt
lazy import no_such_module
from parallel_facade import pmap

def function(x):
    return json.dumps([x]), sqrt(x), os.path.join("a", "b")

class Reads:
    def __call__(self, text):
        return json.loads(text)

print(pmap(function, [1, 4]))
print(pmap(Reads(), ["1", "2"]))

def with_or_without(x):
    try:
        return no_such_module.function(x)
    except ImportError:
        return "without"

print(pmap(with_or_without, [1]))
try:
    pmap(lambda x: no_such_module.function(x), [1])
except ImportError as exc:
    print("no_such_module" in str(exc))
""")
    printed = run(str(script), PARALLEL_FACADE_START_METHOD=start_method, PYTHONWARNINGS="ignore")

    assert printed == "[('[1]', 1.0, 'a/b'), ('[4]', 2.0, 'a/b')]\n[1, 2]\n['without']\nTrue\n"
