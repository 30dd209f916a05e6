"""Annotations: on classes whose data cannot travel as a whole, quoted, undefined, of any value."""

import abc
import collections.abc
import dataclasses
import functools
import inspect
import sys
import typing
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, Protocol, TypeVar

import pydantic
from runner import main, same

import parallel_facade

if TYPE_CHECKING:
    from nowhere import Nowhere

BIG = list(range(300_000))  # about 1 MB that nothing here uses
T = TypeVar("T")
LAZY = sys.version_info >= (3, 14)


class Base(abc.ABC):
    x: int = 3

    @abc.abstractmethod
    def get(self) -> "int": ...


class Derived(Base):
    y: "Derived | None" = None

    def get(self) -> "int":
        return self.x


@dataclasses.dataclass
class Shape(abc.ABC):
    side: float
    name: str = "shape"

    def area(self) -> float:
        return self.side**2


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    parent: "Slotted | None" = None


class Speaks(Protocol):
    word: str

    def speak(self) -> str: ...


class Dog(Speaks):
    word: str = "wuff"

    def speak(self) -> str:
        return self.word


class Table(collections.abc.Mapping):
    rows: dict[str, int]

    def __init__(self, rows: dict[str, int]):
        self.rows = rows

    def __getitem__(self, key: str) -> int:
        return self.rows[key]

    def __iter__(self) -> typing.Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    __hash__ = None


class Box(Generic[T]):
    content: T
    count: ClassVar[int] = 0

    def put(self, content: T) -> "Box[T]":
        self.content = content
        return self


class User(pydantic.BaseModel):
    name: str
    age: int = 0
    friends: "list[User]" = []

    @pydantic.field_validator("age")
    @classmethod
    def not_negative(cls, age: int) -> int:
        if age < 0:
            raise ValueError("negative")
        return age

    def greet(self) -> str:
        return f"I am {self.name}, {self.age}"


class Team(pydantic.BaseModel):
    lead: User
    members: list[User] = pydantic.Field(default_factory=list)
    size: Annotated[int, pydantic.Field(ge=0)] = 0


class Outer:
    class Inner:
        pass

    inner: Inner
    size: int = 0

    def make(self, kind: Inner, other: "Outer") -> Inner:
        return kind

    @functools.lru_cache
    def cached(self, kind: Inner) -> Inner:
        return kind


class Row(typing.TypedDict):
    user: "Outer"


class Pair(typing.NamedTuple):
    user: "Outer"


class Called(typing.NamedTuple):
    user: "Outer"


Made = dataclasses.make_dataclass("Made", [("a", int), ("b", "list[Outer]", None)])

if sys.version_info >= (3, 15):
    ABSENT = sentinel("ABSENT")


def names_of(hints):
    return {name: str(hint) for name, hint in hints.items()}


def case_abstract_base(pmap):
    same(pmap, lambda x: Derived().get() + x, [1, 2])
    assert type(pmap(lambda _: Derived(), [1])[0]) is Derived


def case_instances_come_back(pmap):
    items = [Shape(1.0), Slotted(2), Dog(), Outer()]
    assert [type(one) for one in pmap(lambda one: one, items)] == [Shape, Slotted, Dog, Outer]


def case_dataclass_on_abc(pmap):
    same(pmap, lambda side: Shape(side), [1.0, 2.0])
    same(pmap, lambda shape: shape.area(), [Shape(1.0), Shape(2.0)])


def case_protocol(pmap):
    same(pmap, lambda dog: dog.speak(), [Dog(), Dog()])


def case_mapping(pmap):
    same(pmap, lambda table: sum(table.values()), [Table({"a": 1}), Table({"a": 2, "b": 3})])


def case_local_abstract_class(pmap):
    class Local(abc.ABC):
        x: int = 5

        def plus(self, y: "Local") -> "int":
            return self.x + y.x

    same(pmap, lambda one: one.plus(Local()), [Local(), Local()])
    assert type(pmap(lambda _: Local(), [1])[0]) is Local


def case_local_dataclass(pmap):
    @dataclasses.dataclass
    class Part:
        x: int

    @dataclasses.dataclass
    class Whole(abc.ABC):
        part: Part
        parts: list[Part] = dataclasses.field(default_factory=list)

    same(pmap, lambda x: Whole(Part(x), [Part(x + 1)]), [1, 2])


def case_pydantic_model(pmap):
    same(pmap, lambda age: User(name="n", age=age), [1, 2])
    same(pmap, lambda user: user.greet(), [User(name="a"), User(name="b", age=3)])


def case_pydantic_validation_in_a_task(pmap):
    def is_refused(age):
        try:
            User(name="n", age=age)
        except pydantic.ValidationError as exc:
            return exc.error_count()
        return 0

    same(pmap, is_refused, [-1, 1])


def case_nested_pydantic_models(pmap):
    teams = [Team(lead=User(name="a"), members=[User(name="b", friends=[User(name="c")])])]
    same(pmap, lambda team: team.model_copy(update={"size": 3}), teams)
    same(pmap, lambda team: team.model_dump_json(), teams)


def case_local_pydantic_model(pmap):
    class Local(pydantic.BaseModel):
        x: int
        y: "float" = 1.5

    same(pmap, lambda x: Local(x=x), [1, 2])
    same(pmap, lambda one: one.x * one.y, [Local(x=3), Local(x=4, y=2)])


def case_type_hints_of_quoted_annotations(pmap):
    def hints(cls):
        return names_of(typing.get_type_hints(cls))

    same(pmap, hints, [Derived, Slotted, Box])
    same(pmap, lambda _: names_of(typing.get_type_hints(Derived.get)), [1])
    same(pmap, lambda _: names_of(typing.get_type_hints(Box.put)), [1])


def case_type_hints_of_a_quoting_function(pmap):
    def function(a: "Derived", b: "typing.Sequence[Slotted]") -> "None": ...

    same(pmap, lambda _: names_of(typing.get_type_hints(function)), [1])


def case_annotations_as_they_are(pmap):
    def function(a: int, b: list[Slotted], *c: "Derived") -> None: ...

    expected = inspect.signature(function)
    assert pmap(lambda _: str(inspect.signature(function)), [1]) == [str(expected)]
    [back] = pmap(lambda _: function.__annotations__, [1])
    assert back == function.__annotations__
    assert back["b"].__args__[0] is Slotted


def case_names_of_the_class_in_annotations(pmap):
    def hints(_):
        own = Outer.__annotations__["inner"] is Outer.Inner
        of_method = Outer.make.__annotations__["kind"] is Outer.Inner
        return own, of_method, Outer().cached(Outer.Inner) is Outer.Inner

    assert pmap(hints, [1, 2]) == [(True, True, True)] * 2


def case_undefined_name_loses_nothing(pmap):
    if not LAZY:
        return

    def function(a: int, b: Nowhere) -> str:
        return "result"

    def annotations_as_text(_):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.STRING)

    assert pmap(lambda _: function(1, 2), [1]) == ["result"]
    assert pmap(annotations_as_text, [1]) == [{"a": "int", "b": "Nowhere", "return": "str"}]


def case_dataclass_with_an_undefined_name(pmap):
    @dataclasses.dataclass
    class Record:
        x: int
        where: "Nowhere | None" = None
        others: "list[Nowhere]" = dataclasses.field(default_factory=list)

    same(pmap, lambda x: Record(x), [1, 2])
    if LAZY:

        @dataclasses.dataclass
        class Unquoted:
            x: int
            where: Nowhere = None
            others: list[Nowhere] = None

        same(pmap, lambda x: Unquoted(x), [1, 2])
        same(pmap, lambda _: str(dataclasses.fields(Unquoted)[1].type.__forward_arg__), [1])


def case_forward_references_leave_big_globals_behind(pmap):
    @dataclasses.dataclass
    class Record:
        x: int
        where: "Nowhere" = None

    seen = [Record]
    if LAZY:

        @dataclasses.dataclass
        class Unquoted:
            x: int
            where: Nowhere = None
            others: dict[str, list[Nowhere]] = None

        seen.append(Unquoted)
    for cls in seen:
        assert parallel_facade.explain(lambda x, cls=cls: cls(x)).size < 50_000


def case_annotations_changed_between_calls(pmap):
    class Changing:
        x: int

    def hint(_):
        return Changing.__annotations__["x"]

    assert pmap(hint, [1, 2]) == [int, int]
    Changing.__annotations__ = {"x": str}
    assert pmap(hint, [1, 2]) == [str, str]


def case_annotations_changed_in_place(pmap):
    class Marker:
        pass

    def decorate(function):
        function.__annotations__["extra"] = Marker
        function.__annotations__.pop("return", None)
        return function

    @decorate
    def function(a: int) -> int: ...

    class Extended:
        a: int

    same(pmap, lambda _: Extended.__annotations__, [1])
    Extended.__annotations__["b"] = Marker
    same(pmap, lambda _: (function.__annotations__, Extended.__annotations__), [1, 2])
    del Extended.__annotations__["b"]
    same(pmap, lambda _: Extended.__annotations__, [1, 2])


def case_annotations_set_by_hand(pmap):
    def function(a, b): ...

    function.__annotations__ = {"a": "int", "return": float}
    same(pmap, lambda _: function.__annotations__, [1])


def case_annotations_are_not_evaluated_by_sending(pmap):
    if not LAZY:
        return
    calls = []

    def note():
        calls.append(1)
        return int

    class Watched:
        x: note()

        def method(self, y: note()) -> note(): ...

    def function(a: note()) -> note(): ...

    assert pmap(lambda _: (Watched().x if hasattr(Watched, "x") else 0, function(1)), [1]) == [
        (0, None)
    ]
    assert calls == []


def case_wrapped_functions_keep_annotations(pmap):
    def plain(x: int, y: "Slotted") -> list[int]:
        return [x]

    @functools.wraps(plain)
    def wrapper(*args):
        return plain(*args)

    same(pmap, lambda x: (wrapper(x, None), str(inspect.signature(wrapper))), [1, 2])


def case_a_reference_inside_of_a_generic_of_typing(pmap):
    @dataclasses.dataclass
    class Node:
        x: int
        kids: typing.List["Node"] = dataclasses.field(default_factory=list)  # noqa: UP006
        count: ClassVar[typing.List["Node"]] = []  # noqa: UP006

    same(pmap, lambda x: Node(x, [Node(x + 1)]), [1, 2])


def case_a_reference_keeps_no_globals_of_exec(pmap):
    space = {
        "__name__": "plug_in",
        "BIG": BIG,
        "dataclass": dataclasses.dataclass,
        "typing": typing,
    }
    exec("@dataclass\nclass Node:\n    kids: typing.List['Node'] = None", space)
    if LAZY:
        exec("@dataclass\nclass Node:\n    kids: typing.List[Node] = None", space)

    assert parallel_facade.explain(space["Node"]).size < 50_000


def case_hints_that_typing_and_dataclasses_made(pmap):
    made = [Row, Pair, Called]
    if sys.version_info >= (3, 12):  # before that, it calls itself one of the module `types`
        made.append(Made)
    same(pmap, lambda cls: names_of(typing.get_type_hints(cls)), made)


def case_a_value_that_loads_its_module_while_it_is_sent(pmap):
    if not LAZY:
        return
    space = {}
    exec("def template(x):\n    return t'value {x}'", space)
    template = space["template"]

    assert [one.values for one in pmap(template, [1, 2])] == [(1,), (2,)]
    assert pmap(lambda one: one.values, [template(3)]) == [(3,)]


def case_sentinels_of_the_builtin_kind(pmap):
    if sys.version_info < (3, 15):
        return
    local = sentinel("local")
    assert pmap(lambda x: (x is local, repr(local)), [local, 1]) == [
        (True, "local"),
        (False, "local"),
    ]
    assert pmap(lambda _: (local, ABSENT), [1])[0] == (local, ABSENT)
    assert pmap(lambda x: x is ABSENT, [ABSENT, local]) == [True, False]


if __name__ == "__main__":
    main(globals())
