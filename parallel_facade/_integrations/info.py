"""The output of ``python -m parallel_facade info`` and ``... backends``."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._configuration.backend_registry import BUILT_IN, load_backend, plug_ins
from parallel_facade._configuration.cpu_count import cpu_count, cpu_limits, is_gil_on
from parallel_facade._configuration.setting_table import START_METHODS
from parallel_facade._configuration.settings import (
    default_start_method,
    get_config,
    sources,
)

PACKAGES = ("parallel-facade", "pathos", "dill", "multiprocess", "tqdm", "numpy")


def info_report() -> str:
    """Return versions, CPUs, start methods, back-ends and settings as text."""
    sections = {
        "Versions": _versions(),
        f"CPUs: {cpu_count()} usable, the smallest of": _cpus(),
        "Start methods": _start_methods(),
        "Back-ends": _backends(),
        "Settings in force": _settings(),
    }
    return "\n\n".join(
        "\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items()
    )


def _versions() -> Iterator[str]:
    yield f"{'Python':16} {sys.version.split()[0]} on {platform.platform()}"
    yield f"{'GIL':16} {'on' if is_gil_on() else 'off: threads run Python code at the same time'}"
    for package in PACKAGES:
        try:
            yield f"{package:16} {version(package)}"
        except PackageNotFoundError:
            yield f"{package:16} not installed"


def _cpus() -> Iterator[str]:
    for limit in cpu_limits():
        yield f"{limit.cpus:5}  {limit.reason}"


def _start_methods() -> Iterator[str]:
    for method in START_METHODS:
        yield f"{method}{' (default)' if method == default_start_method() else ''}"


def _backends() -> Iterator[str]:
    for name in [*BUILT_IN, *plug_ins()]:
        try:
            load_backend(name)
        except ConfigurationError as exc:
            yield f"{name:10} {_one_line(str(exc).splitlines())}"
        else:
            yield f"{name:10} available"


def _one_line(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())


def _settings() -> Iterator[str]:
    places = sources()
    for name, value in get_config()._asdict().items():
        yield f"{name:14} {value!r:14} {places[name]}"


ABILITIES: Final = {
    "survives_crashes": "a worker that dies costs only what it held",
    "tells_what_ran": "only the item that it ran is lost, and its exit code is known",
    "may_run_again": "after a crash the engine runs tasks again by itself",
    "can_time_tasks": "`task_timeout`",
    "can_stop_running_task": "a running task can be stopped",
    "has_private_state": "`seed`",
    "can_initialize": "`initializer`",
    "can_recycle": "`max_tasks_per_worker`, `max_memory_per_worker`",
    "can_limit_threads": "`inner_threads`",
    "can_take_back": "an idle worker gets what a busy one has not begun",
    "is_remote": "on other machines",
}
"""The meaning of each capability, in the words of users."""


def abilities_report(names: Iterable[str] | None = None) -> str:
    """Return a Markdown table of what the back-ends *names* can do, if they are installed.

    Args:
        names: Names of back-ends; `None` means all known back-ends.
    """
    found = {}
    for name in sorted({*BUILT_IN, *plug_ins()} if names is None else names):
        with suppress(ConfigurationError):  # it is not installed
            found[name] = load_backend(name).capabilities
    lines = [f"| | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for ability, meaning in ABILITIES.items():
        marks = ("yes" if getattr(can, ability) else "–" for can in found.values())
        lines.append(f"| {meaning} | {' | '.join(marks)} |")
    return "\n".join(lines)
