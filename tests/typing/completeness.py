"""Checks that every public symbol has a type that all type checkers infer alike.

Modules below `parallel_facade.backends.process.starting` derive from `multiprocess`, which has no
types. Nothing of them is exported by a public module.
"""

import json
import subprocess
import sys

UNTYPED = "parallel_facade.backends.process.starting."


def main() -> str:
    """Return what is wrong, as text; empty for nothing."""
    command = ["pyright", "--verifytypes", "parallel_facade", "--ignoreexternal", "--outputjson"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
    symbols = [one for one in found["typeCompleteness"]["symbols"] if one["isExported"]]
    bad = [one for one in symbols if not one["isTypeKnown"] or one["isTypeAmbiguous"]]
    bad = [one for one in bad if not one["name"].startswith(UNTYPED)]
    print(f"{len(symbols)} public symbols, {len(bad)} without a known type")
    return "\n".join(
        f"{one['name']}: {note['message']}" for one in bad for note in one["diagnostics"]
    )


if __name__ == "__main__":
    sys.exit(main())
