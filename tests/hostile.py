"""Objects that do harm while they are pickled, rebuilt, compared, printed or dropped."""

import os
import sys


class OwnBase(BaseException):
    """Neither an `Exception` nor one of Python's own."""


def act(behaviour):
    """Do what no such method should."""
    match behaviour:
        case "error":
            raise ValueError("hostile")
        case "base":
            raise OwnBase("hostile")
        case "exit":
            sys.exit(3)
        case "endless":
            return act(behaviour)
        case "none":
            return None
        case "number":
            return 5
        case "tuple":
            return (1, 2, 3)
        case "kill":
            os._exit(7)
    raise AssertionError(behaviour)


BEHAVIOURS = ["error", "base", "exit", "endless", "none", "number", "tuple", "kill"]


class Hostile:
    """Does harm in one process alone.

    Args:
        behaviour: One of `BEHAVIOURS`.
        in_worker: Whether the harm is done in a worker; else in the caller.
        caller: The caller's process id.
    """

    def __init__(self, behaviour, in_worker, caller):
        self.behaviour, self.in_worker, self.caller = behaviour, in_worker, caller

    def harm(self):
        """Return whether this is the place to do it."""
        return (os.getpid() != self.caller) == self.in_worker


class Reduces(Hostile):
    def __reduce__(self):
        return act(self.behaviour) if self.harm() else (type(self), tuple(vars(self).values()))


class ReducesEx(Hostile):
    def __reduce_ex__(self, protocol):
        return act(self.behaviour) if self.harm() else (type(self), tuple(vars(self).values()))


class GetsState(Hostile):
    def __getstate__(self):
        return act(self.behaviour) if self.harm() else dict(vars(self))


class SetsState(Hostile):
    def __setstate__(self, state):
        vars(self).update(state)
        if self.harm():
            act(self.behaviour)


class Dies(Hostile):
    def __del__(self):
        if self.harm():
            act(self.behaviour)


class Prints(Hostile):
    def __repr__(self):
        return act(self.behaviour)

    __str__ = __repr__


class Compares(Hostile):
    def __eq__(self, other):
        return act(self.behaviour)

    def __hash__(self):
        return act(self.behaviour) if self.harm() else 1


class Answers(Hostile):
    """Any attribute that it has not."""

    def __getattr__(self, name):
        if name in {"behaviour", "in_worker", "caller"}:
            raise AttributeError(name)
        return act(self.behaviour) if self.harm() else None


KINDS = [Reduces, ReducesEx, GetsState, SetsState, Dies, Prints, Compares, Answers]


class HostileError(Exception):
    def __init__(self, hook, behaviour, in_worker, caller):
        super().__init__(hook, behaviour)
        self.hostile = Hostile(behaviour, in_worker, caller)
        self.hook = hook

    def harms(self, hook):
        return self.hook == hook and self.hostile.harm()

    def __str__(self):
        return act(self.hostile.behaviour) if self.harms("__str__") else "hostile"

    def __reduce__(self):
        if self.harms("__reduce__"):
            return act(self.hostile.behaviour)
        return rebuilt, (vars(self),), vars(self)

    def __setstate__(self, state):
        vars(self).update(state)
        if self.harms("__setstate__"):
            act(self.hostile.behaviour)


ERROR_HOOKS = ["__str__", "__reduce__", "__setstate__"]


def rebuilt(state):
    """Return an error without its `__init__`."""
    return HostileError.__new__(HostileError)


class HostileCallable:
    def __init__(self, part):
        self.part = part

    def __call__(self, x):
        return x
