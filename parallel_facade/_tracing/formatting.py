"""Formats amounts for people: shares, counts, times and sizes."""

from __future__ import annotations


def as_percent(share: float) -> str:
    """Return a *share* from 0 to 1 as a percentage."""
    return f"{share * 100:.0f} %"


def counted(count: int, what: str) -> str:
    """Return *count* and the noun *what*, given in the singular, in its right number."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def as_time(seconds: float) -> str:
    """Return *seconds* in a suitable unit."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def as_bytes(count: float) -> str:
    """Return *count* bytes in a suitable unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
