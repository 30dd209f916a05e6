"""What ``python -m parallel_facade info`` shows."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from parallel_facade._config import START_METHODS, get_config, sources
from parallel_facade._cpus import cpu_count, cpu_limits
from parallel_facade._errors import ConfigurationError
from parallel_facade._registry import BUILT_IN, load_backend, plug_ins

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
    for package in PACKAGES:
        try:
            yield f"{package:16} {version(package)}"
        except PackageNotFoundError:
            yield f"{package:16} not installed"


def _cpus() -> Iterator[str]:
    for limit in cpu_limits():
        yield f"{limit.cpus:5}  {limit.reason}"


def _start_methods() -> Iterator[str]:
    from parallel_facade.backends._launch import default_start_method

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
