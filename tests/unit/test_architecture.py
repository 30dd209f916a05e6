"""The shape of the package: layers, the public map, what importing costs and loads."""

import ast
import inspect
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import parallel_facade

ROOT = Path(parallel_facade.__file__).parent

FLOORS = [
    {"_common"},
    {"_configuration", "_console", "_serialization.buffers", "_serialization.modules"},
    {"_serialization.rules"},
    {"_serialization"},
    {"_worker"},
    {"backends"},
    {"backends.engines", "backends.process.starting"},
    {"backends.process"},
    {"_dispatch"},
    {"_api", "_tracing"},
    {"_integrations"},
    {""},
]
"""The packages, the lowest first; "" has the public doors. Modules import what is below theirs."""
RANK = {name: rank for rank, names in enumerate(FLOORS) for name in names}

NEVER = {("backends.process", "backends.engines")}
"""Pairs of packages of which the first, though above, must not import the second."""

ENGINES = {"dask", "ray", "mpi", "ppft", "executor"}
BY_NAME = {("_configuration", "backends")}
"""Pairs of packages of which the first names modules of the second in strings."""

HEAVY = {
    "dask",
    "dill",
    "distributed",
    "joblib",
    "matplotlib",
    "mpi4py",
    "multiprocess",
    "numpy",
    "pathos",
    "psutil",
    "ray",
    "tqdm",
}


def imports_of(file: Path) -> set[str]:
    """Return the dotted names that *file* imports when it is loaded, types aside."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules_of_the_package() -> dict[str, Path]:
    """Return the files of all modules, by their dotted names without that of the package."""
    found = {}
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = file
    return found


MODULES = modules_of_the_package()


def imports_of_ours() -> set[tuple[str, str]]:
    """Return the pairs of modules of which the first imports the second, now or when it runs."""
    pairs = set()
    for name, file in MODULES.items():
        for dotted in imports_of(file):
            imported = dotted.removeprefix("parallel_facade").removeprefix(".")
            if dotted.startswith("parallel_facade") and imported in MODULES and imported != name:
                pairs.add((name, imported))
    return pairs


def package_of(module: str) -> str:
    """Return the package that *module* is in, which a package itself is, too."""
    if MODULES[module].name == "__init__.py":
        return module
    return module.rpartition(".")[0]


def test_every_package_has_its_floor():
    assert {package_of(module) for module in MODULES} == set(RANK)


def test_packages_import_only_lower_packages():
    pairs = [(one, other) for one, other in imports_of_ours() if MODULES[other] != ROOT]
    crossing = {
        (one, other)
        for one, other in pairs
        if package_of(one) != package_of(other) and other and package_of(other) != other
    }
    upward = {pair for pair in crossing if RANK[package_of(pair[1])] >= RANK[package_of(pair[0])]}
    forbidden = {pair for pair in crossing if tuple(map(package_of, pair)) in NEVER}

    assert len(crossing) > 200
    assert upward == set()
    assert forbidden == set()


def test_names_of_modules_in_strings_lead_down_too():
    named = set()
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value.removeprefix("parallel_facade.")
                if text != node.value and text in MODULES:
                    named.add((package_of(module), package_of(text)))
    upward = {pair for pair in named if RANK[pair[1]] > RANK[pair[0]]}

    assert upward == BY_NAME


def engine_of(module: str) -> str:
    """Return which engine *module* is for; empty for what all of them share."""
    name = module.removeprefix("backends.engines.").partition("_")[0]
    return name if module.startswith("backends.engines.") and name in ENGINES else ""


def test_no_engine_knows_another():
    known = {tuple(map(engine_of, pair)) for pair in imports_of_ours()}

    assert {(one, other) for one, other in known if one and other and one != other} == {
        ("mpi", "executor")
    }


def test_no_modules_import_each_other_in_a_circle():
    left = {name: set() for name in MODULES}
    for one, other in imports_of_ours():
        if package_of(other) != other:  # a package is imported with whatever is in it
            left[one].add(other)
    while free := {name for name, below in left.items() if not below & left.keys()}:
        left = {name: below for name, below in left.items() if name not in free}

    assert left == {}


def test_each_foreign_library_is_imported_in_its_own_place():
    libraries = ("pathos", "dill", "tqdm", "multiprocess", "psutil", "threadpoolctl")
    engines = ("distributed", "ray", "mpi4py", "ppft")
    places = {library: set() for library in (*libraries, *engines)}
    for file in ROOT.rglob("*.py"):
        for library in places:
            if any(name.split(".")[0] == library for name in imports_of(file)):
                places[library].add(file.stem)

    assert places == {
        "pathos": {"serving_pool", "thread", "serial", "ppft"},
        "dill": {"dill_bridge"},
        "tqdm": {"tqdm_bars"},
        "multiprocess": {
            "fork_server",
            "launcher",
            "lockless_queue",
            "parent_death",
            "resource_tracker",
            "worker_loop",
            "worker_process",
        },
        "psutil": {"backend", "process_tree", "worker_loop"},
        "threadpoolctl": {"thread_limits"},
        "distributed": {"dask", "dask_local_cluster"},
        "ray": {"ray", "ray_connection", "ray_hosts", "ray_tasks"},
        "mpi4py": {"mpi"},
        "ppft": {"ppft"},
    }


def test_importing_loads_nothing_heavy():
    script = "import sys, parallel_facade; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()

    assert HEAVY & {name.split(".")[0] for name in loaded} == set()


def test_importing_starts_nothing():
    script = (
        "import threading, parallel_facade, os; parallel_facade.Pool; "
        "print(threading.active_count(), len(os.listdir('/proc/self/task')))"
    )

    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "1 1\n"


LOOPS = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.SetComp | ast.DictComp
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef | ast.GeneratorExp
MUST_CLEAN_UP = {
    "results",
    "map_run",
    "pool",
    "shared_pools",
    "verbs",
    "async_result",
    "background_call",
    "backend",
    "lifecycle_thread",
}


def loops_in(nodes: list[ast.stmt]) -> list[int]:
    """Return the lines of loops that are run by *nodes* themselves."""
    found: list[int] = []
    left: list[ast.AST] = list(nodes)
    while left:
        node = left.pop()
        if isinstance(node, LOOPS):
            found.append(node.lineno)
        if not isinstance(node, SCOPES):
            left.extend(ast.iter_child_nodes(node))
    return found


def protected_blocks(file: Path) -> list[list[ast.stmt]]:
    """Return the bodies of *file* that an interrupt must not leave by the wrong way."""
    blocks = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.With):  # on something that was there before: a lock
            if any(isinstance(item.context_expr, ast.Name | ast.Attribute) for item in node.items):
                blocks.append(node.body)
        elif isinstance(node, ast.Try) and file.stem in MUST_CLEAN_UP:
            catches = [ast.unparse(handler.type or ast.Name("all")) for handler in node.handlers]
            if node.finalbody or {"BaseException", "all"} & set(catches):
                blocks.append(node.body)
    return blocks


def test_no_loop_is_left_by_an_interrupt_with_a_lock_held():
    # Nobody interrupts a worker's own loop.
    files = [file for file in ROOT.rglob("*.py") if file.stem != "worker_loop"]
    checked = [(file.name, loops_in(block)) for file in files for block in protected_blocks(file)]

    assert len(checked) > 50
    assert [(name, lines) for name, lines in checked if lines] == []


def test_all_is_sorted_and_complete():
    assert parallel_facade.__all__ == sorted(parallel_facade.__all__)
    assert set(parallel_facade.__all__) <= set(dir(parallel_facade))
    with pytest.raises(AttributeError, match="has no attribute 'pmapp'"):
        _ = parallel_facade.pmapp


@pytest.mark.parametrize("name", parallel_facade.__all__)
def test_public_objects_live_under_the_public_name_and_are_documented(name):
    obj = getattr(parallel_facade, name)

    assert obj.__module__ == "parallel_facade"
    doc = inspect.getdoc(obj)
    assert doc
    if inspect.isfunction(obj):
        assert ">>>" in doc


def test_the_public_methods_are_documented_with_examples():
    for cls in (parallel_facade.Pool, parallel_facade.AsyncResult):
        for name, method in vars(cls).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                assert method.__doc__, name
                overridden = name in {"result", "exception", "running", "add_done_callback"}
                assert overridden or ">>>" in method.__doc__, name


def test_every_module_says_what_it_is_for():
    files = {file for file in ROOT.rglob("*.py") if file.name != "__main__.py"}

    assert [str(file) for file in files if not ast.get_docstring(ast.parse(file.read_text()))] == []


LARGE = {
    "Pool": "public",
    "AsyncResult": "public",
    "BackendContract": "public; each method is a test",
    "MapRun": "the hot path",
    "ManagerThread": "the hot path",
    "RemoteBackend": "the base of all engines",
}
"""Classes that may have more methods and arguments than others, and why."""

MOST_LINES, MOST_METHODS, MOST_ARGUMENTS, MOST_LINES_OF_CODE, MEDIAN_LINES = 450, 15, 8, 40, 6


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of *function* without its docstring, from its name on."""
    body = function.body
    docstring = 0
    if ast.get_docstring(function, clean=False) is not None:
        docstring = (body[0].end_lineno or 0) - body[0].lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def methods_of(cls: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the methods of *cls*, overloads aside."""
    return [
        one
        for one in cls.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        and not any("overload" in ast.dump(decorator) for decorator in one.decorator_list)
    ]


def test_files_classes_and_functions_fit_in_a_glance():
    too_large, lengths = [], []
    for name, file in MODULES.items():
        text = file.read_text()
        if text.count("\n") > MOST_LINES:
            too_large.append(f"{name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.name not in LARGE:
                methods = methods_of(node)
                if len(methods) > MOST_METHODS:
                    too_large.append(f"{name}.{node.name}: {len(methods)} methods")
                arguments = [
                    len(one.args.args) + len(one.args.kwonlyargs) - 1
                    for one in methods
                    if one.name == "__init__"
                ]
                if max(arguments, default=0) > MOST_ARGUMENTS:
                    too_large.append(f"{name}.{node.name}: {arguments[0]} arguments")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(lines_of_code(node))
                # The verbs are signatures for help() in the first place.
                if lengths[-1] > MOST_LINES_OF_CODE and name not in {"_api.verbs"}:
                    too_large.append(f"{name}.{node.name}: {lengths[-1]} lines")

    assert [one for one in too_large if "map_run.__init__" not in one] == []
    assert statistics.median(lengths) <= MEDIAN_LINES
