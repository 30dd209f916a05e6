"""A notebook's kernel: functions typed into cells, and its button that interrupts."""

import os

import psutil
import pytest
from programs import survivors

kernels = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

PATIENCE = 60

PREPARE = """
import sys
import threading
from parallel_facade import pmap

def hang(pipe):
    open(pipe, "w").close()
    threading.Event().wait()

def plus(x):
    return x + ONE

ONE = 1
"""


class Notebook:
    """A kernel that runs cells."""

    def __init__(self, client):
        self.client = client

    def send(self, code):
        """Start a cell; the rest of it is for `finish`."""
        return self.client.execute(code)

    def finish(self, cell):
        """Return what the cell showed."""
        shown = {"value": None, "error": None, "stderr": "", "displayed": {}, "states": []}
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "execute_result":
                    shown["value"] = content["data"]["text/plain"]
                case "display_data" | "update_display_data":
                    shown["displayed"] |= content["data"]
                case "comm_open" | "comm_msg":
                    shown["states"].append(content["data"].get("state", {}))
                case "error":
                    shown["error"] = content["ename"]
                case "stream" if content["name"] == "stderr":
                    shown["stderr"] += content["text"]
                case "status" if content["execution_state"] == "idle":
                    return shown

    def run(self, code):
        return self.finish(self.send(code))


@pytest.fixture
def kernel(start_method, tmp_path):
    """A kernel of its own."""
    manager = kernels.KernelManager(
        kernel_name="python3", connection_file=str(tmp_path / "kernel.json"), transport="ipc"
    )
    manager.start_kernel(
        env={
            **os.environ,
            "PARALLEL_FACADE_WORKERS": "2",
            "PARALLEL_FACADE_START_METHOD": start_method,
            "PYTHONWARNINGS": "ignore:start_method='fork':RuntimeWarning",
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(tmp_path),
        }
    )
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(kernel):
    client = kernel.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=PATIENCE)
    yield Notebook(client)
    client.stop_channels()


def test_functions_typed_into_cells_run_with_what_the_cells_say_now(notebook):
    notebook.run(PREPARE)

    assert notebook.run("pmap(plus, range(3))")["value"] == "[1, 2, 3]"
    notebook.run("ONE = 10")
    assert notebook.run("pmap(plus, range(3))")["value"] == "[10, 11, 12]"
    notebook.run("def plus(x):\n    return -x - ONE")
    assert notebook.run("pmap(plus, range(3))")["value"] == "[-10, -11, -12]"


def start_to_hang(notebook, pipe):
    """Return a cell that maps, one of whose tasks runs, as a named pipe tells."""
    os.mkfifo(pipe)
    cell = notebook.send(f"pmap(hang, [{str(pipe)!r}] * 20)")
    pipe.read_text()
    return cell


def test_the_interrupt_button_stops_a_map_and_the_next_cell_works(kernel, notebook, tmp_path):
    notebook.run(PREPARE)
    for name in ("first", "second"):  # not one: a task that is about to be stopped may open it
        cell = start_to_hang(notebook, tmp_path / name)
        kernel.interrupt_kernel()

        shown = notebook.finish(cell)
        assert (shown["error"], shown["stderr"]) == ("KeyboardInterrupt", "")
        assert notebook.run("pmap(plus, range(3))")["value"] == "[1, 2, 3]"


def test_a_kernel_that_is_shut_down_leaves_no_worker(kernel, notebook, tmp_path):
    notebook.run(PREPARE)
    start_to_hang(notebook, tmp_path / "first")
    started = psutil.Process(kernel.provisioner.pid).children(recursive=True)
    assert started

    kernel.shutdown_kernel(now=True)

    assert survivors(started) == []


def test_progress_is_shown_in_a_cell(notebook):
    notebook.run(PREPARE)

    notebook.run("sys.modules['ipywidgets'] = None  # as if it were not installed")
    shown = notebook.run("pmap(plus, range(5), progress='adding')")

    assert shown["value"] == "[1, 2, 3, 4, 5]"
    assert "adding: 100%" in shown["stderr"]
    assert "5/5" in shown["stderr"]


def test_what_tasks_print_is_shown_in_the_cell(notebook):
    notebook.run(PREPARE)

    shown = notebook.run("import sys; pmap(lambda x: print('said', x, file=sys.stderr), [7])")

    assert shown["stderr"] == "said 7\n"


def test_classes_of_the_notebook_come_back_as_themselves(notebook):
    notebook.run(PREPARE)
    notebook.run(
        "import enum\n"
        "class Point:\n    def __init__(self, x):\n        self.x = x\n"
        "class Hue(enum.Enum):\n    RED = 1"
    )
    code = "[type(p) is Point for p in pmap(Point, [1, 2])], pmap(Hue, [1])[0] is Hue.RED"

    assert notebook.run(code)["value"] == "([True, True], True)"
    notebook.run("class Point:\n    def __init__(self, x):\n        self.x = -x")
    assert notebook.run("[(type(p) is Point, p.x) for p in pmap(Point, [1])]")["value"] == (
        "[(True, -1)]"
    )


RELOADED = """
RATE = {rate}

def scaled(x):
    return {scaled}

class Scaler:
    def scale(self, x):
        return {scaled}
"""


def test_a_module_that_is_reloaded_by_itself_is_the_new_code(notebook, tmp_path):
    module = tmp_path / "helper_of_cells.py"
    module.write_text(RELOADED.format(rate=2, scaled="RATE * x"))
    notebook.run(PREPARE)
    notebook.run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    notebook.run("%load_ext autoreload\n%autoreload 2")
    notebook.run("import helper_of_cells\nfrom helper_of_cells import Scaler, scaled")
    maps = (
        "sum([pmap(helper_of_cells.scaled, [1]), pmap(scaled, [1]), pmap(lambda x: scaled(x), [1]),"
        "pmap(Scaler().scale, [1]), pmap(lambda x: Scaler().scale(x), [1])], [])"
    )

    assert notebook.run(maps)["value"] == "[2, 2, 2, 2, 2]"
    module.write_text(RELOADED.format(rate=30, scaled="-RATE * x"))
    assert notebook.run("scaled(1), Scaler().scale(1)")["value"] == "(-30, -30)"
    assert notebook.run(maps)["value"] == "[-30, -30, -30, -30, -30]"


def test_progress_is_a_widget_where_there_are_widgets(notebook):
    pytest.importorskip("ipywidgets")
    notebook.run(PREPARE)

    shown = notebook.run("pmap(plus, range(5), progress='adding')")

    assert shown["value"] == "[1, 2, 3, 4, 5]"
    assert "application/vnd.jupyter.widget-view+json" in shown["displayed"]
    values = [state["value"] for state in shown["states"] if "value" in state]
    assert 5 in values
    assert any("5/5" in str(value) for value in values)
