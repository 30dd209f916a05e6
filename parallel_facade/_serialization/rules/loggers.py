"""Loggers: the worker's own logger of the same name, of the same class.

A class of the program's own (`logging.setLoggerClass`) has methods that the tasks use.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any


def reduce_logger(logger: logging.Logger) -> Any:
    """Return how to find *logger*; `NotImplemented` for one that `getLogger` does not return."""
    if logging.getLogger(logger.name) is not logger or type(logger) is logging.RootLogger:
        return NotImplemented
    return logger_of, (logger.name, type(logger))


def logger_of(name: str, cls: type[logging.Logger]) -> logging.Logger:
    """Return the logger called *name*, of class *cls*."""
    if cls is logging.Logger:
        return logging.getLogger(name)
    before = logging.getLoggerClass()
    logging.setLoggerClass(cls)
    try:
        logger = logging.getLogger(name)
    finally:
        logging.setLoggerClass(before)
    if not isinstance(logger, cls):
        with suppress(TypeError):  # of another layout
            logger.__class__ = cls
    return logger
