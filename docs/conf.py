"""How the site is built: ``make docs``. Strict: a warning is an error."""

import inspect

import parallel_facade

project = "parallel_facade"
author = "The parallel_facade developers"
copyright = "the parallel_facade developers"  # noqa: A001 - Sphinx calls it so
version = release = parallel_facade.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
]
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore = [
    ("py:exc", "CancelledError"),
    ("py:class", "Offender"),
    ("py:class", "collections.abc.Callable"),
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = "parallel_facade"
html_theme_options = {"navigation_with_keys": True}

autodoc_typehints = "none"  # docstrings say what arguments are
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# What the build does without: no page of ours needs another site to be built.
intersphinx_mapping: dict[str, object] = {}

# Docstrings name things in single backticks, which are code here.
default_role = "code"

linkcheck_timeout = 30
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1)"]


def _bare_signature(_app, what, _name, obj, *_rest):
    """Show a function by its names and defaults: docstrings say what arguments are."""
    if what in {"function", "method"} and callable(obj):
        found = inspect.signature(getattr(obj, "__func__", obj))
        bare = [one.replace(annotation=one.empty) for one in found.parameters.values()]
        if what == "method":
            bare = bare[1:]  # self
        return str(inspect.Signature(bare)), None
    return None


def setup(app):
    """Connect what is above."""
    app.connect("autodoc-process-signature", _bare_signature)
