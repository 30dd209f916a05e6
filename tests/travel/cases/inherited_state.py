"""State of the caller's interpreter: a task sees it as it was at the call."""

import contextlib
import csv
import decimal
import locale
import logging
import socket
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
from runner import main

from parallel_facade import apply_async


def thirds(_):
    context = decimal.getcontext()
    return len(str(decimal.Decimal(1) / 3)), context.rounding, context.traps[decimal.Inexact]


USUAL = (30, decimal.ROUND_HALF_EVEN, False)


def case_decimal_precision(pmap):
    assert pmap(thirds, [0, 1]) == [USUAL] * 2
    with decimal.localcontext() as context:
        context.prec = 50
        context.rounding = decimal.ROUND_UP
        assert pmap(thirds, [0, 1]) == [(52, decimal.ROUND_UP, False)] * 2
    assert pmap(thirds, [0, 1]) == [USUAL] * 2


def case_decimal_traps(pmap):
    with decimal.localcontext() as context:
        context.traps[decimal.Inexact] = True
        (error,) = pmap(thirds, [0], return_exceptions=True)
    assert type(error) is decimal.Inexact


def case_decimal_flags_of_another_task(pmap):
    def inexact(_):
        before = decimal.getcontext().flags[decimal.Inexact]
        thirds(0)
        return before

    with decimal.localcontext() as context:
        context.prec = 9
        context.clear_flags()
        assert not pmap(inexact, [0], chunksize=1)[0]


def case_decimal_in_a_single_call(pmap):
    backend = pmap.keywords["backend"]
    with decimal.localcontext() as context:
        context.prec = 7
        assert apply_async(thirds, (0,), backend=backend).get(60)[0] == 9


case_decimal_in_a_single_call.needs_processes = True


def case_numpy_errors(pmap):
    def divide(_):
        return np.float64(1) / np.float64(0)

    with np.errstate(divide="raise"):
        (error,) = pmap(divide, [0], return_exceptions=True)
    with np.errstate(divide="ignore"):
        assert pmap(divide, [0]) == [np.inf]
    assert type(error) is FloatingPointError
    assert pmap(lambda _: np.geterr() == np.geterr(), [0]) == [True]


def case_numpy_print_options(pmap):
    def text(_):
        return str(np.array([1.23456, 1e-9]))

    with np.printoptions(precision=2, suppress=True):
        assert pmap(text, [0, 1]) == [text(0)] * 2 == ["[1.23 0.  ]"] * 2
    assert pmap(text, [0]) == [text(0)]


def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)


@contextlib.contextmanager
def setting(read, write, value):
    """Set *value* inside the block."""
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def case_recursion_limit(pmap):
    with setting(sys.getrecursionlimit, sys.setrecursionlimit, 20_000):
        assert pmap(depth, [10, 3000]) == [10, 3000]
        assert pmap(lambda _: sys.getrecursionlimit(), [0, 1]) == [20_000] * 2
    assert pmap(lambda _: sys.getrecursionlimit(), [0, 1]) == [sys.getrecursionlimit()] * 2


def case_digits_of_numbers(pmap):
    with setting(sys.get_int_max_str_digits, sys.set_int_max_str_digits, 0):
        assert pmap(lambda n: len(str(10**n)), [6000]) == [6001]
    (error,) = pmap(lambda n: len(str(10**n)), [6000], return_exceptions=True)
    assert type(error) is ValueError


def case_the_default_timeout_of_sockets(pmap):
    with setting(socket.getdefaulttimeout, socket.setdefaulttimeout, 7):
        assert pmap(lambda _: socket.getdefaulttimeout(), [0, 1]) == [7, 7]
    assert pmap(lambda _: socket.getdefaulttimeout(), [0, 1]) == [None, None]


class Tracing(logging.Logger):
    def trace(self, text):
        self.log(25, "traced %s", text)
        return "traced"


def case_a_logger_of_a_class(pmap):
    with setting(logging.getLoggerClass, logging.setLoggerClass, Tracing):
        logger = logging.getLogger(f"{__name__}.tracing")

    assert pmap(lambda x: logger.trace(x), [1, 2]) == ["traced", "traced"]
    assert pmap(lambda one: (type(one).__name__, one.name), [logger]) == [("Tracing", logger.name)]


def case_the_class_of_new_loggers(pmap):
    def trace(x):
        return logging.getLogger(f"new.{x}").trace(x)

    with setting(logging.getLoggerClass, logging.setLoggerClass, Tracing):
        assert pmap(trace, [1, 2]) == ["traced", "traced"]
    assert pmap(lambda x: type(logging.getLogger(f"later.{x}")).__name__, [1]) == ["Logger"]


def case_methods_put_on_loggers(pmap):
    def loud(self, text):
        return f"{self.name} {text}"

    logging.Logger.loud = loud
    try:
        logger = logging.getLogger("loud")
        assert pmap(lambda x: logger.loud(x), [1]) == ["loud 1"]
        assert pmap(lambda x: logging.getLogger("other").loud(x), [1]) == ["other 1"]
    finally:
        del logging.Logger.loud


def case_the_locale(pmap):
    def numbers(_):
        return locale.setlocale(locale.LC_NUMERIC)

    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    try:
        assert pmap(numbers, [0, 1]) == [locale.setlocale(locale.LC_NUMERIC)] * 2
    finally:
        locale.setlocale(locale.LC_ALL, before)
    assert pmap(numbers, [0, 1]) == ["C", "C"]


def case_dialects_and_limits_of_csv(pmap):
    def read(text):
        return next(csv.reader([text], "of the program"))

    csv.register_dialect("of the program", delimiter="|")
    before = csv.field_size_limit(1 << 20)
    try:
        assert pmap(read, ["a|b", "x" * 200_000]) == [["a", "b"], ["x" * 200_000]]
    finally:
        csv.unregister_dialect("of the program")
        csv.field_size_limit(before)
    (error,) = pmap(read, ["a|b"], return_exceptions=True)
    assert str(error) == "unknown dialect"


def case_namespaces_of_xml(pmap):
    def drawn(_):
        return ElementTree.tostring(ElementTree.Element("{urn:drawing}g")).decode()

    usual = pmap(drawn, [0])
    ElementTree.register_namespace("drawing", "urn:drawing")
    try:
        assert pmap(drawn, [0, 1]) == ['<drawing:g xmlns:drawing="urn:drawing" />'] * 2
    finally:
        del ElementTree._namespace_map["urn:drawing"]
    assert pmap(drawn, [0]) == usual


def case_the_usual_context_of_decimal_itself(pmap):
    before = decimal.DefaultContext.prec
    decimal.DefaultContext.prec = 40
    try:
        assert pmap(thirds, [0]) == [USUAL], "this thread has its context already"
        decimal.setcontext(decimal.DefaultContext)
        assert pmap(thirds, [0, 1]) == [(42, decimal.ROUND_HALF_EVEN, False)] * 2
    finally:
        decimal.DefaultContext.prec = before
        decimal.setcontext(decimal.DefaultContext.copy())


class Formatter:
    def __call__(self, number):
        return f"<{number:.1f}>"


def case_state_that_is_also_a_part_of_the_callable(pmap):
    formatter = Formatter()

    with np.printoptions(formatter={"float": formatter}):
        found = pmap(lambda x: formatter(x) + str(np.array([x])), [1.0])
    assert found == ["<1.0>[<1.0>]"]


class Counter:
    count = 0

    def __call__(self, kind, _):
        self.count += 1
        self.kind = kind


def case_the_handler_of_numpy_errors(pmap):
    counter = Counter()

    def divide(_):
        np.float64(1) / np.float64(0)
        return counter.count, counter.kind

    with np.errstate(all="call", call=counter):
        assert pmap(divide, [0]) == [(1, "divide by zero")]


class WithAGenerator(logging.Logger):
    numbers = (x for x in [1])


def case_state_that_cannot_travel_stays_behind(pmap):
    logging.setLoggerClass(WithAGenerator)
    noted = []
    handler = logging.Handler()
    handler.emit = lambda record: noted.append(record.getMessage())
    logging.getLogger("parallel_facade").addHandler(handler)
    try:
        assert pmap(thirds, [0]) == [USUAL]
    finally:
        logging.setLoggerClass(logging.Logger)
        logging.getLogger("parallel_facade").removeHandler(handler)
    if pmap.keywords["backend"] == "process" and __name__ == "__main__":
        assert len(noted) == 1
        assert noted[0].startswith("tasks do not see the caller's loggers: cannot send"), noted


if __name__ == "__main__":
    main(globals())
