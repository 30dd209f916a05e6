"""Exceptions that tasks raise: the user's own class, with all that it had."""

import errno
import json
import subprocess
import threading
from dataclasses import dataclass

from runner import main


class Custom(Exception):
    def __init__(self, code, *, detail="none"):
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


class KeywordOnly(Exception):
    def __init__(self, *, a, b):
        self.a, self.b = a, b


class Unpicklable(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()
        self.lock.acquire()
        self.kept = 5


class Slots(Exception):
    __slots__ = ("where",)

    def __init__(self, where):
        self.where = where


class FileTrouble(OSError):
    def __init__(self, path, why):
        super().__init__(errno.ENOENT, why, path)
        self.why = why


class SaysHow(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.b = b

    def __reduce__(self):
        return SaysHow, (self.args[0], self.b)


class SaysHowWrongly(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)

    def __reduce__(self):
        return SaysHowWrongly, (1,)


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class OwnBase(BaseException):
    pass


class Several(ExceptionGroup):
    def derive(self, excs):
        return Several(self.message, excs)


class WithState(Exception):
    def __getstate__(self):
        return {"state": 1}

    def __setstate__(self, state):
        self.restored = state


@dataclass(frozen=True)
class Frozen(Exception):
    line: int
    text: str = "t"


@dataclass
class Thawed(Exception):
    line: int


class Attempts:
    """Raises what it is asked for."""

    def __init__(self, make):
        self.make = make

    def __call__(self, x):
        raise self.make(x)


def raised(pmap, make):
    """Return what a task that raises *make(1)* ends in, next to one that does not."""

    def task(x):
        if x == 1:
            raise make(x)
        return x

    results = pmap(task, [0, 1, 2], return_exceptions=True)
    assert results[::2] == [0, 2], results
    return results[1]


def like(pmap, make, *names):
    """Assert that an exception arrives as it was made, with its attributes *names*."""
    got, made = raised(pmap, make), make(1)
    assert type(got) is type(made), got
    assert got.args == made.args
    assert str(got) == str(made)
    for name in names:
        assert getattr(got, name) == getattr(made, name), name
    return got


def case_built_in(pmap):
    for make in (ValueError, KeyError, lambda x: ArithmeticError("a", x), NotImplementedError):
        like(pmap, make)


def case_custom_init(pmap):
    like(pmap, lambda x: Custom(5, detail="d"), "code", "detail")


def case_keyword_only(pmap):
    like(pmap, lambda x: KeywordOnly(a=x, b=2), "a", "b")


def case_unpicklable_attributes_are_left_behind(pmap):
    got = like(pmap, lambda x: Unpicklable("held"), "kept")

    assert pmap.keywords["backend"] == "thread" or not hasattr(got, "lock")


def case_slots(pmap):
    like(pmap, Slots, "where")


def case_the_os_error_family(pmap):
    fields = ("errno", "strerror", "filename", "filename2")
    like(pmap, lambda x: OSError(errno.EPERM, "why", "here", None, "there"), *fields)
    like(pmap, lambda x: FileNotFoundError(2, "gone"), *fields)
    like(pmap, lambda x: OSError("only text"), *fields)
    like(pmap, lambda x: FileTrouble("/p", "because"), *fields, "why")


def case_errors_with_fields_of_their_own(pmap):
    like(pmap, lambda x: UnicodeDecodeError("utf8", b"\xff", 0, 1, "bad"), "object", "start")
    like(pmap, lambda x: ImportError("no", name="n", path="p"), "name", "path")
    like(pmap, lambda x: SyntaxError("s", ("f", 1, 2, "t")), "filename", "lineno")
    like(pmap, lambda x: StopIteration(5), "value")
    like(pmap, lambda x: NameError("n", name="x"), "name")
    like(pmap, lambda x: json.JSONDecodeError("m", "doc", 1), "doc", "pos")
    like(pmap, lambda x: subprocess.CalledProcessError(3, ["c"], b"out"), "returncode", "cmd")


def case_a_reduce_of_its_own(pmap):
    like(pmap, lambda x: SaysHow("a", "b"), "b")
    like(pmap, lambda x: SaysHowWrongly("a", "b"))
    assert raised(pmap, lambda x: WithState("s")).args == ("s",)


def case_causes(pmap):
    def task(x):
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise Custom(x) from exc

    got = pmap(task, [1], return_exceptions=True)[0]

    assert (type(got), type(got.__cause__), got.__cause__.args) == (Custom, KeyError, ("inner",))


def case_contexts(pmap):
    def task(x):
        try:
            raise KeyError("first")
        except KeyError:
            try:
                raise ValueError("second")
            except ValueError:
                raise Custom(x)  # noqa: B904

    got = pmap(task, [1], return_exceptions=True)[0]

    assert (type(got.__context__), type(got.__context__.__context__)) == (ValueError, KeyError)


def case_hidden_contexts(pmap):
    def task(x):
        try:
            raise KeyError("hidden")
        except KeyError:
            raise Custom(x) from None

    got = pmap(task, [1], return_exceptions=True)[0]

    assert (got.__suppress_context__, type(got.__context__)) == (True, KeyError)


def case_a_cycle_of_causes(pmap):
    def make(x):
        first, second = ValueError(1), KeyError(2)
        first.__cause__, second.__cause__ = second, first
        return first

    got = raised(pmap, make)

    assert type(got.__cause__) is KeyError
    assert got.__cause__.__cause__ is got


def case_notes(pmap):
    def make(x):
        error = ValueError("v")
        error.add_note("of the user")
        return error

    assert raised(pmap, make).__notes__[0] == "of the user"


def case_groups(pmap):
    def make(x):
        return ExceptionGroup(
            "g", [ValueError(1), KeywordOnly(a=1, b=2), Several("s", [KeyError(3)])]
        )

    got = raised(pmap, make)

    assert (type(got), str(got)) == (ExceptionGroup, str(make(1)))
    assert [type(one) for one in got.exceptions] == [ValueError, KeywordOnly, Several]
    assert (got.exceptions[1].a, got.exceptions[2].exceptions[0].args) == (1, (3,))


def case_groups_with_members_that_cannot_travel_whole(pmap):
    got = raised(pmap, lambda x: ExceptionGroup("g", [Unpicklable("u"), ValueError(1)]))

    assert [type(one) for one in got.exceptions] == [Unpicklable, ValueError]
    assert got.exceptions[0].kept == 5


def case_dataclasses(pmap):
    like(pmap, lambda x: Frozen(x), "line", "text")
    like(pmap, lambda x: Thawed(x), "line")


def case_local_classes(pmap):
    class Local(Custom):
        pass

    got = raised(pmap, Local)

    assert type(got) is Local
    try:
        pmap(Attempts(Local), [1])
    except Local as exc:
        assert exc.code == 1


def case_that_cannot_be_printed(pmap):
    assert type(raised(pmap, lambda x: Silent())) is Silent


def case_recursion_and_memory(pmap):
    def forever(x):
        return forever(x)

    results = pmap(forever, [1], return_exceptions=True)
    assert type(results[0]) is RecursionError
    like(pmap, lambda x: MemoryError("m"))


def case_returned_not_raised(pmap):
    def make(x):
        error = Custom(x)
        error.__cause__ = KeyError("why")
        return error

    got = pmap(make, [1])[0]

    assert (type(got), got.code, got.__cause__.args) == (Custom, 1, ("why",))


def case_as_items_and_in_closures(pmap):
    error = Custom(7, detail="x")

    assert pmap(lambda e: (type(e) is Custom, e.code, str(e)), [error]) == [(True, 7, "code 7")]
    assert pmap(lambda _: (error.detail, error.args), [0]) == [("x", ("code 7",))]


def case_the_traceback_of_the_worker(pmap):
    def deep(x):
        return 1 / x

    try:
        pmap(deep, [0])
    except ZeroDivisionError as exc:
        assert "while running item 0: 0" in exc.__notes__
    else:
        raise AssertionError("it did not raise")


def case_that_end_programs(pmap):
    for make in (SystemExit, KeyboardInterrupt, GeneratorExit, OwnBase):
        try:
            pmap(Attempts(make), [3])
        except make as exc:
            assert exc.args == (3,)
        else:
            raise AssertionError(f"{make} did not arrive")
        assert pmap(abs, [-1, -2]) == [1, 2]


if __name__ == "__main__":
    main(globals())
