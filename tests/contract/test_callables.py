"""The callables that people bring here, on every back-end.

Each case of `docs/explanation/cant-pickle.md` is a test of this file.
"""

import abc
import copyreg
import enum
import functools
import gc
import io
import operator
import types
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import pytest

from parallel_facade import ConfigurationError, Pool, PoolClosedError, config, imap, pmap


class Base:
    def inherited(self, x):
        return ("base", self.scale * x)

    def overridden(self, x):
        return ("base", x)


class Scaler(Base):
    offset = 100

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def f(self, x):
        return self.scale * x

    def go(self):
        return pmap(self.f, range(10))

    def __private(self, x):
        return self.scale + x

    def go_private(self):
        return pmap(self.__private, range(3))

    def go_inherited(self):
        return pmap(super().inherited, range(3))

    def overridden(self, x):
        return ("scaler", x)

    def go_overridden_by_super(self):
        return pmap(super().overridden, range(2))

    def __call__(self, x):
        return self.scale**x

    @classmethod
    def of_class(cls, x):
        return (cls.__name__, x + cls.offset)

    @staticmethod
    def static(x):
        return -x


class Deeper(Scaler):
    offset = 200

    def f(self, x):
        return super().f(x) + 1


class HoldsItsPool:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def f(self, x):
        return x * x

    def go(self):
        return self.pool.pmap(self.f, range(10))

    def nested(self, n):
        return self.pool.pmap(self.f, range(n))

    def itself(self, _):
        return self


def module_level(x):
    return x + 1


def local_versions():
    """Return a scaler and a class of a local scope, which no worker can import."""

    class LocalBase:
        def overridden(self, x):
            return ("base", x)

    class Local(LocalBase):
        def __init__(self, scale):
            self.scale = scale

        def f(self, x):
            return self.scale * x

        def __private(self, x):
            return self.scale + x

        def go_private(self):
            return pmap(self.__private, range(3))

        def overridden(self, x):
            return ("local", x)

        def go_overridden_by_super(self):
            return pmap(super().overridden, range(2))

        @classmethod
        def of_class(cls, x):
            return (cls.__name__, x)

    return Local


def test_a_bound_method_mapped_by_its_own_object(backend):
    assert Scaler(3).go() == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]


def test_a_bound_method_of_a_local_class(backend):
    assert pmap(local_versions()(2).f, range(3)) == [0, 2, 4]


def test_a_private_method(backend):
    assert Scaler(3).go_private() == [3, 4, 5]
    assert local_versions()(3).go_private() == [3, 4, 5]


def test_an_inherited_method_reached_by_super(backend):
    assert Scaler(2).go_inherited() == [("base", 0), ("base", 2), ("base", 4)]


def test_an_overridden_method_reached_by_super_is_the_base_classs(backend):
    assert Scaler(1).go_overridden_by_super() == [("base", 0), ("base", 1)]
    assert local_versions()(1).go_overridden_by_super() == [("base", 0), ("base", 1)]


def test_a_method_that_calls_super(backend):
    assert pmap(Deeper(2).f, range(3)) == [1, 3, 5]


def test_an_instance_that_holds_its_pool(backend):
    with backend.pool() as pool:
        holder = HoldsItsPool(pool)

        assert holder.go() == [x * x for x in range(10)]
        assert pool.pmap(holder.nested, [2, 3]) == [[0, 1], [0, 1, 4]]
        assert pool.pmap(holder.itself, [0])[0].pool is pool

    with pytest.raises(PoolClosedError):
        holder.go()


def test_a_callable_instance(backend):
    assert pmap(Scaler(2), range(4)) == [1, 2, 4, 8]


def test_class_and_static_methods(backend):
    assert pmap(Deeper.of_class, [1]) == [("Deeper", 201)]
    assert pmap(Scaler(1).of_class, [1]) == [("Scaler", 101)]
    assert pmap(Scaler.static, [1]) == [-1]
    assert pmap(Scaler(1).static, [1]) == [-1]
    assert pmap(local_versions().of_class, [1]) == [("Local", 1)]


def test_a_module_level_function(backend):
    assert pmap(module_level, range(3)) == [1, 2, 3]


def test_a_partial(backend):
    assert pmap(functools.partial(pow, 2), range(4)) == [1, 2, 4, 8]
    assert pmap(functools.partial(Scaler(3).f), range(3)) == [0, 3, 6]


def test_the_partial_that_passes_self_twice_is_the_callers_type_error(backend):
    scaler = Scaler(3)

    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given") as caught:
        pmap(functools.partial(scaler.f, scaler), [5])

    assert caught.value.__notes__ == ["while running item 0: 5"]


def test_lambdas_and_closures(backend):
    factor = 3

    def add(n):
        return lambda x: x + n

    assert pmap(lambda x: x * factor, range(3)) == [0, 3, 6]
    assert pmap(add(5), range(3)) == [5, 6, 7]


def test_a_closure_that_calls_itself(backend):
    def factorial(n):
        return 1 if n == 0 else n * factorial(n - 1)

    assert pmap(factorial, range(5)) == [1, 1, 2, 6, 24]


def test_two_closures_that_call_each_other(backend):
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert pmap(even, range(4)) == [True, False, True, False]


def test_closures_that_share_a_cell(backend):
    def counter():
        count = 0

        def up():
            nonlocal count
            count += 1

        return up, lambda: count

    def run(x):
        up, get = counter_pair
        for _ in range(x):
            up()
        return get()

    counter_pair = counter()
    assert pmap(run, [2], chunksize=1) == [2]


def test_defaults_keywords_and_attributes_of_a_function(backend):
    def f(x, y=10, *, z=100):
        return x + y + z + f.extra

    f.extra = 1000

    assert pmap(f, [1, 2]) == [1111, 1112]


def test_operator_objects_builtins_and_methods_of_builtins(backend):
    assert pmap(operator.itemgetter(1), ["ab", "cd"]) == ["b", "d"]
    assert pmap(len, ["", "abc"]) == [0, 3]
    assert pmap("{}!".format, ["a"]) == ["a!"]
    assert pmap([3, 1, 3].count, [3, 2]) == [2, 0]
    assert pmap(str.upper, ["x"]) == ["X"]


def test_an_lru_cached_local_function(backend):
    @functools.cache
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert pmap(fib, [10, 20]) == [55, 6765]


def test_enums_named_by_the_worker_are_the_callers(backend):
    class Colour(enum.Enum):
        RED = 1
        BLUE = 2

    class Flags(enum.Flag):
        A = enum.auto()
        B = enum.auto()

    assert pmap(Colour, [1, 2])[0] is Colour.RED
    assert pmap(lambda f: f | Flags.B, [Flags.A]) == [Flags.A | Flags.B]


def test_enums_whose_members_have_attributes(backend):
    class Planet(enum.Enum):
        MERCURY = (3.303e23, 2.4397e6)
        EARTH = (5.976e24, 6.37814e6)

        def __init__(self, mass, radius):
            self.mass = mass
            self.radius = radius

        @property
        def density(self):
            return self.mass / self.radius**3

    (earth,) = pmap(lambda planet: (planet, planet.density, planet.mass), [Planet.EARTH])

    assert earth == (Planet.EARTH, Planet.EARTH.density, 5.976e24)
    assert earth[0] is Planet.EARTH


def test_local_dataclasses_keep_what_makes_them_dataclasses(backend):
    @dataclass(frozen=True, slots=True)
    class Pair:
        a: int
        b: int = 2

        def swapped(self):
            return replace(self, a=self.b, b=self.a)

    (swapped,) = pmap(Pair.swapped, [Pair(1)])

    assert swapped == Pair(2, 1)
    assert type(swapped) is Pair


def test_properties_class_attributes_and_slots_of_a_local_class(backend):
    class Slotted:
        __slots__ = ("__hidden", "x")
        unit = "m"

        def __init__(self, x):
            self.x = x
            self.__hidden = -x

        @property
        def text(self):
            return f"{self.x} {self.__hidden} {self.unit}"

    assert pmap(lambda one: one.text, [Slotted(1)]) == ["1 -1 m"]
    Slotted.unit = "km"
    assert pmap(lambda one: one.text, [Slotted(1)]) == ["1 -1 km"]


def test_classes_that_refer_to_each_other(backend):
    class Left:
        def other(self):
            return Right()

    class Right:
        def other(self):
            return Left()

    (result,) = pmap(lambda _: Left().other().other(), [0])

    assert type(result) is Left


def test_a_class_of_a_metaclass(backend):
    class Registry(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.by = cls.__name__
            return made

    class Product(metaclass=Registry):
        pass

    (product,) = pmap(lambda _: Product(), [0])

    assert (product.by, type(product), type(type(product))) == ("Product", Product, Registry)


class CopyregSubject:
    def __init__(self, x):
        self.x = x

    def get(self, _):
        return self.x


def rebuilt_by_user(x):
    made = CopyregSubject(x)
    made.x = ("rebuilt by the user's function", x)
    return made


@pytest.mark.requires("needs_serialization")
def test_a_users_copyreg_registration_is_honoured(backend, monkeypatch):
    monkeypatch.setitem(
        copyreg.dispatch_table, CopyregSubject, lambda one: (rebuilt_by_user, (one.x,))
    )

    assert pmap(CopyregSubject(1).get, [0]) == [("rebuilt by the user's function", 1)]


def rebuilt_method(self, name):
    return functools.partial(getattr(self, name))


@pytest.mark.requires("needs_serialization")
@pytest.mark.parametrize("serializer", ["dill", "pickle"])
def test_a_users_copyreg_recipe_for_methods_is_honoured(backend, monkeypatch, serializer):
    used = []

    def recipe(method):
        used.append(method.__name__)
        return rebuilt_method, (method.__self__, method.__name__)

    monkeypatch.setitem(copyreg.dispatch_table, types.MethodType, recipe)

    assert pmap(Scaler(3).f, range(3), serializer=serializer) == [0, 3, 6]
    assert used == ["f"]


def test_the_standard_library_road_carries_methods_of_every_kind(backend):
    with config(serializer="pickle"):
        assert Scaler(3).go() == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
        assert Scaler(3).go_private() == [3, 4, 5]
        assert Scaler(1).go_overridden_by_super() == [("base", 0), ("base", 1)]
        assert pmap(Deeper.of_class, [1]) == [("Deeper", 201)]
        assert pmap(Scaler._Scaler__private, [Scaler(1)], [2]) == [3]
        assert list(imap(Scaler(2), range(3))) == [1, 2, 4]


@pytest.mark.requires("needs_serialization")
def test_the_standard_library_road_refuses_a_lambda_and_names_the_other_road(backend):
    with pytest.raises(TypeError, match="serializer='dill' carries lambdas"):
        pmap(lambda x: x, [1], serializer="pickle")
    space = {"__name__": "__main__"}
    exec("def of_the_script(x): return x", space)
    with pytest.raises(TypeError, match="belongs to the main script"):
        pmap(space["of_the_script"], [1], serializer="pickle")


def test_an_unknown_serializer_is_refused(backend):
    with pytest.raises(ConfigurationError, match="serializer='cloudpickle'.*one of dill, pickle"):
        pmap(abs, [1], serializer="cloudpickle")


def test_a_base_class_that_mentions_its_subclass(backend):
    class Base:
        def clone(self):
            return Derived()

    class Derived(Base):
        def run(self, x):
            return x + 1

    assert pmap(Derived().run, [1]) == [2]
    assert [type(one) is Derived for one in pmap(Base.clone, [Base()])] == [True]


def test_instances_that_a_class_reaches_by_itself(backend):
    @dataclass(frozen=True)
    class Place:
        x: int

        def is_special(self):
            return self in special

    class Pair(NamedTuple):
        both: tuple

        def is_origin(self):
            return self == origin, len(origin)

    special, origin = {Place(1), Place(2)}, Pair((1, 2))

    assert pmap(lambda place: place.is_special(), [Place(1), Place(2), Place(3)]) == [
        True, True, False,
    ]  # fmt: skip
    assert pmap(lambda pair: pair.is_origin(), [Pair((1, 2))]) == [(True, 1)]


def test_registries_metaclasses_and_virtual_subclasses(backend):
    class Plugin:
        registry = {}

        def __init_subclass__(cls, /, key):
            Plugin.registry[key] = cls

    class Doubler(Plugin, key="double"):
        def run(self, x):
            return 2 * x

    class Tagging(type):
        def __new__(mcs, name, bases, space, tag):
            made = super().__new__(mcs, name, bases, space)
            made.tag = tag
            return made

        def __init__(cls, name, bases, space, tag):
            super().__init__(name, bases, space)

    class Tagged(metaclass=Tagging, tag="t"):
        pass

    class Shape(abc.ABC):
        pass

    class Foreign:
        pass

    Shape.register(Foreign)
    Shape.register(int)

    assert pmap(lambda key: Plugin.registry[key]().run(4), ["double"]) == [8]
    assert pmap(lambda _: (Tagged.tag, type(Tagged()).__name__), [0]) == [("t", "Tagged")]
    assert pmap(lambda x: isinstance(x, Shape), [Foreign(), 1, "no"]) == [True, True, False]


class Collects:
    """Has the collector run where it is rebuilt."""

    def __setstate__(self, state):
        gc.collect()

    def __getstate__(self):
        return "something"


def test_a_class_that_only_a_registry_knows_lives_as_long_as_the_call(backend):
    class Shape(abc.ABC):
        pass

    class Foreign:
        pass

    Shape.register(Foreign)

    assert pmap(lambda pair: isinstance(pair[1], Shape), [(Collects(), Foreign())]) == [True]


def test_a_sentinel_is_itself_in_workers_that_have_never_met_it(backend):
    class Unset:
        __module__ = "of_no_file"

        def __reduce__(self):
            return "UNSET"

    unset = Unset()
    for _ in range(2):
        with backend.pool(workers=1) as pool:
            assert pool.pmap(lambda x: x is unset, [unset, 1]) == [True, False]
            assert pool.pmap(lambda _: unset, [0])[0] is unset


def test_type_variables_new_types_and_generic_classes(backend):
    T = TypeVar("T")
    UserId = NewType("UserId", int)

    class Box(Generic[T]):
        def __init__(self, value: T) -> None:
            self.value = value

    def unpacked(box: Box[T], user: UserId = UserId(3)) -> tuple:
        return box.value, user, T

    ((value, user, variable),) = pmap(unpacked, [Box(1)])

    assert (value, user) == (1, 3)
    assert variable is T
    assert [type(box) is Box for box in pmap(Box[int], [1])] == [True]


def test_typed_dictionaries_and_protocols(backend):
    class Row(TypedDict, total=False):
        name: str

    class HasName(Protocol):
        name: str

    assert pmap(lambda name: (Row(name=name), HasName.__name__), ["n"]) == [
        ({"name": "n"}, "HasName")
    ]


def test_objects_of_the_io_module(backend):
    assert pmap(lambda file: file.read(), [io.BytesIO(b"abc"), io.StringIO("d")]) == [b"abc", "d"]


def test_the_repr_of_a_callable_is_not_needed(backend):
    class Silent:
        def __repr__(self):
            raise LookupError("no repr")

        def f(self, x):
            return x + 1

    assert pmap(Silent().f, [1]) == [2]


def test_a_local_function_whose_assertions_pytest_rewrites(backend):
    def check(x):
        assert x < 2
        return x

    assert pmap(check, [0, 1]) == [0, 1]
    with pytest.raises(AssertionError):
        pmap(check, [1, 2, 3])
