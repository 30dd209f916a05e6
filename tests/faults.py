"""Faults that tests inject into workers, and objects that bring them in at a chosen moment."""

import faulthandler
import os
import signal
import sys
import threading


class Fault(Exception):
    """What the fault called "raise" raises."""


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(7)


def segfault():
    faulthandler.disable()  # its report would be noise: this death is meant
    os.kill(os.getpid(), signal.SIGSEGV)


def hang():
    threading.Event().wait()


def fail():
    raise Fault


FAULTS = {"kill": kill, "exit": leave, "segfault": segfault, "hang": hang, "raise": fail}
DEADLY = {"kill": "SIGKILL", "exit": "exit code 7", "segfault": "SIGSEGV"}
"""Those that end the worker, and how the error calls its death."""


class FaultWhenRebuilt:
    """Brings *name* in where it is unpickled, in any process but the one that made it."""

    def __init__(self, name):
        self.name = name
        self.made_in = os.getpid()

    def __reduce__(self):
        return _rebuild, (self.name, self.made_in)


def _rebuild(name, made_in):
    if os.getpid() != made_in:
        FAULTS[name]()
    return FaultWhenRebuilt(name)


class FaultWhenPickled:
    """Brings *name* in where it is pickled."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        FAULTS[self.name]()
        return FaultWhenPickled, (self.name,)


def fault_while_sending(name):
    """Return much data, and bring *name* in while it is on its way to the caller."""
    main = threading.main_thread().ident
    threading.excepthook = lambda _: None

    def strike():
        while not _is_sending(sys._current_frames()[main]):
            pass
        os.kill(os.getpid(), signal.SIGSTOP) if name == "hang" else FAULTS[name]()

    threading.Thread(target=strike, daemon=True).start()
    return bytes(64 << 20)


def _is_sending(frame):
    while frame is not None:
        if frame.f_code.co_name == "send_frame":
            return True
        frame = frame.f_back
    return False


def fault_at_exit(name):
    """Bring *name* in when this process ends."""
    from multiprocess.util import Finalize

    Finalize(None, FAULTS[name], exitpriority=10)


def fault_when_told(name, gate):
    """Bring *name* in, in a thread beside the tasks, when *gate* opens."""
    threading.excepthook = lambda _: None
    arrived = threading.Event()

    def strike():
        arrived.set()
        gate.pass_through()
        FAULTS[name]()

    threading.Thread(target=strike, daemon=True).start()
    arrived.wait()
    return os.getpid()
