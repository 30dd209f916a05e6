"""Every message of the page is provoked, so that the page has the words that users meet."""

import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from parallel_facade import (
    Pool,
    apply_async,
    configure,
    pmap,
)
from parallel_facade._configuration import backend_registry as _registry

PAGE = (Path(__file__).parents[2] / "docs/reference/troubleshooting.md").read_text()
HEADINGS = re.findall(r"^### `(.*)`$", PAGE, re.M)


def pattern_of(heading):
    return ".*".join(map(re.escape, heading.split("…")))


def hang(*_):
    threading.Event().wait()


async def sleep(x):
    return x


def in_a_forked_child():
    with Pool("thread", 1) as pool:
        results = pool.imap(abs, [1, 2])
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            try:
                next(results)
            except BaseException as exc:
                os.write(writer, str(exc).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            raise RuntimeError(pipe.read())


def after_the_block():
    with Pool("thread", 1) as pool:
        pass
    pool.pmap(abs, [1])


def to_a_closed_port():
    pmap(abs, [1], backend="ppft:127.0.0.1:1")


def start_a_child(_):
    child = multiprocessing.get_context("fork").Process(target=print)
    child.start()


def in_a_pool(function):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.map(function, [1])


def after_close():
    pool = multiprocessing.get_context("fork").Pool(1)
    pool.close()
    pool.join()
    pool.map(abs, [1])


def without_a_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "multiprocessing.get_context('spawn').Process(target=print).start()\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    raise RuntimeError(ended.stderr)


def by_a_name_that_is_not_there():
    pickle.loads(b"c__main__\nnobody_has_this\n.")


def at_a_breakpoint():
    pmap(lambda x: breakpoint(), [1], backend="process")  # noqa: T100 - to see what becomes of it


PROVOKED = {
    "cannot send …": lambda: pmap(lambda x, lock: x, [1], [held_lock()], backend="process"),
    "cannot return …": lambda: pmap(lambda x: open(os.devnull, "w"), [1], backend="process"),
    "a worker died (…)…": lambda: pmap(lambda x: os._exit(3), [1], backend="process"),
    "a task took longer than … seconds": lambda: pmap(
        hang, [1], task_timeout=0.1, backend="process"
    ),
    "… did not end within … seconds…": lambda: apply_async(
        hang, timeout=0.1, backend="process"
    ).get(),
    "no result after … seconds": lambda: get_too_early(),
    "no back-end is called …": lambda: pmap(abs, [1], backend="proces"),
    "back-end … is not installed: …": lambda: with_a_plug_in("raise ImportError('no engine')"),
    "back-end … is installed, but cannot be imported: …": lambda: with_a_plug_in("1 / 0"),
    "no setting is called …": lambda: configure(worker=2),
    "… is not valid; expected …": lambda: pmap(abs, [1], workers=0),
    "… is not possible on the … back-end, which …": lambda: pmap(
        abs, [1], task_timeout=1, backend="thread"
    ),
    "back-end … has no address: the environment variable … is not set…": lambda: pmap(
        abs, [1], backend="ppft"
    ),
    "nothing answers at …": to_a_closed_port,
    "… cannot be used any more": after_the_block,
    "the results belong to process …, from which this process was forked": in_a_forked_child,
    "func must be callable, got …": lambda: pmap(abs(-1), [1]),
    "func must be a plain function, got the async function …": lambda: pmap(sleep, [1]),
    "Can't … local object …": lambda: pickle.dumps(lambda: 0),
    "Can't get attribute … on <module …__main__…": by_a_name_that_is_not_there,
    "module '__main__' has no attribute …": by_a_name_that_is_not_there,
    "a task reached a breakpoint in a worker process": at_a_breakpoint,
    "daemonic processes are not allowed to have children": lambda: in_a_pool(start_a_child),
    "… objects should only be shared between processes through inheritance": lambda: pmap(
        lambda x, lock: x, [1], [multiprocessing.Lock()], backend="process"
    ),
    "Pool not running": after_close,
}


def with_a_plug_in(code):
    """Ask for a back-end that a distribution announces, whose module is *code*."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        about = Path(folder, "announces-0.dist-info")
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: announces\nVersion: 0\n")
        (about / "entry_points.txt").write_text(
            "[parallel_facade.backends]\nannounced = announced_here:Backend\n"
        )
        Path(folder, "announced_here.py").write_text(code)
        patch.syspath_prepend(folder)
        _registry.plug_ins.cache_clear()
        try:
            pmap(abs, [1], backend="announced")
        finally:
            _registry.plug_ins.cache_clear()


def held_lock():
    lock = threading.Lock()
    lock.acquire()
    return lock


def get_too_early():
    result = apply_async(hang, backend="process")
    try:
        result.get(timeout=0.1)
    finally:
        result.stop()


OF_OTHER_PYTHONS = (
    {"Can't get attribute … on <module …__main__…"}
    if sys.version_info >= (3, 14)
    else {"module '__main__' has no attribute …"}
)
BY_A_SCRIPT = (
    "An attempt has been made to start a new process before the current process has finished its "
    "bootstrapping phase…"
)


def test_the_page_has_what_is_provoked_here():
    assert sorted(HEADINGS) == sorted([*PROVOKED, BY_A_SCRIPT])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("heading", PROVOKED)
def test_the_message_is_that_of_the_page(heading, monkeypatch):
    if heading in OF_OTHER_PYTHONS:
        pytest.skip("other Pythons say so")
    monkeypatch.setenv("PARALLEL_FACADE_PPFT_SECRET", "a secret")

    with pytest.raises(BaseException, match=f"(?s){pattern_of(heading)}"):
        PROVOKED[heading]()


def test_a_script_without_a_guard_fails_with_the_message_of_the_page(tmp_path):
    with pytest.raises(RuntimeError) as caught:
        without_a_guard(tmp_path)

    assert re.search(pattern_of(BY_A_SCRIPT), " ".join(str(caught.value).split()), re.S)
