"""What this process has: compared before and after, it tells what was left behind."""

import gc
import os
import threading
from contextlib import suppress

import psutil
from engines_here import started
from multiprocess import process

OURS = ("parallel_facade", "psm_", "pym-")
"""How names of shared memory begin: this package's, and the standard library's on Linux."""


class Resources:
    """Descriptors, threads, processes and shared memory at this moment."""

    def __init__(self):
        gc.collect()
        self.descriptors = _open_files()
        self.threads = {thread.name for thread in threading.enumerate()}
        self.processes = {str(one) for one in process.active_children()}
        self.children = _children()
        # Other programs of this machine put theirs beside it, MPI and joblib among them.
        self.shared = {name for name in os.listdir("/dev/shm") if name.startswith(OURS)}

    def added_to(self, before):
        """Return what there is now and was not *before*, or is more than before."""
        added = {name: vars(self)[name] - vars(before)[name] for name in vars(self)}
        if len(self.descriptors) <= len(before.descriptors):
            del added["descriptors"]  # numbers are used again, for other files
        return {name: things for name, things in added.items() if things}


def _children():
    """Return all descendants; of a cluster's processes those that nobody else has started."""
    direct = [one for one in psutil.Process().children() if one.pid not in started]
    found = set(direct)
    for child in direct:
        with suppress(psutil.NoSuchProcess):
            found.update(child.children(recursive=True))
    return found


def _open_files():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return found
