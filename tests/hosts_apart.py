"""Two hosts on one machine: a network namespace with its own address, which can be cut off."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from engines_here import (
    RAY_TOKEN,
    SCRIPTS,
    await_true,
    dask_workers,
    free_port,
    listens,
    ray_hosts,
    running,
)


class FarHost(NamedTuple):
    """A host beside this one.

    Attributes:
        name: The namespace.
        near: This host's address on the line between them.
        far: Its address.
    """

    name: str
    near: str
    far: str

    def at(self, *command: str) -> tuple[str, ...]:
        """Return the command that runs *command* there."""
        return ("ip", "netns", "exec", self.name, *command)

    def cut_off(self) -> None:
        """Let nothing through any more: what is sent is lost, and nobody is told."""
        ip(*self.at("ip", "link", "set", "line", "down")[1:])


def ip(*arguments: str) -> None:
    """Run the tool `ip`."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def reason_for_one_host() -> str:
    """Return why there cannot be a second host here; empty if there can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "a network namespace needs root and the tool ip"
    name = f"pf-{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this machine allows no network namespaces"
    ip("netns", "delete", name)
    return ""


@contextmanager
def far_host() -> Iterator[FarHost]:
    """Make a host beside this one, which goes with its line."""
    number = secrets.randbelow(250)
    name, here = f"pf-{secrets.token_hex(3)}", f"pf-{secrets.token_hex(3)}"
    host = FarHost(name, f"10.213.{number}.1", f"10.213.{number}.2")
    ip("netns", "add", name)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", "line", "netns", name)
        ip("address", "add", f"{host.near}/24", "dev", here)
        ip("link", "set", here, "up")
        for arguments in (
            ("address", "add", f"{host.far}/24", "dev", "line"),
            ("link", "set", "line", "up"),
            ("link", "set", "lo", "up"),
        ):
            ip(*host.at("ip", *arguments)[1:])
        yield host
    finally:
        ip("netns", "delete", name)


@contextmanager
def dask_on_two_hosts(host: FarHost) -> Iterator[dict[str, str]]:
    """Start a scheduler and a worker here, and a worker there; give what finds them."""
    port = free_port()
    address = f"tcp://{host.near}:{port}"
    dask = (sys.executable, "-m", "dask")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        scheduler = (*dask, "scheduler", "--host", host.near, "--port", str(port))
        stack.enter_context(running(*scheduler, "--no-dashboard"))
        one = ("--nworkers", "1", "--nthreads", "1", "--local-directory", folder)
        worker = (*dask, "worker", address, *one, "--no-dashboard", "--host")
        stack.enter_context(running(*worker, host.near))
        stack.enter_context(running(*host.at(*worker, host.far)))
        await_true(lambda: dask_workers(address) == 2, "the Dask cluster on two hosts")
        yield {"DASK_SCHEDULER_ADDRESS": address}


@contextmanager
def ray_on_two_hosts(host: FarHost) -> Iterator[dict[str, str]]:
    """Start a Ray head here and a node there, a CPU each; give what finds them."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="ray-")
    ray = (str(SCRIPTS / "ray"), "start", "--disable-usage-stats", "--block")
    size = ("--num-cpus", "1", "--object-store-memory", str(200 << 20))
    head = ("--head", "--node-ip-address", host.near, "--port", str(port), "--temp-dir", folder)
    node = ("--address", f"{host.near}:{port}", "--node-ip-address", host.far)
    try:
        with running(*ray, *head, *size, "--include-dashboard", "false", env=RAY_TOKEN):
            await_true(lambda: listens(port, host.near), "the Ray head")
            # A folder of its own: in that which is there Ray would find it, and connect to it.
            own = (
                "unshare",
                "--mount",
                "sh",
                "-c",
                'mount -t tmpfs none "$0" && exec "$@"',
                folder,
            )
            with running(*host.at(*own, *ray, *node, *size), env=RAY_TOKEN):
                await_true(lambda: ray_hosts(f"{host.near}:{port}") == 2, "Ray on two hosts")
                yield {"RAY_ADDRESS": f"{host.near}:{port}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


TWO_HOSTS = {"dask": dask_on_two_hosts, "ray": ray_on_two_hosts}
