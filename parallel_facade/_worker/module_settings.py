"""Settings of modules of the standard library that tasks see as the caller has set them.

Each pair of functions is a part of `inherited_state`: one reads what is not as in a new
interpreter, the other one writes it.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any, Final

# ── locale ────────────────────────────────────────────────────────────────────────────────────────


def read_locale() -> str | None:
    """Return the locale, if the program has set any category but that of characters."""
    import locale

    found = locale.setlocale(locale.LC_ALL)
    return None if _is_usual(found) else found


@functools.lru_cache(maxsize=16)
def _is_usual(found: str) -> bool:
    # A new interpreter sets that of characters from its environment, and leaves the others. One
    # name alone is that of all categories.
    categories = found.split(";") if "=" in found else [f"all={found}"]
    others = [one for one in categories if not one.startswith("LC_CTYPE=")]
    return all(one.endswith("=C") for one in others)


def write_locale(found: str | None) -> None:
    """Set the locale; another machine may not have it, and then stays with its own."""
    import locale

    with suppress(locale.Error):
        if found is not None:
            locale.setlocale(locale.LC_ALL, found)
            return
        characters = locale.setlocale(locale.LC_CTYPE)
        locale.setlocale(locale.LC_ALL, "C")
        locale.setlocale(locale.LC_CTYPE, characters)


# ── csv ───────────────────────────────────────────────────────────────────────────────────────────

FIELD_LIMIT: Final = 131072
"""csv.field_size_limit() in a new interpreter."""

DIALECTS: Final = frozenset({"excel", "excel-tab", "unix"})
"""csv.list_dialects() in a new interpreter."""

DIALECT_SETTINGS: Final = (
    *("delimiter", "doublequote", "escapechar", "lineterminator"),
    *("quotechar", "quoting", "skipinitialspace", "strict"),
)


def read_csv() -> Any:
    """Return the limit of a field, and the dialects that the program has registered."""
    import csv

    limit = csv.field_size_limit()
    dialects = {}
    for name in DIALECTS.symmetric_difference(csv.list_dialects()) - DIALECTS:
        dialect = csv.get_dialect(name)
        dialects[name] = {setting: getattr(dialect, setting) for setting in DIALECT_SETTINGS}
    return None if limit == FIELD_LIMIT and not dialects else (limit, dialects)


def write_csv(found: Any) -> None:
    """Set the limit, register the dialects in *found*, and unregister all others of programs."""
    import csv

    limit, dialects = (FIELD_LIMIT, {}) if found is None else found
    csv.field_size_limit(limit)
    for name in set(csv.list_dialects()) - DIALECTS - dialects.keys():
        csv.unregister_dialect(name)
    for name, settings in dialects.items():
        csv.register_dialect(name, **settings)


# ── xml ───────────────────────────────────────────────────────────────────────────────────────────

NAMESPACES: Final = frozenset({"xml", "html", "rdf", "wsdl", "xs", "xsi", "dc"})
"""Prefixes of namespaces that ElementTree knows in a new interpreter."""


def read_namespaces() -> Any:
    """Return the namespaces that the program has registered with ElementTree."""
    from xml.etree import ElementTree as ET

    known: Any = getattr(ET, "_namespace_map", {})
    return {uri: prefix for uri, prefix in known.items() if prefix not in NAMESPACES} or None


def write_namespaces(found: Any) -> None:
    """Register the namespaces in *found*, and remove all others of programs."""
    from xml.etree import ElementTree as ET

    known: Any = getattr(ET, "_namespace_map", {})
    for uri in [uri for uri, prefix in known.items() if prefix not in NAMESPACES]:
        del known[uri]
    known.update(found or {})
