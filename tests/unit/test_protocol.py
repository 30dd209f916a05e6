"""Messages on a channel, in whatever pieces they arrive."""

import socket

import pytest

from parallel_facade._serialization.buffers.shared_memory import SegmentPool
from parallel_facade.backends.process.channel import Channel
from parallel_facade.backends.process.protocol import (
    CAN_RECEIVE_DESCRIPTORS,
    Message,
    MessageReader,
    MessageType,
    send_message,
)
from parallel_facade.backends.process.starting.lockless_queue import LocklessQueue


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_a_frame_arrives_whole_from_any_pieces(pair):
    left, right = pair
    send_message(left, MessageType.TASK, 7, b"body")
    send_message(left, MessageType.READY)
    stream = right.recv(1 << 16)
    right.setblocking(False)
    reader = MessageReader(right)
    frames = []

    for byte in stream:
        left.send(bytes([byte]))
        if (frame := reader.read()) is not None:
            frames.append(frame)

    assert frames == [
        Message(MessageType.TASK, 7, bytearray(b"body")),
        Message(MessageType.READY, 0, bytearray()),
    ]
    assert reader.read() is None


def test_messages_that_arrive_together_are_received_together(pair):
    left, right = pair
    for number in range(100):
        send_message(left, MessageType.RECORD, number, b"x" * number * 3)
    reader = MessageReader(right)
    right.setblocking(False)

    messages = [reader.read() for _ in range(100)]
    assert [message.number for message in messages] == list(range(100))
    assert [len(message.body) for message in messages] == [3 * number for number in range(100)]
    assert reader.read() is None
    messages[1].body[:] = b"yyy"
    assert bytes(messages[2].body) == b"x" * 6, "no message has another one's memory"


@pytest.mark.skipif(not CAN_RECEIVE_DESCRIPTORS, reason="no descriptors can be sent here")
def test_each_message_has_its_own_segments_when_several_arrive_together(pair):
    left, right = pair
    pool = SegmentPool()
    sizes = [200_000, 300_000, 400_000]
    segments = [pool.place(memoryview(bytes([at]) * size)) for at, size in enumerate(sizes)]
    send_message(left, MessageType.TASK, 1, b"first", (segments[0],))
    send_message(left, MessageType.TASK, 2, b"none")
    send_message(left, MessageType.TASK, 3, b"both", (segments[1], segments[2]))
    reader = MessageReader(right)

    first, none, both = [reader.read() for _ in range(3)]
    found = [[segment.size for segment in one.mapped_segments] for one in (first, none, both)]
    assert found == [[segments[0].size], [], [segments[1].size, segments[2].size]]
    assert [bytes(one.body) for one in (first, none, both)] == [b"first", b"none", b"both"]
    assert reader._fds == []


@pytest.mark.parametrize("sent", [b"", b"\x01\x02"])
def test_the_end_of_the_channel_is_an_end_also_in_mid_frame(pair, sent):
    left, right = pair
    left.sendall(sent)
    left.close()

    with pytest.raises(EOFError):
        MessageReader(right).read()


def test_a_link_never_waits_for_a_full_channel(pair):
    left, right = pair
    link = Channel(left, lambda: None)
    body = bytes(range(256)) * 40_000

    link.queue(MessageType.TASK, 1, b"head", body)
    link.flush()
    assert link.has_unsent
    reader = MessageReader(right)
    right.setblocking(False)
    while (frame := reader.read()) is None:
        link.flush()

    assert frame == Message(MessageType.TASK, 1, bytearray(b"head" + body))
    assert not link.has_unsent
    link.release()


def test_a_link_to_a_worker_that_is_gone_keeps_nothing(pair):
    left, right = pair
    link = Channel(left, lambda: None)
    right.close()

    for _ in range(3):
        link.queue(MessageType.FORGET, 1)
        link.flush()

    assert not link.has_unsent
    link.release()


def test_a_queue_hands_each_message_to_one_reader_whole():
    queue = LocklessQueue()
    queue.put(("a", 1))
    queue.put(None)

    assert not queue.empty()
    assert [queue.get(), queue.get()] == [("a", 1), None]
    assert queue.empty()
    queue._writer.close()
    with pytest.raises(EOFError):
        queue.get()
    queue.close()
