"""Who can talk to workers and to us: nobody but who was started for it."""

import os
import pickle
import socket
import stat

import psutil
import pytest
from leftovers import Resources

from parallel_facade import Pool, WorkerCrashedError
from parallel_facade.backends.process.protocol import (
    HEADER,
    MAGIC,
    GarbageError,
    MessageReader,
    MessageType,
)

PATIENCE = 60


def family():
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def inodes_of(processes):
    found = set()
    for process in processes:
        for fd in os.listdir(f"/proc/{process.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{process.pid}/fd/{fd}")
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def listeners():
    network = [c for process in family() for c in process.net_connections() if c.fd != -1]
    return {c.laddr for c in network if c.status == "LISTEN"}


def test_nothing_listens_and_nothing_has_a_name(start_method, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shared, others = Resources().shared, inodes_of(family())
    listening = listeners()
    with Pool(workers=2, start_method=start_method) as pool:
        pool.pmap(abs, [1, 2], chunksize=1)
        ours = inodes_of(family()) - others

        assert ours, "the channels are sockets"
        assert listeners() - listening == set()
        with open("/proc/net/unix") as table:
            next(table)
            rows = [line.split() for line in table]
        assert [row for row in rows if row[6] in ours and len(row) > 7] == []  # a name
        assert os.listdir(tmp_path) == []
        assert Resources().shared - shared == set()


def test_the_journal_has_no_name_and_is_the_users_alone(start_method):
    before = Resources()
    with Pool(workers=1, start_method=start_method) as pool:
        pid = pool.submit(os.getpid).result(PATIENCE)

        assert stat.S_IMODE(os.stat(f"/proc/{pid}/fd").st_mode) & 0o077 == 0
        opened = Resources().descriptors - before.descriptors
        assert [link for _, link in opened if "/dev/shm" in link] == []


class Opened:
    """Notes that it was unpickled."""

    was_opened = False

    def __reduce__(self):
        return _note, ()


def _note():
    Opened.was_opened = True


GARBAGE = {
    "nothing like a message": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100,
    "an unknown kind": HEADER.pack(MAGIC, 99, 0, 0, 0),
    "a report of no task": HEADER.pack(MAGIC, MessageType.REPORT, 12345, 3, 0) + b"abc",
    "a pickle of a report of no task": HEADER.pack(
        MAGIC, MessageType.REPORT, 1 << 60, len(pickle.dumps(Opened())), 0
    )
    + pickle.dumps(Opened()),
    "a length beyond all memory": HEADER.pack(MAGIC, MessageType.REPORT, 1, (1 << 64) - 1, 0),
    "a buffer without its descriptor": HEADER.pack(MAGIC, MessageType.REPORT, 1, 16, 1) + bytes(16),
    "more buffers than there is room for": HEADER.pack(MAGIC, MessageType.REPORT, 1, 16, 9)
    + bytes(16),
}


def channel_of_this_worker():
    from multiprocess import process

    return process.current_process().channel


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_on_a_channel_is_refused_and_the_pool_goes_on(start_method, garbage, caplog):
    def write_garbage(x):
        if x == 1:
            channel_of_this_worker().sendall(GARBAGE[garbage])
        return x

    with Pool(workers=2, start_method=start_method) as pool:
        results = pool.pmap(write_garbage, range(4), return_exceptions=True, timeout=PATIENCE)

        assert [results[0], *results[2:]] == [0, 2, 3]
        assert type(results[1]) in (WorkerCrashedError, int)
        assert pool.pmap(abs, range(-8, 0), chunksize=1) == list(range(8, 0, -1))
    assert not Opened.was_opened
    assert "cannot be read" in caplog.text


def test_half_a_message_is_the_end_of_its_worker_only(start_method):
    def write_half(x):
        if x == 1:
            channel_of_this_worker().sendall(HEADER.pack(MAGIC, MessageType.REPORT, 1, 100, 0)[:7])
            os._exit(4)
        return x

    with Pool(workers=2, start_method=start_method) as pool:
        results = pool.pmap(write_half, range(4), return_exceptions=True, timeout=PATIENCE)

        assert [results[0], *results[2:]] == [0, 2, 3]
        assert type(results[1]) is WorkerCrashedError


@pytest.mark.parametrize("data", [data[: HEADER.size] for data in GARBAGE.values()][:2])
def test_a_reader_stops_at_what_is_no_header(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data.ljust(HEADER.size))
        with pytest.raises(GarbageError, match="is not the header of a message"):
            MessageReader(ours).read()


def test_a_child_that_a_task_forked_has_no_say(start_method):
    def fork_and_both_return(x):
        if x == 1:
            os.fork()  # and both come back from the task
        return x

    with Pool(workers=1, start_method=start_method) as pool:
        assert pool.pmap(fork_and_both_return, range(4), chunksize=1, timeout=PATIENCE) == [
            0, 1, 2, 3,
        ]  # fmt: skip
        assert pool.pmap(abs, [-1]) == [1]
