"""The shape of the package: layers, the public map, what importing costs and loads."""

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import parallel_facade

ROOT = Path(parallel_facade.__file__).parent

LAYERS = [
    {
        "_errors",
        "_cpus",
        "_deadlines",
        "_chunking",
        "_methods",
        "_namespaces",
        "_notes",
        "_interrupts",
        "_segments",
        "_stores",
        "_bars",
        "_amounts",
        "_origins",
        "_singleton_tokens",
        "_threads",
    },
    {"_roles", "_seeds"},
    {"_breakpoints"},
    {"_scopes", "_code", "_plain", "_sources", "_deep", "_identity", "_registry", "_progress"},
    {"_replaced"},
    {"_hearing"},
    {"_telling", "_timeline", "_intervals"},
    {"_delivery", "_mailbox", "_config", "_exiting", "_importable", "_news"},
    {"_closing"},
    {"_type_parameters"},
    {"_dilling", "_files", "_values", "_enums", "_exceptions", "_ctypes_classes", "_named"},
    {"_freshness"},
    {"_functions"},
    {"_classes", "_forward_refs"},
    {"_pickling"},
    {"_parts"},
    {"_offenders"},
    {"_payload"},
    {"_outcomes", "_explain"},
    {"_ledger", "_harvest"},
    {"_worker"},
    {"_open_call"},
    {"_far_side"},
    {"backends"},
    {"_signatures", "_options"},
    {"_faults"},
    {"_carriers"},
    {"_call_trace"},
    {"_opening", "_supply", "_verdicts", "_async_result"},
    {"_dispatch"},
    {"_results", "_submission"},
    {"_calls"},
    {"_pool"},
    {"_shared"},
    {"_api"},
    {"_lanes"},
    {"_trace_facts", "_trace_events", "_trace_plot"},
    {"_trace_advice"},
    {"_trace_report"},
    {"_trace"},
    {"_demo", "_info"},
    {"_cli"},
    {"plugins", "testing", "pytest_plugin", "_joblib_backend"},
    {"joblib"},
    {"__init__"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

BACKEND_LAYERS = [
    {"__init__"},
    {
        "_frames",
        "_journal",
        "_packets",
        "_lifeline",
        "_family",
        "_start_messages",
        "_causes",
        "_keeper",
        "_inner_threads",
    },
    {"_private_ends", "_deafness", "_commands"},
    {"_handover"},
    {"_link", "_serve"},
    {"_fork_server", "_tracker"},
    {"_launch"},
    {"_departures", "_desk"},
    {"_looks"},
    {"_switchboard"},
    {"_serial", "_thread", "_borrowed", "_watch", "_hosts", "_ray_board", "_remote_tasks"},
    {"_process", "_remote", "_probe"},
    {"_dask_local"},
    {"_executor", "_dask", "_ray", "_ppft"},
    {"_mpi"},
]
BACKEND_RANK = {name: rank for rank, names in enumerate(BACKEND_LAYERS) for name in names}

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
LATE = {("_api", "_shared"), ("__init__", "_async_result"), ("_info", "backends")}
"""Imports that a function makes when it is called, so that importing the package stays cheap."""


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


def package_imports(folder: Path, package: str, names: set[str]) -> list[tuple[str, str]]:
    """Return the pairs of modules below *folder* of which the first imports the second."""
    pairs = set()
    for file in folder.glob("*.py"):
        for dotted in imports_of(file):
            rest = dotted.removeprefix(f"{package}.").split(".")[0]
            if dotted.startswith(f"{package}.") and rest in names and rest != file.stem:
                pairs.add((file.stem, rest))
    return sorted(pairs)


def test_every_module_has_its_layer():
    modules = {info.name for info in pkgutil.iter_modules([str(ROOT)])} | {"__init__"}
    backends = {info.name for info in pkgutil.iter_modules([str(ROOT / "backends")])}

    assert modules == set(RANK)
    assert backends | {"__init__"} == set(BACKEND_RANK)


def test_modules_import_only_lower_layers():
    pairs = package_imports(ROOT, "parallel_facade", set(RANK))

    assert [pair for pair in pairs if RANK[pair[1]] >= RANK[pair[0]]] == []


def test_back_ends_import_only_lower_layers():
    pairs = package_imports(ROOT / "backends", "parallel_facade.backends", set(BACKEND_RANK))

    assert [pair for pair in pairs if BACKEND_RANK[pair[1]] >= BACKEND_RANK[pair[0]]] == []


def test_each_foreign_library_is_imported_in_its_own_place():
    libraries = ("pathos", "dill", "tqdm", "multiprocess", "psutil", "threadpoolctl")
    engines = ("distributed", "ray", "mpi4py", "ppft")
    places = {library: set() for library in (*libraries, *engines)}
    for file in [*ROOT.glob("*.py"), *(ROOT / "backends").glob("*.py")]:
        for library in places:
            if any(name.split(".")[0] == library for name in imports_of(file)):
                places[library].add(file.stem)

    assert places == {
        "pathos": {"_process", "_thread", "_serial", "_ppft"},
        "dill": {"_dilling"},
        "tqdm": {"_bars"},
        "multiprocess": {
            "_fork_server",
            "_launch",
            "_lifeline",
            "_packets",
            "_serve",
            "_tracker",
        },
        "psutil": {"_family", "_process", "_serve"},
        "threadpoolctl": {"_inner_threads"},
        "distributed": {"_dask", "_dask_local"},
        "ray": {"_ray"},
        "mpi4py": {"_mpi"},
        "ppft": {"_ppft"},
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
    "_results",
    "_dispatch",
    "_pool",
    "_shared",
    "_api",
    "_async_result",
    "_submission",
    "_process",
    "_keeper",
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
    files = [file for file in ROOT.rglob("*.py") if file.stem != "_serve"]  # nobody interrupts it
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
