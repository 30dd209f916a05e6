"""Writes the table of settings into the reference, from the table in the package.

python docs/tables.py
"""

import inspect
from pathlib import Path

import parallel_facade
from parallel_facade._configuration.setting_table import SETTINGS

PAGE = Path(__file__).parent / "reference" / "configuration.md"
HEADER = """\
| setting | an argument of | environment variable | values | default |
|---|---|---|---|---|
"""
MAPS = ["pmap", "imap"]
CALLS = [*MAPS, "apply_async"]


def takers(name: str) -> str:
    """Return which public functions and classes take the setting *name* as an argument."""
    taking = {
        taker
        for taker in (*CALLS, "Pool")
        if name in inspect.signature(getattr(parallel_facade, taker)).parameters
    }
    options_of_pool = inspect.signature(parallel_facade.Pool).parameters
    if name == "backend" or not taking & set(CALLS):
        groups = [f"`{one}`" for one in (*CALLS, "Pool") if one in taking]
    else:
        groups = ["calls" if taking >= set(CALLS) else "maps"]
        groups += ["`Pool`"] if name in options_of_pool else []
    return ", ".join(groups) or "–"


def table() -> str:
    """Return the table of settings."""
    rows = [
        f"| `{name}` | {takers(name)} | `PARALLEL_FACADE_{name.upper()}` "
        f"| {setting.values} | {setting.default_text} |\n"
        for name, setting in SETTINGS.items()
    ]
    return HEADER + "".join(rows)


def with_table(page: str) -> str:
    """Return *page* with the table of today."""
    before, _, rest = page.partition(HEADER)
    return before + table() + "\n" + rest.partition("\n\n")[2]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
