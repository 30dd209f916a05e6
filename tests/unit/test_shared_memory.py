"""Shared and mapped segments within one process: who sees what, and when memory is used again."""

import gc
import os
import resource
from collections import deque

import numpy
import pytest

from parallel_facade._common.call_ids import new_call_id
from parallel_facade._serialization.buffers import shared_memory as _segments
from parallel_facade._serialization.buffers.placer import MOST_SEGMENTS
from parallel_facade._serialization.buffers.shared_memory import (
    PLACED_BYTES,
    MappedSegment,
    SegmentPool,
)
from parallel_facade._serialization.encoder import Encoder, decode

pytestmark = pytest.mark.skipif(not _segments.CAN_SHARE, reason="needs memfd_create")

SIZE = 2 * PLACED_BYTES


@pytest.fixture
def segment_pool():
    segment_pool = SegmentPool()
    yield segment_pool
    segment_pool.close()


def filled_with(byte, size=SIZE):
    return memoryview(bytes([byte]) * size)


def borrow(segment, returned):
    return MappedSegment(os.dup(segment.fd), segment.number, segment.size, returned)


def test_a_borrower_sees_the_buffer_and_changes_it_for_itself_alone(segment_pool):
    segment = segment_pool.place(filled_with(1))
    first, second = (borrow(segment, deque()).open() for _ in range(2))

    first[0] = 9

    assert (first[0], second[0], len(second)) == (9, 1, SIZE)
    assert second == filled_with(1)


def test_a_loan_is_returned_when_nothing_refers_to_its_memory(segment_pool):
    segment, returned = segment_pool.place(filled_with(1)), deque()
    array = numpy.frombuffer(borrow(segment, returned).open(), dtype="u1")[10:20]
    gc.collect()
    assert not returned

    del array

    assert [tuple(one) for one in returned] == [(segment.number, False)]


def test_a_loan_that_nobody_opens_is_returned_too(segment_pool):
    segment, returned = segment_pool.place(filled_with(1)), deque()

    borrow(segment, returned)

    assert [tuple(one) for one in returned] == [(segment.number, False)]


def test_memory_is_filled_again_when_its_segment_is_gone(segment_pool):
    segment = segment_pool.place(filled_with(1))
    inode, number = os.fstat(segment.fd).st_ino, segment.number
    del segment

    again = segment_pool.place(filled_with(2, SIZE - 1))

    assert os.fstat(again.fd).st_ino == inode
    assert again.number != number
    assert borrow(again, deque()).open() == filled_with(2, SIZE - 1)


def test_the_smallest_that_fits_is_filled_again_and_of_those_the_last(segment_pool):
    sizes = [3 * SIZE, SIZE, SIZE, 2 * SIZE]
    held = [segment_pool.place(filled_with(1, size)) for size in sizes]
    inodes = [os.fstat(segment.fd).st_ino for segment in held]
    while held:
        del held[0]

    found = [segment_pool.place(filled_with(2)) for _ in range(4)]

    order = [inodes.index(os.fstat(one.fd).st_ino) for one in found[:3]]
    assert order == [2, 1, 3]
    assert os.fstat(found[3].fd).st_ino not in inodes, "what is far larger is left for others"


def test_memory_is_not_filled_again_while_its_segment_is_there(segment_pool):
    first = segment_pool.place(filled_with(1))
    second = segment_pool.place(filled_with(2))

    assert os.fstat(first.fd).st_ino != os.fstat(second.fd).st_ino
    assert borrow(first, deque()).open() == filled_with(1)


def test_spoilt_memory_is_not_filled_again(segment_pool):
    segment = segment_pool.place(filled_with(1))
    kept = os.dup(segment.fd)
    segment.must_not_reuse = True
    del segment

    again = segment_pool.place(filled_with(2))

    assert os.fstat(again.fd).st_ino != os.fstat(kept).st_ino
    os.close(kept)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_copy_of_the_borrower_may_have_is_returned_as_spoilt(segment_pool):
    segment, returned = segment_pool.place(filled_with(1)), deque()
    mapped = borrow(segment, returned).open()
    if (pid := os.fork()) == 0:
        os._exit(0 if mapped[0] == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0

    del mapped

    assert [tuple(one) for one in returned] == [(segment.number, True)]


def test_no_more_is_kept_than_was_said():
    segment_pool = SegmentPool(kept_bytes=SIZE)
    segments = [segment_pool.place(filled_with(1)) for _ in range(3)]
    numbers = {segment.fd for segment in segments}

    del segments
    segment_pool.place(filled_with(1, 1))

    assert sum(is_shared_memory(fd) for fd in numbers) <= 2  # kept, and the last one
    segment_pool.close()


def is_shared_memory(fd):
    try:
        return "memfd:parallel_facade" in os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False


def test_a_closed_shelf_keeps_nothing():
    segment_pool = SegmentPool()
    segment = segment_pool.place(filled_with(1))
    fds = [segment.fd]
    segment_pool.place(filled_with(1))

    segment_pool.close()
    del segment

    assert not any(map(is_shared_memory, fds))


def test_without_descriptors_a_buffer_is_not_placed(segment_pool):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert segment_pool.place(filled_with(1)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_that_cannot_be_mapped_is_copied(segment_pool, monkeypatch):
    segment, returned = segment_pool.place(filled_with(3)), deque()
    mapped_segment = borrow(segment, returned)
    monkeypatch.setattr(_segments, "_mapped", lambda *_: None)

    copied = mapped_segment.open()
    del mapped_segment

    assert copied == filled_with(3)
    copied[0] = 1
    assert len(returned) == 1


def encoded(obj, segment_pool, *, once=False):
    encoder = Encoder(new_call_id(), "dill", segment_pool=segment_pool)
    if once:
        encoder.deduplicate_buffers()
    return encoder, encoder.encode(obj, "it")


def lent(payload):
    return tuple(borrow(segment, deque()) for segment in payload.segments)


def test_an_array_arrives_as_it_was_and_may_be_changed(segment_pool):
    array = numpy.arange(SIZE // 8, dtype="i8")
    _, payload = encoded([array, array[::2], "rest"], segment_pool)
    array[0] = -1

    found, half, rest = decode(payload.data, lent(payload))

    assert len(payload.data) < PLACED_BYTES * 2
    assert (found[:3].tolist(), half[:2].tolist(), rest) == ([0, 1, 2], [0, 2], "rest")
    found[0] = 5
    assert half[0] == 0


def test_an_array_that_cannot_be_written_to_arrives_so(segment_pool):
    array = numpy.zeros(SIZE // 8)
    array.flags.writeable = False
    _, payload = encoded(array, segment_pool)

    assert not decode(payload.data, lent(payload)).flags.writeable


def test_an_array_in_many_payloads_is_placed_once_if_nothing_changes_it(segment_pool):
    array = numpy.zeros(SIZE // 8)
    encoder, first = encoded((1, array), segment_pool, once=True)
    second = encoder.encode((2, array), "it")

    assert first.segments == second.segments


def test_an_array_that_may_change_in_between_is_placed_each_time(segment_pool):
    array = numpy.zeros(SIZE // 8)
    encoder, first = encoded(array, segment_pool)
    array[:] = 1
    second = encoder.encode(array, "it")

    assert decode(first.data, lent(first))[0] == 0
    assert decode(second.data, lent(second))[0] == 1


def test_an_array_in_the_place_of_one_that_is_gone_is_not_taken_for_it(segment_pool):
    encoder, first = encoded(numpy.zeros(SIZE // 8), segment_pool, once=True)
    for value in range(1, 20):  # memory, and ids, are used again
        payload = encoder.encode(numpy.full(SIZE // 8, float(value)), "it")
        assert decode(payload.data, lent(payload))[0] == value


def test_no_more_segments_than_a_message_can_take(segment_pool):
    arrays = [numpy.full(PLACED_BYTES // 8, float(n)) for n in range(MOST_SEGMENTS + 3)]
    _, payload = encoded(arrays, segment_pool)

    assert len(payload.segments) == MOST_SEGMENTS
    assert [array[0] for array in decode(payload.data, lent(payload))] == list(range(len(arrays)))
