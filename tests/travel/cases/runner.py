"""Runs the cases of a file, as a script or as a module: what holds for one holds for the other.

A case is a function `case_…(pmap)` that asserts. As a script, the file prints one line for each.
"""

import functools
import json
import traceback

import parallel_facade


def cases_in(space):
    """Return the cases of a file by their names."""
    return {name: value for name, value in space.items() if name.startswith("case_")}


def pmap_on(**settings):
    """Return `pmap` with *settings*, and one item per chunk, so that all workers are used."""
    return functools.partial(parallel_facade.pmap, **{"workers": 2, "chunksize": 1, **settings})


def same(pmap, func, items):
    """Assert that *pmap* gives what the builtin `map` gives, in objects of the same classes."""
    items = list(items)
    expected = list(map(func, items))
    got = pmap(func, items)
    assert got == expected, f"{got!r} is not {expected!r}"
    assert [type(one) for one in got] == [type(one) for one in expected]


def main(space):
    """Run all cases of a script and print what came of each, as JSON."""
    outcomes = {}
    for name, case in cases_in(space).items():
        try:
            case(pmap_on(backend="process"))
        except BaseException:
            outcomes[name] = traceback.format_exc()
        else:
            outcomes[name] = ""
    print(json.dumps(outcomes))
