"""Import dill where the system has no folder for temporary files.

dill asks for that folder when it is imported, and uses it only to store sessions. In a container
where everything is read-only there is none, and the import fails.
"""

from __future__ import annotations

import os
import sys
from typing import Final

IMPORT_ANYWAY: Final = (
    f"import tempfile; tempfile.tempdir = {os.sep!r}; import dill; tempfile.tempdir = None; "
)
"""Statements that import dill without that folder."""


def has_temporary_folder() -> bool:
    """Return whether the system has a folder for temporary files."""
    import tempfile

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True


def import_dill() -> None:
    """Import dill, also without a folder for temporary files."""
    if "dill" not in sys.modules and not has_temporary_folder():
        exec(IMPORT_ANYWAY, {})
