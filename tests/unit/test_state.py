"""What is remembered between calls: bounded, and not mistaken for what has died."""

import gc
import weakref

import pytest

from parallel_facade._serialization.modules import state as _state
from parallel_facade._serialization.modules.state import MOST_HELD, recognizer
from parallel_facade._serialization.rules import singleton_tokens as _tokens


class Thing:
    pass


@pytest.mark.parametrize("make", [Thing, list, dict, lambda: [1] * 10, lambda: "".join("text")])
def test_an_object_is_recognized_and_its_successor_is_not(make):
    first = make()
    is_first = recognizer(first)
    assert is_first(first)

    number = id(first)
    del first
    gc.collect()
    successors = [make() for _ in range(100)]
    assert not any(is_first(one) for one in successors if id(one) == number), "the same id, too"


def test_nothing_that_can_be_referred_to_weakly_is_kept_alive():
    first = Thing()
    reference, is_first = weakref.ref(first), recognizer(first)
    del first
    gc.collect()

    assert reference() is None
    assert not is_first(None)


@pytest.mark.parametrize("count", [1, MOST_HELD + 1])
def test_what_a_container_holds_is_not_kept_alive(count):
    elements = [Thing() for _ in range(count)]
    reference, is_first = weakref.ref(elements[0]), recognizer(elements)
    assert is_first(elements)
    del elements
    gc.collect()

    assert reference() is None


def test_a_state_can_be_made_anew():
    _state.caller.marked_changed.add(("a module of this test", "f"))
    _state.worker.applied["a module of this test", "", "RATE"] = b""
    caller, worker = _state.caller, _state.worker
    kept = vars(caller).copy(), vars(worker).copy()
    try:
        _state.reset()

        assert (_state.caller, _state.worker) == (caller, worker), "whoever imported them has them"
        assert not any(vars(caller).values())
        assert not any(vars(worker).values())
    finally:
        vars(caller).update(kept[0])
        vars(worker).update(kept[1])
        caller.marked_changed.discard(("a module of this test", "f"))
        worker.applied.pop(("a module of this test", "", "RATE"))


def test_sentinels_are_remembered_up_to_a_number(monkeypatch):
    monkeypatch.setattr(_tokens, "MOST_KNOWN", 10)
    before = len(_tokens._known)
    tokens = [_tokens.token_for(object()) for _ in range(100)]

    assert len(_tokens._known) <= max(before, 10)
    assert len(_tokens._tokens) == len(_tokens._known)
    assert _tokens.object_for(tokens[-1]) is not None
    assert _tokens.object_for(tokens[0]) is None
