"""Type parameters and aliases made by statements, as from Python 3.12 on: evaluated late."""

import sys
import typing

import pydantic
from runner import main, same

WITH_DEFAULTS = sys.version_info >= (3, 13)
EVALUATED_LATE = sys.version_info >= (3, 14)
"""Before that, nobody can tell what a bound is without running it."""

type Json = dict[str, Json] | list[Json] | int
type Left = list[Right]
type Right = dict[str, Left]
type Tree[T] = T | list[Tree[T]]


class Bound:
    pass


class Comparable[T: Comparable]:
    def larger(self, other: T) -> T:
        return other


class Parent[T: Child]:
    pass


class Child(Parent[int]):
    pass


class Quoted[T: "Quoted"]:
    pass


class Choice[T: (int, str)]:
    def take(self, x: T) -> T:
        return x


class Holder:
    type Rows = dict[str, Rows] | int

    class Inner:
        pass

    def put[I: Inner](self, one: I, tree: Tree[int]) -> I:
        return one


class Document(pydantic.BaseModel):
    content: Json
    name: str = ""


def generic[T: Bound, *Ts, **P](x: T, *rest: *Ts) -> T:
    return x


def case_a_recursive_alias_in_a_signature(pmap):
    def first(x: Json) -> Json:
        return x

    same(pmap, first, [1, 2])
    same(pmap, lambda _: str(Json.__value__), [1])
    assert pmap(lambda _: Json.__value__.__args__[1].__args__[0] is Json, [1]) == [True]


def case_aliases_that_name_each_other(pmap):
    def leads_back(_):
        return Left.__value__.__args__[0].__value__.__args__[1] is Left

    assert pmap(leads_back, [1, 2]) == [True, True]


def case_an_alias_with_parameters(pmap):
    same(
        pmap, lambda _: (str(Tree.__value__), str(Tree[int]), Tree.__type_params__[0].__name__), [1]
    )
    assert pmap(lambda _: Tree, [1])[0] is Tree


def case_an_alias_in_a_class(pmap):
    same(pmap, lambda _: Holder.Rows.__value__.__args__[1], [1])
    assert pmap(lambda _: Holder.Rows.__value__.__args__[0].__args__[1] is Holder.Rows, [1]) == [
        True
    ]


def case_the_module_of_what_a_statement_made(pmap):
    same(pmap, lambda _: (Json.__module__, Comparable.__type_params__[0].__module__), [1])


def case_a_bound_that_is_its_own_class(pmap):
    same(pmap, lambda x: Comparable().larger(x), [1, 2])
    assert pmap(lambda _: Comparable.__type_params__[0].__bound__ is Comparable, [1]) == [True]
    assert type(pmap(lambda _: Comparable(), [1])[0]) is Comparable


def case_a_bound_that_is_a_subclass(pmap):
    assert pmap(lambda _: Parent.__type_params__[0].__bound__ is Child, [1]) == [True]
    assert type(pmap(lambda _: Child(), [1])[0]) is Child


def case_a_bound_that_is_text_stays_text(pmap):
    same(pmap, lambda _: Quoted.__type_params__[0].__bound__, [1])


def case_constraints(pmap):
    same(pmap, lambda x: (Choice().take(x), Choice.__type_params__[0].__constraints__), [1, "a"])


def case_parameters_of_a_function(pmap):
    def look(_):
        parameters = generic.__type_params__
        annotated = generic.__annotations__["x"] is parameters[0]
        return [one.__name__ for one in parameters], parameters[0].__bound__ is Bound, annotated

    assert pmap(look, [1, 2]) == [(["T", "Ts", "P"], True, True)] * 2


def case_a_bound_out_of_the_body_of_a_class(pmap):
    def look(_):
        return Holder.put.__type_params__[0].__bound__ is Holder.Inner, str(
            Holder.put.__annotations__
        )

    same(pmap, look, [1, 2])


def case_a_parameter_comes_back_as_itself(pmap):
    parameter = Comparable.__type_params__[0]
    assert pmap(lambda _: Comparable.__type_params__[0], [1])[0] is parameter
    assert pmap(lambda one: one is Comparable.__type_params__[0], [parameter]) == [True]


def case_parameters_made_by_a_call(pmap):
    made = typing.TypeVar("made", bound=Bound, covariant=True)
    assert pmap(lambda _: (made.__bound__ is Bound, made.__covariant__), [1]) == [(True, True)]
    assert pmap(lambda _: made, [1])[0] is made


def case_a_model_with_a_recursive_alias(pmap):
    same(pmap, lambda x: Document(content={"a": [x, {"b": 2}]}), [1, 2])
    same(pmap, lambda one: one.model_dump(), [Document(content=[1, [2]])])


def case_defaults(pmap):
    if not WITH_DEFAULTS:
        return
    space = {"__name__": __name__}
    exec("class Two[A, B = list[A]]: pass\ndef f[T = int](x: T) -> T: return x", space)
    two, function = space["Two"], space["f"]
    same(pmap, lambda _: str(two[int].__args__), [1])
    same(pmap, lambda _: function.__type_params__[0].__default__, [1])
    by_call = typing.TypeVar("by_call", default=int)
    same(pmap, lambda _: by_call.__default__, [1])


def case_nothing_is_evaluated_by_sending(pmap):
    if not EVALUATED_LATE:
        return
    seen = []

    def bound():
        seen.append(1)
        return int

    def noted[T: bound()](x: T) -> T:
        return x

    class Late[T: NotDefined]:  # noqa: F821
        pass

    type Alias = NotDefined[int]  # noqa: F821

    def aliased(x: Alias) -> Alias:
        return x

    same(pmap, noted, [1, 2])
    assert seen == []
    same(pmap, aliased, [1, 2])
    assert type(pmap(lambda _: Late(), [1])[0]) is Late


if __name__ == "__main__":
    main(globals())
