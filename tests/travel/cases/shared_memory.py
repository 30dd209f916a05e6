"""Memory that others see: what a task writes is there for the caller, or the call is refused."""

import ctypes
import mmap
import multiprocessing
import os
import pickle
import tempfile
from multiprocessing import shared_memory, sharedctypes

import numpy as np
from runner import main

from parallel_facade import SerializationError, explain

HAS_MAPS = os.path.exists("/proc/self/maps")


def mapped(folder, mode="w+"):
    """Return an array of six numbers in a file."""
    array = np.memmap(os.path.join(folder, "data"), float, mode, shape=(6,))
    if mode == "w+":
        array[:] = 1
    return array


def refused(pmap, func, items, *texts):
    try:
        pmap(func, items)
    except SerializationError as exc:
        assert all(text in str(exc) for text in texts), str(exc)
    else:
        raise AssertionError("it was not refused")


def seen(pmap, func, items, read, expected):
    """Assert that *read* then returns *expected*; where memory cannot be found, a refusal."""
    if HAS_MAPS:
        pmap(func, items)
        assert read() == expected, read()
    elif getattr(pmap, "keywords", {}).get("backend") == "process":
        refused(pmap, func, items, "shared memory")


def case_a_memmap_is_written(pmap):
    with tempfile.TemporaryDirectory() as folder:
        array = mapped(folder)

        def fill(x):
            array[x] = x * 10
            array.flush()
            return type(array), array.offset, array.mode in {"r+", "w+"}, str(array.filename)

        found = pmap(fill, range(4))
        assert array.tolist() == [0, 10, 20, 30, 1, 1]
        assert found == [(np.memmap, 0, True, str(array.filename))] * 4


def case_views_of_a_memmap(pmap):
    with tempfile.TemporaryDirectory() as folder:
        array = mapped(folder)
        backwards, plain, grid = array[4:1:-1], np.asarray(array)[5:], array.reshape(2, 3).T

        def fill(x):
            backwards[0], plain[0], grid[1, 0] = x, -x, 7
            return backwards.shape, backwards.strides, type(plain), grid.shape, grid.strides

        assert pmap(fill, [3]) == [((3,), (-8,), np.ndarray, (3, 2), (8, 24))]
        assert array.tolist() == [1, 7, 1, 1, 3, -3]


def case_items_of_a_memmap(pmap):
    with tempfile.TemporaryDirectory() as folder:
        array = mapped(folder).reshape(3, 2)

        def fill(row):
            row[:] = row.sum() + 1

        pmap(fill, list(array))
        assert array.tolist() == [[3, 3]] * 3


def case_a_memmap_with_an_offset(pmap):
    with tempfile.TemporaryDirectory() as folder:
        mapped(folder)
        array = np.memmap(os.path.join(folder, "data"), np.int16, "r+", offset=16, shape=(2, 3))

        def fill(x):
            array[1, x] = x + 5
            return array.offset

        assert pmap(fill, [0, 2]) == [16, 16]
        assert array.tolist()[1][::2] == [5, 7]


def case_a_memmap_that_is_only_read(pmap):
    with tempfile.TemporaryDirectory() as folder:
        mapped(folder)
        array = mapped(folder, "r")

        found = pmap(lambda _: (array.sum(), array.flags.writeable, array.mode), [0])
        assert found == [(6, False, "r")]


def case_a_large_memmap_costs_nothing(pmap):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "large")
        with open(path, "wb") as file:
            file.truncate(10 << 30)
        array = np.memmap(path, np.uint8, "r")

        assert pmap(lambda x: int(array[x]), [0, (10 << 30) - 1]) == [0, 0]
        assert explain(array).size < 2000


def case_a_memmap_of_mode_c_is_a_copy(pmap):
    with tempfile.TemporaryDirectory() as folder:
        shared = mapped(folder)
        array = mapped(folder, "c")

        def fill(x):
            array[x] = 5
            return array[x]

        assert pmap(fill, [0]) == [5]
        assert shared.tolist() == [1] * 6


def case_a_memmap_comes_back(pmap):
    with tempfile.TemporaryDirectory() as folder:
        array = mapped(folder)

        (back,) = pmap(lambda x: array[x:], [2])
        back[0] = 9
        assert array.tolist() == [1, 1, 9, 1, 1, 1]


def case_an_array_in_shared_memory(pmap):
    memory = shared_memory.SharedMemory(create=True, size=64)
    try:
        array = np.ndarray((4,), float, buffer=memory.buf)
        array[:] = 0

        def fill(x):
            array[x] = x + 1

        seen(pmap, fill, range(4), array.tolist, [1, 2, 3, 4])
        del array
    finally:
        memory.unlink()
        del fill
        memory.close()


def case_the_buffer_of_shared_memory(pmap):
    memory = shared_memory.SharedMemory(create=True, size=8)
    buffer = memory.buf
    try:

        def fill(x):
            buffer[x] = x

        seen(pmap, fill, range(1, 4), lambda: bytes(buffer[:4]), b"\0\1\2\3")
    finally:
        buffer.release()
        memory.unlink()
        memory.close()


def case_shared_memory_without_a_name(pmap):
    memory = shared_memory.SharedMemory(create=True, size=64)
    array = np.ndarray((4,), float, buffer=memory.buf)
    array[:] = 0
    memory.unlink()

    def fill(x):
        array[x] = 1

    seen(pmap, fill, [2], array.tolist, [0, 0, 1, 0])
    del array, fill
    memory.close()


def case_raw_arrays(pmap):
    raw, value = sharedctypes.RawArray("d", 4), sharedctypes.RawValue(ctypes.c_int, 3)
    view = np.frombuffer(raw)

    def fill(x):
        raw[x] += x
        view[3] = 9
        value.value = 11

    seen(pmap, fill, [1, 2], lambda: (list(raw), value.value), ([0, 1, 2, 9], 11))


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


def case_structures_in_shared_memory(pmap):
    points = sharedctypes.RawArray(Point, 3)
    one = points[1]

    def move(x):
        points[0].x = x
        one.y = 2 * x

    seen(pmap, move, [4], lambda: (points[0].x, points[1].y), (4, 8))


def case_a_mapped_file(pmap):
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        with mmap.mmap(file.fileno(), 0) as whole:
            whole.seek(4)

            def fill(x):
                whole[x : x + 1] = b"x"
                return whole.tell()

            seen(pmap, fill, [1, 3], lambda: whole[:], b"0x2x456789")


def case_arrays_of_a_subclass_are_refused(pmap):
    with tempfile.TemporaryDirectory() as folder:
        masked = np.ma.MaskedArray(mapped(folder), mask=[1, 0, 0, 0, 0, 1])

        refused(pmap, lambda x: masked, [0], "shared memory", "MaskedArray")


case_arrays_of_a_subclass_are_refused.needs_processes = True


def case_memory_that_nobody_can_find_is_refused(pmap):
    nameless = mmap.mmap(-1, 64)
    array = np.frombuffer(nameless, np.uint8)

    refused(pmap, lambda x: array[x], [0], "shared memory", "closure cell 'array'")
    refused(pmap, lambda x: nameless[x], [0], "closure cell 'nameless'")
    assert not explain(array).travels
    array = array.copy()
    assert pmap(lambda x: array[x], [0]) == [0]


case_memory_that_nobody_can_find_is_refused.needs_processes = True


def case_synchronized_values_are_refused(pmap):
    for made in (multiprocessing.Value("i", 3), multiprocessing.Array("i", 3)):
        refused(pmap, lambda x, made=made: made, [0], "inheritance")


case_synchronized_values_are_refused.needs_processes = True


def case_ordinary_arrays_are_copies(pmap):
    array = np.arange(6.0)
    half, view = array[::2], memoryview(bytearray(b"abc"))

    def fill(x):
        half[0] = view[0] = x
        return half.tolist(), bytes(view)

    assert pmap(fill, [7]) == [([7, 2, 4], b"\7bc")]
    assert (array[0], bytes(view)) == (0, b"abc")
    assert pickle.loads(pickle.dumps(half)).tolist() == half.tolist()


case_ordinary_arrays_are_copies.needs_processes = True


def case_records_over_a_memmap(pmap):
    with tempfile.TemporaryDirectory() as folder:
        table = mapped(folder).view([("a", float), ("b", float)]).view(np.recarray)

        def fill(x):
            table.b[x] = 9
            return type(table)

        seen(pmap, fill, [1], lambda: table.tolist(), [(1, 1), (1, 9), (1, 1)])
        assert not HAS_MAPS or pmap(fill, [0]) == [np.recarray]


def case_a_mapping_in_pieces(pmap):
    with tempfile.TemporaryFile() as file:
        file.truncate(8 * mmap.PAGESIZE)
        memory = mmap.mmap(file.fileno(), 0)
        if hasattr(memory, "madvise"):
            memory.madvise(mmap.MADV_RANDOM, 0, mmap.PAGESIZE)
            memory.madvise(mmap.MADV_SEQUENTIAL, 4 * mmap.PAGESIZE, mmap.PAGESIZE)
        array = np.frombuffer(memory, np.uint8)

        def fill(x):
            array[x] = 3
            return len(array)

        places = [0, 2 * mmap.PAGESIZE, 8 * mmap.PAGESIZE - 1]
        seen(pmap, fill, places, lambda: array[places].tolist(), [3, 3, 3])


def case_views_of_ctypes(pmap):
    numbers = sharedctypes.RawArray("d", 3)
    view = memoryview(numbers)

    def fill(x):
        (ctypes.c_double * 3).from_buffer(view)[x] = 5
        return view.format, view.shape

    seen(pmap, fill, [1], lambda: list(numbers), [0, 5, 0])
    if pmap.keywords["backend"] == "process":
        refused(pmap, lambda x: view[1:], [0], "") if not HAS_MAPS else None


def case_memory_that_a_task_has_made_for_itself(pmap):
    def on_a_mapping(x):
        array = np.frombuffer(mmap.mmap(-1, 64), float)
        array[:] = x
        return array

    def in_a_file_that_is_gone(x):
        with tempfile.TemporaryDirectory() as folder:
            array = mapped(folder)
            array[:] = x
            return array

    assert [one.tolist() for one in pmap(on_a_mapping, [1, 2])] == [[1] * 8, [2] * 8]
    assert [one.tolist() for one in pmap(in_a_file_that_is_gone, [3])] == [[3] * 6]


if __name__ == "__main__":
    main(globals())
