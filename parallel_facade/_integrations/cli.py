"""The command line: ``python -m parallel_facade demo``, ``... info`` and ``... backends``."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
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
from parallel_facade._integrations.demo import demo_report

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in *arguments* (`None`: those of the process) and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "info":
            print(info_report())
            return 0
        if options.command == "backends":
            print(abilities_report())
            return 0
        report = demo_report(options.backends, workers=options.workers, limit=options.limit)
    except ConfigurationError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print(report.text)
    return 0 if report.agrees else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m parallel_facade", description="The parallel map for any Python function."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="show versions, CPUs, back-ends and the settings in force")
    commands.add_parser("backends", help="show what each installed back-end can do, as Markdown")
    demo = commands.add_parser(
        "demo", help="analyse the standard library's source once per back-end, and compare"
    )
    demo.add_argument(
        "--backends",
        nargs="+",
        default=["serial", "thread", "process"],
        metavar="NAME",
        help=f"which back-ends to run, of {', '.join(sorted(BUILT_IN))}; the first is the measure",
    )
    demo.add_argument("--workers", type=int, help="workers at most; default: the usable CPUs")
    demo.add_argument("--limit", type=int, help="analyse this many files only")
    return parser
