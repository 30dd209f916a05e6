"""A module of the user's, whose names the cases of `freshness` change from outside."""

import abc
import collections
import datetime
import functools
import os
from typing import Generic, TypeVar

from pydantic import BaseModel

RATE = 1
TABLE = {"a": 1}
NAMES = ["x"]
MODEL = None
PLUGINS = {}
SINCE = datetime.date(2020, 1, 1)


def rate(x):
    return RATE * x


def table(key):
    return TABLE.get(key)


def names(_):
    return tuple(NAMES)


def uses_helper(x):
    return helper(x)


def helper(x):
    return ("original", x)


def with_default(x, step=1):
    return x + step


def model(_):
    return None if MODEL is None else MODEL.name


def plugin(key):
    return PLUGINS[key](5)


@functools.lru_cache
def cached(x):
    return RATE * x


def counted(_):
    counts["calls"] += 1
    return os.getpid(), counts["calls"]


counts = collections.Counter()


class Settings:
    rate = 1
    extra = ()
    instance = None

    def f(self, x):
        return self.rate * x

    @classmethod
    def of_class(cls, _):
        return cls.rate, cls.extra, cls.instance is not None

    def with_rate(self, x):
        return RATE * x


SETTINGS = Settings()


def through_an_instance(x):
    return SETTINGS.with_rate(x)


def makes_settings(x):
    return Settings().f(x)


def since(_):
    return SINCE


class Named:
    def __init__(self, name):
        self.name = name


class Plug:
    known = {}

    def __init_subclass__(cls, *, key, **kwds):
        super().__init_subclass__(**kwds)
        cls.key = key
        Plug.known[key] = cls

    def describe(self, x):
        return (self.key, sorted(self.known), x)


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    item: T


IntBox = Box[int]


class Wrapper:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Shape(abc.ABC):
    pass


@functools.singledispatch
def kind(x):
    return "obj"


def describe(x):
    return kind(x), isinstance(x, Shape)
