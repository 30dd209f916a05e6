"""The number of CPUs that this process may really use."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")


class CpuLimit(NamedTuple):
    """A reason why the process may use at most *cpus* CPUs."""

    cpus: int
    reason: str


def is_gil_on() -> bool:
    """Return whether only one thread at a time runs Python code; false in free-threaded Python."""
    is_enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is None or is_enabled()


def cpu_count() -> int:
    """Return the number of CPUs this process may use; at least 1.

    The smallest of: the machine's CPUs, the process's affinity mask, the quota of its control
    group (rounded up) and, on Python 3.13 or later, ``-X cpu_count`` or ``PYTHON_CPU_COUNT``.
    `os.cpu_count()` knows only the first of these, and would start 64 workers in a container that
    may use two CPUs.

    Source of the quota: the Linux kernel's cgroup-v2 documentation, file ``cpu.max``.

    >>> cpu_count() >= 1
    True
    """
    return min(limit.cpus for limit in cpu_limits())


def cpu_limits() -> list[CpuLimit]:
    """Return every limit on the CPUs of this process, the machine's own first."""
    limits = [CpuLimit(os.cpu_count() or 1, "CPUs of the machine")]
    if hasattr(os, "sched_getaffinity"):
        limits.append(CpuLimit(len(os.sched_getaffinity(0)), "CPUs in the affinity mask"))
    if (quota := cgroup_quota(CGROUP_MEMBERSHIP, CGROUP_ROOT)) is not None:
        limits.append(CpuLimit(max(1, math.ceil(quota)), f"control group quota of {quota:g} CPUs"))
    if (process_cpu_count := getattr(os, "process_cpu_count", None)) is not None:
        limits.append(CpuLimit(process_cpu_count() or 1, "os.process_cpu_count()"))
    return limits


def cgroup_quota(membership: Path, root: Path) -> float | None:
    """Return the smallest CPU quota of the process's group and its parents up to *root*.

    Args:
        membership: The file that names the process's groups, such as ``/proc/self/cgroup``.
        root: Where the groups are mounted.

    Returns:
        Number of CPUs, possibly a fraction; `None` if no group sets a quota.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = [quota for line in lines for quota in _quotas_of(line, root)]
    return min(quotas, default=None)


def _quotas_of(line: str, root: Path) -> list[float]:
    """Return the quotas of the groups that one line of the membership file names."""
    _, controllers, group = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return []
    base = root / "cpu" if controllers else root
    read = _read_v1 if controllers else _read_v2
    here = base / group.lstrip("/")
    folders = [here, *here.parents]
    inside = [folder for folder in folders if folder == base or base in folder.parents]
    return [quota for folder in inside if (quota := read(folder)) is not None]


def _read_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _read_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
