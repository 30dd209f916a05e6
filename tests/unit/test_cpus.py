"""Counting CPUs in control groups of both versions."""

import os

import pytest

from parallel_facade import cpu_count
from parallel_facade._configuration.cpu_count import cgroup_quota, cpu_limits


@pytest.fixture
def groups(tmp_path):
    """Return a function that lays out groups and returns the quota found."""

    def quota(membership: str, files: dict[str, str]) -> float | None:
        for name, text in files.items():
            file = tmp_path / "root" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / "membership").write_text(membership)
        return cgroup_quota(tmp_path / "membership", tmp_path / "root")

    return quota


def test_version_2_takes_the_smallest_on_the_way_up(groups):
    files = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n", "cpu.max": "max 1\n"}

    assert groups("0::/a/b\n", files) == 1.5


def test_version_1(groups):
    files = {"cpu/box/cpu.cfs_quota_us": "400000\n", "cpu/box/cpu.cfs_period_us": "100000\n"}

    assert groups("3:memory:/x\n2:cpu,cpuacct:/box\n", files) == 4.0


def test_version_1_without_a_quota(groups):
    files = {"cpu/box/cpu.cfs_quota_us": "-1\n", "cpu/box/cpu.cfs_period_us": "100000\n"}

    assert groups("2:cpu:/box\n", files) is None


@pytest.mark.parametrize("text", ["", "max", "nonsense 1", "max 100000"])
def test_what_sets_no_quota(groups, text):
    assert groups("0::/\n", {"cpu.max": text}) is None


def test_no_groups_at_all(tmp_path):
    assert cgroup_quota(tmp_path / "missing", tmp_path) is None


def test_the_count_is_the_smallest_limit_and_never_above_the_machines():
    assert 1 <= cpu_count() == min(limit.cpus for limit in cpu_limits()) <= os.cpu_count()
