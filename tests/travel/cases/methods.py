"""Bound methods, from the question that people come with to metaclasses."""

import functools
from typing import ClassVar

from runner import main, same


class Base:
    rate = 2

    def __init__(self, scale):
        self.scale = scale

    def f(self, x):
        return self.scale * x

    def overridden(self, x):
        return ("base", x)

    def __secret(self, x):
        return self.scale - x

    def secret(self):
        return self.__secret

    @classmethod
    def of_class(cls, x):
        return cls.__name__, cls.rate * x

    @staticmethod
    def static(x):
        return -x

    @property
    def doubler(self):
        return lambda x: 2 * self.scale * x

    def __call__(self, x):
        return self.scale**x


class Child(Base):
    rate = 3

    def overridden(self, x):
        return ("child", *super().overridden(x))

    def upper(self):
        return super().overridden


class Mixin:
    def mixed(self, x):
        return self.f(x), self.tag


class Both(Mixin, Child):
    tag = "both"


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b

    def f(self, x):
        return self.a * x + self.b


class Loud:
    """Answers any name, as proxies do."""

    def __init__(self, inner):
        self.__dict__["inner"] = inner

    def __getattr__(self, name):
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def f(self, x):
        return self.upper() * x


class Meta(type):
    def make(cls, x):
        return cls(x).value

    def __call__(cls, *args):
        made = super().__call__(*args)
        made.made_by = "Meta"
        return made


class Made(metaclass=Meta):
    registry: ClassVar[list[int]] = []

    def __init__(self, value):
        self.value = value

    def f(self, x):
        return self.made_by, self.value + x


class CountsCalls:
    calls = 0

    def f(self, x):
        type(self).calls += 1
        return x


def case_plain(pmap):
    same(pmap, Base(3).f, range(5))


def case_inherited(pmap):
    same(pmap, Child(3).f, range(3))


def case_overridden_calls_super(pmap):
    same(pmap, Child(3).overridden, range(3))


def case_reached_by_super(pmap):
    same(pmap, Child(3).upper(), range(3))


def case_private(pmap):
    same(pmap, Child(3).secret(), range(3))


def case_class_method(pmap):
    same(pmap, Child.of_class, range(3))
    same(pmap, Child(1).of_class, range(3))


def case_static_method(pmap):
    same(pmap, Child.static, range(3))
    same(pmap, Child(1).static, range(3))


def case_callable_from_a_property(pmap):
    same(pmap, Base(2).doubler, range(3))


def case_instance_that_is_called(pmap):
    same(pmap, Base(2), range(4))


def case_mixin(pmap):
    same(pmap, Both(2).mixed, range(3))


def case_slots(pmap):
    same(pmap, Slotted(2, 1).f, range(3))


def case_getattr_for_everything(pmap):
    same(pmap, Loud("ab").f, range(3))


def case_metaclass(pmap):
    same(pmap, Made(5).f, range(3))
    same(pmap, Made.make, range(3))


def case_local_class(pmap):
    class Local(Base):
        def f(self, x):
            return ("local", super().f(x))

    same(pmap, Local(2).f, range(3))


def case_method_given_to_an_instance(pmap):
    base = Base(2)
    base.f = lambda x: ("own", x)

    same(pmap, base.f, range(3))


def case_method_given_to_the_class_later(pmap):
    class Late:
        pass

    Late.f = lambda self, x: (type(self).__name__, x)

    same(pmap, Late().f, range(3))


def case_instance_that_holds_its_own_method(pmap):
    class Holder:
        def __init__(self):
            self.run = self.f

        def f(self, x):
            return x, self.run.__self__ is self

    same(pmap, Holder().run, range(3))


def case_the_state_of_now(pmap):
    base = Base(1)
    first = pmap(base.f, [1])
    base.scale = 9

    assert (first, pmap(base.f, [1])) == ([1], [9])


def case_unbound(pmap):
    same(pmap, functools.partial(Base.f, Base(4)), range(3))


def case_the_caller_keeps_its_own(pmap):
    base, counts = Base(2), CountsCalls()

    results = pmap(lambda x: (base, counts.f(x)), range(2))

    assert all(type(one) is Base and one is not base for one, _ in results)


case_the_caller_keeps_its_own.needs_processes = True

if __name__ == "__main__":
    main(globals())
