"""A notebook's kernel: functions typed into cells, and its button that interrupts."""

import os

import psutil
import pytest

kernels = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

PATIENCE = 60

PREPARE = """
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
        """Return what the cell showed: the text of its value, its error's name, and its stderr."""
        shown = {"value": None, "error": None, "stderr": ""}
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "execute_result":
                    shown["value"] = content["data"]["text/plain"]
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

        assert notebook.finish(cell) == {"value": None, "error": "KeyboardInterrupt", "stderr": ""}
        assert notebook.run("pmap(plus, range(3))")["value"] == "[1, 2, 3]"


def test_a_kernel_that_is_shut_down_leaves_no_worker(kernel, notebook, tmp_path):
    notebook.run(PREPARE)
    start_to_hang(notebook, tmp_path / "first")
    started = psutil.Process(kernel.provisioner.pid).children(recursive=True)
    assert started

    kernel.shutdown_kernel(now=True)

    assert psutil.wait_procs(started, timeout=PATIENCE)[1] == []


def test_progress_is_shown_in_a_cell(notebook):
    notebook.run(PREPARE)

    shown = notebook.run("pmap(plus, range(5), progress='adding')")

    assert shown["value"] == "[1, 2, 3, 4, 5]"
    assert "adding: 100%" in shown["stderr"]
    assert "5/5" in shown["stderr"]


def test_what_tasks_print_is_shown_in_the_cell(notebook):
    notebook.run(PREPARE)

    shown = notebook.run("import sys; pmap(lambda x: print('said', x, file=sys.stderr), [7])")

    assert shown["stderr"] == "said 7\n"
