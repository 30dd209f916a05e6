"""The command line: ``python -m parallel_facade demo``, ``... info`` and ``... backends``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from parallel_facade._common.errors import ConfigurationError
from parallel_facade._configuration.backend_registry import BUILT_IN
from parallel_facade._integrations.demo import demo_report
from parallel_facade._integrations.info import abilities_report, info_report


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
