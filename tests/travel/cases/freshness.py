"""What is changed between two calls on a warm pool is seen by the next call."""

import contextlib
import datetime
import functools
import importlib
import os
import sys
import tempfile
from unittest import mock

import helpers
from runner import main, same

LIMIT = 1
TABLE = {"k": 1}
LATER: int


def reads_limit(x):
    return LIMIT * x


def helper(x):
    return ("first", x)


def uses_helper(x):
    return helper(x)


def with_default(x, step=1, *, scale=1):
    return (x + step) * scale


class Model:
    rate = 1

    def f(self, x):
        return self.rate * x

    def g(self, x):
        return ("g", x)


@contextlib.contextmanager
def put_back(*places):
    """Restore the attributes (object, name) at the end."""
    missing = object()
    before = [(obj, name, vars(obj).get(name, missing)) for obj, name in places]
    try:
        yield
    finally:
        for obj, name, value in before:
            if value is missing:
                with contextlib.suppress(AttributeError):
                    delattr(obj, name)
            else:
                setattr(obj, name, value)


def this_module():
    return sys.modules[__name__]


def case_a_global(pmap):
    with put_back((this_module(), "LIMIT")):
        results = []
        for value in (1, 2, 5):
            globals()["LIMIT"] = value
            results.append((pmap(reads_limit, [1]), pmap(lambda x: LIMIT + x, [1])))

    assert results == [([1], [2]), ([2], [3]), ([5], [6])]


def case_a_container_changed_in_place(pmap):
    def read(_):
        return dict(TABLE)

    first = pmap(read, [0])
    TABLE["new"] = 2
    second = pmap(read, [0])
    del TABLE["new"]

    assert (first, second, pmap(read, [0])) == ([{"k": 1}], [{"k": 1, "new": 2}], [{"k": 1}])


def case_a_helper_redefined(pmap):
    with put_back((this_module(), "helper")):
        first = pmap(uses_helper, [1])
        globals()["helper"] = lambda x: ("second", x)
        second = pmap(uses_helper, [1])

    assert (first, second, pmap(uses_helper, [1])) == (
        [("first", 1)],
        [("second", 1)],
        [("first", 1)],
    )


def case_default_arguments(pmap):
    with put_back():
        first = pmap(with_default, [1])
        with_default.__defaults__, with_default.__kwdefaults__ = (10,), {"scale": 2}
        second = pmap(with_default, [1])
        with_default.__defaults__, with_default.__kwdefaults__ = (1,), {"scale": 1}

    assert (first, second, pmap(with_default, [1])) == ([2], [22], [2])


def case_class_attributes(pmap):
    model = Model()
    with put_back((Model, "rate")):
        first = pmap(model.f, [1])
        Model.rate = 3
        second = pmap(model.f, [1])

    assert (first, second, pmap(model.f, [1])) == ([1], [3], [1])


def case_class_attributes_of_items(pmap):
    with put_back((Model, "rate")):
        Model.rate = 4
        assert pmap(lambda m: m.f(1), [Model()]) == [4]


def case_attributes_added_and_removed(pmap):
    def read(_):
        return getattr(Model, "extra", "none")

    with put_back((Model, "extra")):
        first = pmap(read, [0])
        Model.extra = "some"
        second = pmap(read, [0])

    assert (first, second, pmap(read, [0])) == (["none"], ["some"], ["none"])


def case_a_method_replaced(pmap):
    model = Model()
    with put_back((Model, "g")):
        first = pmap(model.g, [1])
        Model.g = lambda self, x: ("new", x)
        second = pmap(model.g, [1])

    assert (first, second) == ([("g", 1)], [("new", 1)])


def case_a_class_redefined(pmap):
    def define(version):
        class Thing:
            def f(self, x):
                return (version, x)

        Thing.__qualname__ = "Thing"
        return Thing

    results = []
    for version in (1, 2):
        cls = define(version)
        back = pmap(lambda thing: (thing.f(0), thing), [cls()])
        results.append((back[0][0], type(back[0][1]) is cls))

    assert results == [((1, 0), True), ((2, 0), True)]


def case_old_instances_keep_the_old_class(pmap):
    def define(version):
        class Thing:
            number = version

        return Thing

    old, new = define(1), define(2)
    pmap(lambda one: one, [old()])

    numbers = pmap(lambda one: (one.number, isinstance(one, new)), [old(), new()])

    assert numbers == [(1, False), (2, True)]


def case_a_late_definition(pmap):
    def use(x):
        return LATER + x

    globals()["LATER"] = 7
    try:
        assert pmap(use, [1]) == [8]
    finally:
        del globals()["LATER"]
    assert type(pmap(use, [1], return_exceptions=True)[0]) is NameError


def case_a_global_of_another_module(pmap):
    with put_back((helpers, "RATE")):
        results = [pmap(helpers.rate, [1])]
        helpers.RATE = 5
        results += [pmap(helpers.rate, [1]), pmap(lambda x: helpers.RATE * x, [1])]

    assert [*results, pmap(helpers.rate, [1])] == [[1], [5], [5], [1]]


def case_containers_of_another_module(pmap):
    helpers.TABLE["b"] = 2
    helpers.NAMES.append("y")
    try:
        assert pmap(helpers.table, ["a", "b"]) == [1, 2]
        assert pmap(helpers.names, [0]) == [("x", "y")]
    finally:
        del helpers.TABLE["b"], helpers.NAMES[1:]
    assert pmap(helpers.table, ["b"]) == [None]
    assert pmap(helpers.names, [0]) == [("x",)]


def case_a_function_of_another_module_replaced(pmap):
    with put_back((helpers, "helper")):
        first = pmap(helpers.uses_helper, [1])
        helpers.helper = lambda x: ("patched", x)
        second = pmap(helpers.uses_helper, [1])

    assert (first, second, pmap(helpers.uses_helper, [1])) == (
        [("original", 1)],
        [("patched", 1)],
        [("original", 1)],
    )


def case_a_method_of_another_module_patched_and_put_back(pmap):
    with mock.patch.object(helpers.Settings, "f", lambda self, x: ("patched", x)):
        assert pmap(helpers.makes_settings, [2]) == [("patched", 2)]
    assert pmap(helpers.makes_settings, [2]) == [2]
    assert pmap(helpers.Settings().f, [2]) == [2]


def case_a_function_of_another_module_replaced_by_other_callables(pmap):
    with put_back((helpers, "helper")):
        for callable_, expected in [
            (lambda x: 9, 9),
            (abs, 2),
            (functools.partial(pow, 3), 9),
            (functools.lru_cache(lambda x: 8), 8),
        ]:
            helpers.helper = callable_
            assert pmap(helpers.uses_helper, [2]) == [expected]
    assert pmap(helpers.uses_helper, [2]) == [("original", 2)]


def case_globals_behind_an_instance_of_another_module(pmap):
    with put_back((helpers, "RATE")):
        helpers.RATE = 6
        assert pmap(helpers.through_an_instance, [2]) == [12]
    assert pmap(helpers.through_an_instance, [2]) == [2]


def case_values_of_the_standard_library_in_another_module(pmap):
    with put_back((helpers, "SINCE")):
        helpers.SINCE = None
        assert pmap(helpers.since, [0]) == [None]
        helpers.SINCE = datetime.date(2022, 1, 1)
        assert pmap(helpers.since, [0]) == [datetime.date(2022, 1, 1)]
    helpers.counts["mark"] = 5
    try:
        assert pmap(lambda _: helpers.counts["mark"], [0]) == [5]
    finally:
        del helpers.counts["mark"]


def case_classes_of_another_module(pmap):
    with put_back(*((helpers.Settings, name) for name in ("rate", "extra", "instance"))):
        helpers.Settings.rate, helpers.Settings.extra = 9, ("e",)
        helpers.Settings.instance = helpers.Settings()
        assert pmap(helpers.Settings().f, [1]) == [9]
        assert pmap(helpers.Settings.of_class, [0]) == [(9, ("e",), True)]
    assert pmap(helpers.Settings.of_class, [0]) == [(1, (), False)]


def case_defaults_of_another_module(pmap):
    helpers.with_default.__defaults__ = (100,)
    try:
        assert pmap(helpers.with_default, [1]) == [101]
    finally:
        helpers.with_default.__defaults__ = (1,)
    assert pmap(helpers.with_default, [1]) == [2]


def case_an_object_put_in_the_place_of_none(pmap):
    with put_back((helpers, "MODEL")):
        helpers.MODEL = helpers.Named("first")
        results = pmap(helpers.model, [0])
        helpers.MODEL = helpers.Named("second")
        results += pmap(helpers.model, [0])
    assert [*results, *pmap(helpers.model, [0])] == ["first", "second", None]


def case_plug_ins_that_the_program_registers(pmap):
    helpers.PLUGINS["mine"] = plugged_in
    try:
        assert pmap(helpers.plugin, ["mine"]) == [("plugged", 5)]
    finally:
        helpers.PLUGINS.clear()


class Mine(helpers.Plug, key="mine"):
    pass


def case_subclasses_that_a_base_of_another_module_registers(pmap):
    same(pmap, Mine().describe, range(2))
    assert pmap(lambda key: helpers.Plug.known[key] is Mine, ["mine"]) == [True]


def plugged_in(x):
    return ("plugged", x)


def case_caches_forget_what_was_computed_with_the_old(pmap):
    with put_back((helpers, "RATE")):
        first = pmap(helpers.cached, [1, 1, 1, 1])
        helpers.RATE = 3
        helpers.cached.cache_clear()
        second = pmap(helpers.cached, [1, 1, 1, 1])
    helpers.cached.cache_clear()

    assert (first, second) == ([1] * 4, [3] * 4)


def case_what_workers_keep_in_a_module_stays(pmap):
    seen = {pmap(helpers.counted, [None])[0] for _ in range(3)}

    assert len(seen) == 3, "two workers: one of them counts twice at least"


RECODED = """
import functools

def f(x):
    return (1, x)

def twice(function):
    def wrapper(x):
        return function(x), function(x)
    return wrapper

@twice
def g(x):
    return 1

class A:
    def m(self, x):
        return 1
    @staticmethod
    def s(x):
        return 1
    @classmethod
    def c(cls, x):
        return 1
    @property
    def p(self):
        return 1
    @functools.cached_property
    def q(self):
        return 1
"""


def case_code_that_is_put_into_functions_that_are_there(pmap):
    """Replace the code of functions and methods in place, as IPython's autoreload does."""
    with tempfile.TemporaryDirectory() as folder:
        name = f"recoded_{os.getpid()}_{id(folder)}"
        with open(os.path.join(folder, f"{name}.py"), "w") as source:
            source.write(RECODED)
        sys.path.insert(0, folder)
        try:
            module = importlib.import_module(name)
            use = {
                "f": module.f,
                "g": module.g,
                "m": module.A().m,
                "s": module.A.s,
                "c": module.A.c,
                "partial": functools.partial(module.A.m, None),
                "inner": lambda x: module.A().m(x),
                "p": lambda x: module.A().p,
                "q": lambda x: module.A().q,
            }
            # The classes are not asked for before: workers have loaded the module with f alone.
            before = pmap(module.f, [0])
            module.f.__code__ = (lambda x: (2, x)).__code__
            module.g.__closure__[0].cell_contents.__code__ = (lambda x: 2).__code__
            module.A.m.__code__ = (lambda self, x: 2).__code__
            module.A.s.__code__ = (lambda x: 2).__code__
            module.A.c.__func__.__code__ = (lambda cls, x: 2).__code__
            module.A.p.fget.__code__ = (lambda self: 2).__code__
            vars(module.A)["q"].func.__code__ = (lambda self: 2).__code__
            after = {key: pmap(func, [0])[0] for key, func in use.items()}
        finally:
            sys.path.remove(folder)

    assert before == [(1, 0)]
    assert after == dict.fromkeys(use, 2) | {"f": (2, 0), "g": (2, 2)}


def case_attributes_that_are_not_to_be_asked(pmap):
    with tempfile.TemporaryDirectory() as folder:
        name = f"proxied_{os.getpid()}_{id(folder)}"
        with open(os.path.join(folder, f"{name}.py"), "w") as source:
            source.write(
                "class Proxy:\n def __getattr__(self, name): raise RuntimeError(name)\n"
                "class Meta(type):\n def __getattr__(cls, name): return {}[name]\n"
                "class Coded(metaclass=Meta): pass\n"
                "class Task:\n request = Proxy()\n def run(self, x): return -x\n"
                "def f(x): return Coded.__name__\n"
            )
        sys.path.insert(0, folder)
        try:
            module = importlib.import_module(name)
            results = pmap(module.Task().run, [1]), pmap(module.f, [1])
        finally:
            sys.path.remove(folder)

    assert results == ([-1], ["Coded"])


def case_a_module_reloaded_after_an_edit(pmap):
    with tempfile.TemporaryDirectory() as folder:
        name = f"edited_{os.getpid()}_{id(folder)}"
        file = os.path.join(folder, f"{name}.py")
        sys.path.insert(0, folder)
        try:
            results = []
            for version in (1, 2):
                with open(file, "w") as source:
                    # Of another size: in one second, Python tells the byte code of two versions
                    # apart by their size alone.
                    source.write(
                        f"# {version * 'x'}\ndef inner(x): return ({version}, x)\n"
                        f"def f(x): return inner(x)\nclass A:\n def g(self, x): return {version}\n"
                    )
                importlib.invalidate_caches()
                if version == 1:
                    module = importlib.import_module(name)
                else:
                    importlib.reload(module)
                results += [pmap(module.f, [0]), pmap(module.A().g, [0])]
                back = pmap(lambda cls: cls(), [module.A])[0]
                assert type(back) is module.A
        finally:
            sys.path.remove(folder)
            sys.modules.pop(name, None)

    assert results == [[(1, 0)], [1], [(2, 0)], [2]]


def case_partials_and_closures_of_now(pmap):
    settings = {"a": 1}
    function = functools.partial(lambda key, _: settings[key], "a")
    first = pmap(function, [0])
    settings["a"] = 2

    assert (first, pmap(function, [0])) == ([1], [2])


if __name__ == "__main__":
    main(globals())
