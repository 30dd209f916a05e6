"""The hosts of a Ray cluster: which are lost, and which has CPUs to spare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import ray

from parallel_facade.backends.engines.host_liveness import HostLiveness


class RayHosts:
    """What is known of the hosts since the last poll."""

    def __init__(self) -> None:
        self._liveness = HostLiveness()
        self._silent: set[str] = set()  # hosts that do not answer, but that Ray calls alive
        self._cpus: dict[str, int] = {}  # CPUs of each host that is neither dead nor silent

    @property
    def cpus(self) -> int:
        """How many CPUs there are on hosts that are neither dead nor silent."""
        return sum(self._cpus.values())

    def poll(self, running: set[str | None]) -> tuple[set[str], bool]:
        """Poll the hosts on which tasks run.

        Args:
            running: Their ids.

        Returns:
            The ids of lost hosts, and whether one of them has just fallen silent.
        """
        nodes = {node["NodeID"]: node for node in ray.nodes()}
        dead = {name for name, node in nodes.items() if not node["Alive"]}
        asked = (nodes.keys() - dead) & (running | self._silent)
        silent = self._liveness.silent_hosts({name: _address_of(nodes[name]) for name in asked})
        is_new, self._silent = bool(silent - self._silent), silent
        lost = dead | silent
        self._cpus = {
            name: cpus
            for name, node in nodes.items()
            if name not in lost and (cpus := int(node["Resources"].get("CPU", 0)))
        }
        return lost, is_new

    def least_loaded_host(self, hosts_of_tasks: Iterable[str | None]) -> str | None:
        """Return a host for a task if Ray might choose a host that is cut off; else `None`.

        1. Ray   assumes that a cut-off host is as free as it was, and asks it for a worker
        2. host  does not answer, and Ray waits for two minutes
        """
        if not self._silent:
            return None
        load, cpus = Counter(hosts_of_tasks), self._cpus
        return min(cpus, key=lambda one: load[one] / cpus[one], default=None)

    def close(self) -> None:
        """End all polling."""
        self._liveness.close()


def _address_of(node: dict[str, Any]) -> tuple[str, int]:
    return str(node["NodeManagerAddress"]), int(node["NodeManagerPort"])
