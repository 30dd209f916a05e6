"""Memory that several processes see: it is sent by its place in a file, and mapped again there.

    array ─► base ─► … ─► mmap ─► region of /proc/self/maps ─► (path, offset, length) ─► worker

So do `numpy.memmap`, arrays and memory views over `SharedMemory` or `mmap`, `RawArray`, others
of `ctypes` in shared memory, and shared tensors of torch. What a task writes is seen by all,
and a file of many gigabytes costs nothing to send. Memory that other processes cannot map is
refused if it can be written: a copy would lose what a task writes. A private mapping (mode ``"c"``
of `numpy.memmap`) is a copy already.

Assumes:
    - Memory that a file descriptor without a name leads to is mapped as long as its owner lives:
      a worker opens it by ``/proc/PID/fd``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import sys
import weakref
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

from parallel_facade._serialization.rules.ctypes_types import is_made_by_ctypes
from parallel_facade._serialization.rules.memory_regions import Region, listed_region

DELETED: Final = " (deleted)"


class Place(NamedTuple):
    """Where another process finds the memory.

    Attributes:
        path: The file to open.
        inode: Its number in its file system, so that no other file is taken for it.
        offset: Where to begin, in bytes.
        length: How much to map, in bytes.
        writable: Whether it may be written.
    """

    path: str
    inode: int
    offset: int
    length: int
    writable: bool


# ── which objects ─────────────────────────────────────────────────────────────────────────────────


def is_numpy_array(kind: type) -> bool:
    """Return whether *kind* is NumPy's array class, or a subclass."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.ndarray)


def is_torch_tensor(kind: type) -> bool:
    """Return whether *kind* is torch's tensor class, or a subclass."""
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(kind, getattr(torch, "Tensor", ()))


def _owner_of(obj: Any) -> Any:
    """Return the object at the end of the chain of those that lend *obj* its memory."""
    while True:
        if is_numpy_array(type(obj)):
            lender = obj.base
        elif type(obj) is memoryview:
            lender = obj.obj
        elif is_made_by_ctypes(type(obj)):
            lender = obj._b_base_ or _buffer_in(obj._objects)
        else:
            return obj
        if lender is None:
            return obj
        obj = lender


def _buffer_in(kept: Any) -> Any:
    """Return the buffer that an object of `ctypes` was made from, of the objects that it keeps."""
    kept = kept.values() if isinstance(kept, dict) else (kept,)
    return next((one for one in kept if isinstance(one, memoryview | mmap.mmap)), None)


def _may_be_shared(owner: Any) -> bool:
    if isinstance(owner, mmap.mmap):
        return True
    return is_torch_tensor(type(owner)) and owner.device.type == "cpu" and owner.is_shared()


# ── where its memory is ───────────────────────────────────────────────────────────────────────────

_regions: weakref.WeakKeyDictionary[mmap.mmap, Region] = weakref.WeakKeyDictionary()


def _region_at(address: int, owner: Any) -> Region | None:
    """Return the region of the memory of *owner* at *address*; `None` if that is not known."""
    if not isinstance(owner, mmap.mmap):
        return listed_region(address)
    region = _regions.get(owner)
    if region is None or not region.start <= address < region.start + region.length:  # resized
        region = listed_region(address)
    if region is not None:
        _regions[owner] = region
    return region


def _region_of_memmap(array: Any, owner: Any) -> Region | None:
    """Return the region of a `numpy.memmap`, where the system has no list of regions."""
    first = array
    while is_numpy_array(type(first.base)):
        first = first.base
    path = getattr(first, "filename", None)
    if path is None:
        return None
    begin = first.offset % mmap.ALLOCATIONGRANULARITY
    return Region(
        *(first.__array_interface__["data"][0] - begin, len(owner), first.offset - begin),
        *(str(path), os.stat(path).st_ino),
        writable=first.mode != "r",
        is_shared=first.mode != "c",
    )


def _place_of(region: Region, *, writable: bool, returning: bool) -> Place | None:
    """Return where another process finds *region*; `None` if none can."""
    if (path := _path_to(region, returning=returning)) is None:
        return None
    length = min(region.length, os.stat(path).st_size - region.offset)
    return Place(path, region.inode, region.offset, length, writable)


def _path_to(region: Region, *, returning: bool) -> str | None:
    if not region.inode:
        return None
    with suppress(OSError):
        if os.stat(region.path).st_ino == region.inode:
            return region.path
    # A result may be read when the worker has exited, and its descriptors with it.
    return None if returning else _path_of_descriptor(region)


def _path_of_descriptor(region: Region) -> str | None:
    """Return a path to the file of *region*, which has no name, by a descriptor of this process."""
    folder = f"/proc/{os.getpid()}/fd"
    with suppress(OSError):
        for number in os.listdir(folder):
            path = f"{folder}/{number}"
            with suppress(OSError):
                same = os.stat(path).st_ino == region.inode
                if same and _name(os.readlink(path)) == _name(region.path):
                    return path
    return None


def _name(path: str) -> str:
    return path.removesuffix(DELETED)  # its name may have been removed since we looked


def _found(
    obj: Any, owner: Any, address: int, *, writable: bool, returning: bool
) -> tuple[Place, int] | None:
    """Return the place of the memory of *obj*, and where *address* is in it.

    Returns:
        `None` if a copy is right.

    Raises:
        pickle.PicklingError: A copy would lose what a task writes, and the place is not known.
    """
    region = _region_at(address, owner)
    if region is None and is_numpy_array(type(obj)):
        region = _region_of_memmap(obj, owner)
    if region is not None:
        if not region.is_shared:
            return None
        writable = writable and region.writable
        place = _place_of(region, writable=writable, returning=returning)
        if place is not None and _can_be_rebuilt(obj):
            return place, address - region.start
    # A result is the caller's alone: memory that a task has made for itself is copied.
    if writable and not returning:
        kind = type(obj).__qualname__
        raise pickle.PicklingError(
            f"a writable {kind} over shared memory (SharedMemory, mmap, RawArray) that other "
            "processes cannot find"
        )
    return None


def _can_be_rebuilt(obj: Any) -> bool:
    """Return whether *obj* is of a class whose objects are rebuilt here, not by their own way."""
    if not is_numpy_array(type(obj)):
        return True
    numpy = sys.modules["numpy"]
    return type(obj) in {numpy.ndarray, numpy.memmap, numpy.recarray, numpy.matrix}


# ── how it is rebuilt ─────────────────────────────────────────────────────────────────────────────

_opened: weakref.WeakValueDictionary[Place, mmap.mmap] = weakref.WeakValueDictionary()


def open_place(place: tuple[Any, ...]) -> mmap.mmap:
    """Map a `Place`; all objects in this process that show the same place share one mapping."""
    key = Place(*place)
    if (known := _opened.get(key)) is None:
        known = _opened[key] = new_mapping(key)
    return known


def new_mapping(place: tuple[Any, ...], position: int = 0) -> mmap.mmap:
    """Map a `Place`, and go to *position* in it."""
    path, inode, offset, length, writable = place
    fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        if os.fstat(fd).st_ino != inode:
            raise FileNotFoundError(f"{path} is not the file that was mapped by the sender")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        mapped = mmap.mmap(fd, length, access=access, offset=offset)
    finally:
        os.close(fd)
    mapped.seek(position)
    return mapped


def reduce_mapping(mapped: mmap.mmap, *, returning: bool) -> tuple[Any, ...]:
    """Return how to map the memory of *mapped* again."""
    with memoryview(mapped) as view:
        found = _found(
            mapped, mapped, _address_of(view), writable=not view.readonly, returning=returning
        )
    if found is None:
        raise pickle.PicklingError("a private mmap cannot travel; send its bytes: mapped[:]")
    place, begin = found
    own = place._replace(offset=place.offset + begin, length=len(mapped))
    return new_mapping, (tuple(own), mapped.tell())


def reduce_mapped_view(view: memoryview, *, returning: bool) -> Any:
    """Return how to show the same memory as *view*; `NotImplemented` if a copy is right."""
    owner = _owner_of(view)
    if not view.nbytes or not _may_be_shared(owner):
        return NotImplemented
    if not view.c_contiguous:
        raise pickle.PicklingError("a memoryview of parts of shared memory cannot travel")
    if view.format not in NATIVE_FORMATS:
        return _reduce_view_of_all(view)
    address, writable = _address_of(view), not view.readonly
    found = _found(view, owner, address, writable=writable, returning=returning)
    if found is None:
        return NotImplemented
    place, begin = found
    return new_mapped_view, (tuple(place), begin, view.nbytes, view.format, view.shape)


NATIVE_FORMATS: Final = frozenset("?cbBhHiIlLqQnNfdeP")
"""Formats of memory views that can be made from bytes."""


def _reduce_view_of_all(view: memoryview) -> tuple[Any, ...]:
    """Return how to make *view* again, which has a format of its lender, from this lender.

    Raises:
        pickle.PicklingError: It does not show all that the lender has.
    """
    with memoryview(view.obj) as whole:
        if (whole.format, whole.shape) == (view.format, view.shape):
            return memoryview, (view.obj,)
    raise pickle.PicklingError(
        f"a memoryview of a part of shared memory with format {view.format!r} cannot travel"
    )


def new_mapped_view(
    place: tuple[Any, ...], begin: int, length: int, item: str, shape: tuple[int, ...]
) -> memoryview:
    """Return a view of the memory at a `Place`, from *begin*, with the given format and shape."""
    view = memoryview(open_place(place))[begin : begin + length]
    if (view.format, view.shape) == (item, shape):
        return view
    return view.cast("B").cast(item, shape)  # type: ignore[call-overload,no-any-return]


def reduce_mapped_array(array: Any, *, returning: bool) -> Any:
    """Return how to show the same memory as *array*; `NotImplemented` if a copy is right."""
    if array.base is None or not array.size or not _may_be_shared(owner := _owner_of(array)):
        return NotImplemented
    address = array.__array_interface__["data"][0]
    writable = array.flags.writeable
    found = _found(array, owner, address, writable=writable, returning=returning)
    if found is None:
        return NotImplemented
    place, begin = found
    attributes = None
    if type(array) is sys.modules["numpy"].memmap:
        attributes = {"filename": array.filename, "mode": "r+" if place.writable else "r"}
    layout = (array.dtype, array.shape, begin, array.strides)
    return new_mapped_array, (tuple(place), layout, attributes, type(array))


def new_mapped_array(
    place: tuple[Any, ...],
    layout: tuple[Any, ...],
    attributes: dict[str, Any] | None,
    kind: Any,
) -> Any:
    """Return an array over the memory at a `Place`.

    Args:
        place: Where the memory is.
        layout: Data type, shape, first byte, strides.
        attributes: Those of a `numpy.memmap`; `None` for another array.
        kind: NumPy's class of the array.
    """
    import numpy as np

    dtype, shape, begin, strides = layout
    mapped = open_place(place)
    array: Any = np.ndarray.__new__(np.ndarray, shape, dtype, mapped, begin, strides)
    if kind is not np.ndarray:
        array = array.view(kind)
    if attributes is not None:
        vars(array).update(attributes, _mmap=mapped, offset=Place(*place).offset + begin)
    return array


def reduce_mapped_ctypes(obj: Any, *, returning: bool) -> Any:
    """Return how to show the same memory as *obj*; `NotImplemented` if a copy is right."""
    if not _may_be_shared(owner := _owner_of(obj)):
        return NotImplemented
    address = ctypes.addressof(obj)
    found = _found(obj, owner, address, writable=True, returning=returning)
    if found is None:
        return NotImplemented
    place, begin = found
    return new_mapped_ctypes, (type(obj), tuple(place), begin)


def new_mapped_ctypes(kind: Any, place: tuple[Any, ...], begin: int) -> Any:
    """Return an object of *kind* over the memory at a `Place`."""
    return kind.from_buffer(open_place(place), begin)


def reduce_mapped_tensor(tensor: Any, *, returning: bool) -> Any:
    """Return how to show the same memory as *tensor*; `NotImplemented` if a copy is right."""
    if not _may_be_shared(tensor):
        return NotImplemented
    array = tensor.detach().numpy()
    address = array.__array_interface__["data"][0]
    if (
        not array.size
        or (found := _found(tensor, tensor, address, writable=True, returning=returning)) is None
    ):
        return NotImplemented
    place, begin = found
    layout = (array.dtype, array.shape, begin, array.strides)
    is_parameter = isinstance(tensor, sys.modules["torch"].nn.Parameter)
    return new_mapped_tensor, (tuple(place), layout, is_parameter, tensor.requires_grad)


def new_mapped_tensor(
    place: tuple[Any, ...], layout: tuple[Any, ...], is_parameter: bool, requires_grad: bool
) -> Any:
    """Return a tensor over the memory at a `Place`."""
    torch: Any = import_module("torch")
    tensor = torch.from_numpy(new_mapped_array(place, layout, None, import_module("numpy").ndarray))
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


def _address_of(view: memoryview) -> int:
    """Return the address of the first byte of *view*, which may be read-only."""
    buffer = (ctypes.c_void_p * 32)()  # a Py_buffer, which begins with the address
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), buffer, 0)
    try:
        return buffer[0] or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(buffer)
