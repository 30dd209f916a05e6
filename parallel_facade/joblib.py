"""A back-end for joblib: code that runs on joblib, such as scikit-learn, runs on this library.

>>> from parallel_facade.joblib import register
>>> register()
"""

try:
    from parallel_facade._integrations.joblib_backend import NAME, register
except ModuleNotFoundError as _missing:
    _missing.add_note("Hint: pip install 'parallel-facade[joblib]'")
    raise

__all__ = ["NAME", "register"]

register.__module__ = __name__
