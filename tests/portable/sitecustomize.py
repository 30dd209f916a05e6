"""Takes away what only Linux has, in every Python that finds this folder on its path.

What is left is what macOS has; so these are the roads that the library takes there. `make
test-portable` runs the suite like that.
"""

import fcntl
import importlib
import os
import select
import socket

ONLY_LINUX = {
    os: ["memfd_create", "pidfd_open", "sched_getaffinity", "eventfd", "waitid"],
    select: ["epoll"],
    socket: ["SOCK_SEQPACKET", "MSG_CMSG_CLOEXEC"],
    fcntl: ["F_SETSIG", "F_GETSIG"],
}

for module, names in ONLY_LINUX.items():
    for name in names:
        vars(module).pop(name, None)

# Not before: what it imports looks for all that once.
importlib.import_module("multiprocessing.util").abstract_sockets_supported = False
