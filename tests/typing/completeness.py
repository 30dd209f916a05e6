"""Checks that every public symbol has a type that all type checkers infer alike.

The modules of the process back-end are typed for mypy and pyright, which infer the attributes of
their classes. No public module exports them, and their base, `multiprocess`, has no types.
"""

import json
import subprocess
import sys

INTERNAL = "parallel_facade.backends.process."


def main() -> str:
    """Return what is wrong, as text; empty for nothing."""
    command = ["pyright", "--verifytypes", "parallel_facade", "--ignoreexternal", "--outputjson"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
    symbols = [one for one in found["typeCompleteness"]["symbols"] if one["isExported"]]
    bad = [one for one in symbols if not one["isTypeKnown"] or one["isTypeAmbiguous"]]
    bad = [one for one in bad if not one["name"].startswith(INTERNAL)]
    print(f"{len(symbols)} public symbols, {len(bad)} without a known type")
    return "\n".join(
        f"{one['name']}: {note['message']}" for one in bad for note in one["diagnostics"]
    )


if __name__ == "__main__":
    sys.exit(main() or None)
