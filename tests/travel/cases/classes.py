"""Identity: what comes back is of the caller's own classes, and is the caller's own singleton."""

import abc
import enum
import functools
import weakref
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Generic, NamedTuple, ParamSpec, Protocol, TypedDict, TypeVar

from runner import main

T = TypeVar("T")
P = ParamSpec("P")


@dataclass
class Plain:
    x: int
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, order=True)
class Frozen:
    x: int
    y: str = "y"


@dataclass(frozen=True, slots=True)
class Slots:
    x: int
    next: "Slots | None" = None


@dataclass
class Generics(Generic[T]):
    value: T


class Point(NamedTuple):
    x: int
    y: int = 0

    def norm(self):
        return self.x + self.y


Pair = namedtuple("Pair", "a b")
Other = namedtuple("CalledOtherwise", "a")


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"
    CRIMSON = 1

    def shout(self):
        return self.name + "!"


class Level(enum.IntEnum):
    LOW = enum.auto()
    HIGH = enum.auto()


class Word(enum.StrEnum):
    A = "a"


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    ALL = READ | WRITE


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)
    MARS = (0.6, 3.3)

    def __init__(self, mass, radius):
        self.mass = mass
        self.density = mass / radius


class Coordinate(bytes, enum.Enum):
    PX = (0, "P.X")
    PY = (1, "P.Y")

    def __new__(cls, number, label):
        made = bytes.__new__(cls, [number])
        made._value_ = number
        made.label = label
        return made


@dataclass
class Creature:
    legs: int


class Animal(Creature, enum.Enum):
    CAT = 4
    BIRD = 2


class Operation(enum.Enum):
    ADD = enum.member(functools.partial(lambda a, b: a + b, 1))
    TWICE = enum.member(lambda x: 2 * x)

    def __call__(self, x):
        return self.value(x)


class Period(timedelta, enum.Enum):
    DAY = 1


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


@Shape.register
class Alien:
    pass


class HasName(Protocol):
    name: str


class Options(TypedDict, total=False):
    depth: int


class Plugins:
    known: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, *, key, **kwds):
        super().__init_subclass__(**kwds)
        cls.key = key
        Plugins.known[key] = cls


class First(Plugins, key="first"):
    pass


class Second(Plugins, key="second"):
    pass


class Counting(type):
    made = 0

    def __new__(mcs, name, bases, space):
        mcs.made += 1
        return super().__new__(mcs, name, bases, {**space, "number": mcs.made})


class Numbered(metaclass=Counting):
    pass


class Unhashable(type):
    def __eq__(cls, other):
        raise AssertionError("nobody asked")

    __hash__ = None


class Typed:
    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, obj, owner=None):
        return self if obj is None else obj.__dict__[self.name]

    def __set__(self, obj, value):
        obj.__dict__[self.name] = int(value)


class Checked:
    amount = Typed()

    def __init__(self, amount):
        self.amount = amount


class Only:
    _instance = None

    def __new__(cls):
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def is_only(self, _):
        return Only() is self


class Unset:
    def __repr__(self):
        return "UNSET"

    def __reduce__(self):
        return "UNSET"


UNSET = Unset()
MISSING = object()


class Tree:
    def __init__(self, parent=None):
        self.parent = weakref.ref(parent) if parent else None
        self.children = []
        if parent:
            parent.children.append(self)


class Keyed:
    """Its hash needs what its class holds."""

    salt = (1, 2)
    table: ClassVar[dict[Any, str]] = {}

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return hash((self.n, self.salt))

    def __eq__(self, other):
        return self.n == other.n


class Outer:
    class Inner:
        class Deepest(NamedTuple):
            x: int


def typed(function):
    def wrapper(*args: P.args, **kwds: P.kwargs):
        return function(*args, **kwds)

    return wrapper


def there_and_back(pmap, values):
    """Assert that *values*, and what tasks make like them, come back in the caller's classes."""
    back = pmap(lambda value: value, values)
    assert [type(one) for one in back] == [type(one) for one in values]
    assert all(pmap(lambda value: type(value) is type(pick(value)), values))
    return back


def pick(value):
    return value


def case_dataclasses(pmap):
    values = [Plain(1, ["a"]), Frozen(2), Slots(3, Slots(4)), Generics(5)]

    assert there_and_back(pmap, values) == values
    assert pmap(lambda x: Plain(x) == Plain(1), [1, 2]) == [True, False]
    assert [type(one) for one in pmap(Frozen, [1, 2])] == [Frozen, Frozen]


def case_dataclasses_sort_and_hash_together(pmap):
    back = pmap(Frozen, [3, 1, 2])

    assert sorted(back)[0] == Frozen(1)
    assert {Frozen(1): "one"}[back[1]] == "one"


def case_named_tuples(pmap):
    values = [Point(1, 2), Pair(1, 2), Other(3), Outer.Inner.Deepest(4)]

    assert there_and_back(pmap, values) == values
    assert pmap(Point.norm, [Point(1, 2)]) == [3]


def case_enum_members_are_themselves(pmap):
    members = [*Colour, *Level, *Word, *Planet, *Coordinate, *Animal, *Operation, *Period]

    assert all(a is b for a, b in zip(pmap(lambda m: m, members), members, strict=True))
    assert pmap(lambda name: Colour[name], ["CRIMSON"])[0] is Colour.RED


def case_enum_members_keep_what_they_have(pmap):
    assert pmap(lambda m: m.shout(), Colour) == ["RED!", "GREEN!"]
    assert pmap(lambda m: m.density, Planet) == [m.density for m in Planet]
    assert pmap(lambda m: (m.label, bytes(m)), Coordinate) == [("P.X", b"\0"), ("P.Y", b"\1")]
    assert pmap(lambda m: (m.legs, m.name), Animal) == [(4, "CAT"), (2, "BIRD")]
    assert pmap(lambda m: m(20), Operation) == [21, 40]
    assert pmap(lambda m: m.total_seconds(), Period) == [86400.0]


def case_enums_know_their_members(pmap):
    def looks(_):
        return list(Colour), Colour(1), Colour("g"), Level.LOW < Level.HIGH, len(Planet)

    assert pmap(looks, [0]) == [looks(0)]


def case_flags_combine(pmap):
    assert pmap(lambda r: r | Right.WRITE, [Right.READ, Right.WRITE]) == [Right.ALL, Right.WRITE]
    assert pmap(lambda r: r, [Right.ALL])[0] is Right.ALL
    assert pmap(lambda r: Right.READ in r, [Right.ALL]) == [True]


def case_abstract_classes(pmap):
    assert pmap(lambda s: (s.area(), isinstance(s, Shape)), [Square(3)]) == [(9, True)]
    assert pmap(lambda x: isinstance(x, Shape), [Alien(), 1]) == [True, False]
    there_and_back(pmap, [Square(3), Alien()])


def case_abstract_classes_cannot_be_made_in_workers_either(pmap):
    def make(_):
        try:
            Shape()
        except TypeError:
            return "refused"

    assert pmap(make, [0]) == ["refused"]


def case_typing_classes(pmap):
    def looks(_):
        return Options(depth=1), Generics[int](2).value, HasName.__name__, T.__name__

    assert pmap(looks, [0]) == [looks(0)]
    assert pmap(lambda _: T, [0])[0] is T
    assert pmap(typed(lambda x: x + 1), [1]) == [2]


def case_subclass_registries_are_not_run_again(pmap):
    assert pmap(lambda _: sorted(Plugins.known), [0]) == [["first", "second"]]
    assert pmap(lambda key: Plugins.known[key].key, ["first"]) == ["first"]
    there_and_back(pmap, [First(), Second()])
    assert sorted(Plugins.known) == ["first", "second"]


def case_metaclasses_do_not_count_again(pmap):
    assert pmap(lambda _: (Numbered.number, type(Numbered).made), [0, 0]) == [(1, 1), (1, 1)]
    there_and_back(pmap, [Numbered()])


def case_metaclass_without_hash(pmap):
    class Odd(metaclass=Unhashable):
        def f(self, x):
            return x + 1

    assert pmap(Odd().f, [1]) == [2]


def case_descriptors(pmap):
    assert pmap(lambda c: c.amount + 1, [Checked("5")]) == [6]
    there_and_back(pmap, [Checked(1)])


def case_singletons(pmap):
    only = Only()

    assert pmap(only.is_only, [0, 0]) == [True, True]
    assert pmap(lambda x: x is UNSET, [UNSET, 1]) == [True, False]
    assert pmap(lambda x: x is MISSING, [MISSING, 1]) == [True, False]
    assert pmap(lambda _: (UNSET, MISSING, None, ...), [0])[0] == (UNSET, MISSING, None, ...)


def case_trees_with_weak_parents(pmap):
    root = Tree()
    Tree(root)

    assert pmap(lambda tree: tree.children[0].parent() is tree, [root]) == [True]


def case_class_data_that_needs_the_class(pmap):
    Keyed.table = {Keyed(1): "one"}

    assert pmap(lambda n: Keyed.table.get(Keyed(n)), [1, 2]) == ["one", None]


def case_classes_of_a_local_scope(pmap):
    class Local:
        def __eq__(self, other):
            return type(other) is Local

        __hash__ = None

    class Kind(enum.Enum):
        A = 1

    back = pmap(lambda x: (Local(), Kind.A, x), [Local()])

    assert back == [(Local(), Kind.A, Local())]
    assert back[0][1] is Kind.A


def case_a_class_itself(pmap):
    assert pmap(lambda cls: cls, [Plain, Colour, Outer.Inner, int]) == [
        Plain,
        Colour,
        Outer.Inner,
        int,
    ]
    assert pmap(lambda x: type(x), [Plain(1)])[0] is Plain


def case_subclasses_are_known(pmap):
    assert pmap(lambda _: sorted(c.key for c in Plugins.__subclasses__()), [0]) == [
        ["first", "second"]
    ]


case_class_data_that_needs_the_class.needs_processes = True

if __name__ == "__main__":
    main(globals())
