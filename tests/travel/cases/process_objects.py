"""What each process has its own of: a task uses that of its worker."""

import json
import os
import random
import secrets
import sys
import threading
from os import environ
from random import randint
from random import random as draw
from sys import flags, float_info, version_info

import numpy as np
from numpy.random import rand
from runner import main

from parallel_facade import SerializationError
from parallel_facade import pmap as plain_pmap

LOCAL = threading.local()
SYSTEM = random.SystemRandom()
DECODER = json.JSONDecoder(parse_int=float, strict=False)


def are_all_different(values):
    return len(set(values)) == len(values)


def case_the_generator_of_random(pmap):
    assert are_all_different(pmap(lambda _: draw(), range(6)) + pmap(lambda _: draw(), range(6)))


def case_a_method_of_the_generator_itself(pmap):
    assert are_all_different(pmap(randint, [0] * 6, [1 << 60] * 6))


def case_the_generator_of_numpy(pmap):
    assert are_all_different(pmap(lambda _: float(rand(1)[0]), range(6)))
    assert are_all_different(pmap(np.random.random, [None] * 6))


def case_seeds_reach_it(pmap):
    def both(_):
        return draw(), float(rand(1)[0])

    assert pmap(both, range(6), seed=1) == plain_pmap(both, range(6), seed=1, backend="serial")


def case_a_generator_of_the_programs_own(pmap):
    generator, twin = random.Random(5), random.Random(5)

    assert pmap(lambda _: generator.random(), [0]) == [twin.random()]


def case_it_comes_back(pmap):
    assert pmap(lambda _: draw, [0])[0].__self__ is draw.__self__


def case_the_environment(pmap):
    def note(value):
        environ["PARALLEL_FACADE_NOTED"] = value
        return os.environ.pop("PARALLEL_FACADE_NOTED"), environ is os.environ

    assert pmap(note, ["a", "b"]) == [("a", True), ("b", True)]


def case_facts_about_python(pmap):
    def facts(_):
        return version_info >= (3, 8), flags == sys.flags, float_info.max

    assert pmap(facts, [0]) == [(True, True, float_info.max)]


def case_one_session_for_each_thread(pmap):
    LOCAL.session = "the caller's"

    def session(_):
        LOCAL.__dict__.setdefault("session", "a worker's")
        return LOCAL.session

    assert set(pmap(session, range(3))) == {"a worker's"}


def case_entropy_of_the_system(pmap):
    assert are_all_different(pmap(lambda _: SYSTEM.getrandbits(64), range(4)))
    assert pmap(lambda _: secrets.choice([7]), [0]) == [7]
    assert pmap(secrets.choice, [[7]]) == [7]


def case_a_decoder_with_its_settings(pmap):
    assert pmap(DECODER.decode, ['{"a": 1}', '"\n"']) == [{"a": 1.0}, "\n"]


for case in (
    case_a_generator_of_the_programs_own,
    case_one_session_for_each_thread,
    case_seeds_reach_it,
):
    case.needs_processes = True  # within a process, it is the caller's own


def case_the_environment_of_a_worker(pmap):
    def environment(_):
        return os.environ

    (refusal,) = pmap(environment, [0], return_exceptions=True)
    assert type(refusal) is SerializationError
    assert "return a copy: dict(os.environ)" in str(refusal)
    assert pmap(lambda _: dict(os.environ)["PATH"], [0]) == [os.environ["PATH"]]


case_the_environment_of_a_worker.needs_processes = True


def case_facts_that_are_returned(pmap):
    assert pmap(lambda _: (sys.version_info, sys.flags), [0]) == [(sys.version_info, sys.flags)]
    assert type(pmap(lambda _: sys.float_info, [0])[0]) is type(sys.float_info)


if __name__ == "__main__":
    main(globals())
