"""Reports: every exception arrives as itself or says what it was."""

import array
import concurrent.futures
import marshal
import pickle
import traceback
import types

import dill
import pytest

import parallel_facade
from parallel_facade import (
    ParallelFacadeError,
    RemoteError,
    TaskTimeoutError,
    WorkerCrashedError,
)
from parallel_facade._common.call_ids import new_call_id
from parallel_facade._serialization.encoder import Encoder
from parallel_facade._worker import outcome_recorder
from parallel_facade._worker.outcome_recorder import OutcomeLog, OutcomeRecorder
from parallel_facade._worker.outcomes import Failure, captured, decode_report


def there_and_back(*values, **failures):
    recorder = OutcomeRecorder(Encoder(new_call_id(), "dill"))
    recorder.open(len(values))
    for place, value in enumerate(values):
        if (failure := failures.get(f"_{place}")) is None:
            recorder.add(place, value)
        else:
            recorder.fail(place, failure.error)
    recorder.close(len(values))
    return decode_report([recorder.part().data])


def error_back(error):
    return there_and_back(None, _0=Failure(error, "text")).failures[0]


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class HoldsWhatCannotTravel(Exception):
    def __init__(self, message, connection):
        super().__init__(message)
        self.connection = connection


class CannotBeRebuilt(Exception):
    def __reduce__(self):
        raise TypeError("never")


class Rude(Exception):
    def __str__(self):
        raise LookupError("rude")


def test_values_of_every_kind_keep_their_places():
    values = [1, "x", None, [1, 2], {"a": (3,)}, b"\0"]

    assert there_and_back(*values).values == values


def test_an_exception_keeps_class_arguments_attributes_and_notes():
    error = ValueError("a", 2)
    error.add_note("noted")
    error.extra = [1]

    back = error_back(error).error

    assert (type(back), back.args, back.__notes__, back.extra) == (
        ValueError, ("a", 2), ["noted"], [1],
    )  # fmt: skip


def test_an_exception_whose_init_cannot_be_called_again():
    back = error_back(KeywordOnly(code=7)).error

    assert (type(back), back.code, str(back)) == (KeywordOnly, 7, "code 7")


def test_an_attribute_that_cannot_travel_is_left_behind():
    back = error_back(HoldsWhatCannotTravel("lost", (x for x in []))).error

    assert type(back) is HoldsWhatCannotTravel
    assert back.args == ("lost",)
    assert not hasattr(back, "connection")


def test_an_exception_whose_class_cannot_travel_says_what_it_was():
    class Refuses(Exception):
        running = (x for x in [])

    back = error_back(Refuses("again")).error

    assert isinstance(back, RemoteError)
    assert back.type_name.endswith("Refuses")
    assert back.remote_traceback == "".join(traceback.format_exception(Refuses("again")))


def test_a_broken_reduce_is_worked_around():
    assert type(error_back(CannotBeRebuilt("x")).error) is CannotBeRebuilt


def test_an_exception_that_cannot_be_printed():
    try:
        raise Rude
    except Rude as exc:
        failure = captured(exc)

    assert type(error_back(failure.error).error) is Rude


@pytest.mark.parametrize(
    "error", [OSError(2, "gone", "file"), KeyError("k"), SystemExit(3), UnicodeError("u"),
              ExceptionGroup("group", [ValueError(1), KeyError(2)])],
)  # fmt: skip
def test_built_in_exceptions(error):
    back = error_back(error).error

    assert type(back) is type(error)
    assert str(back) == str(error)


def test_the_workers_traceback_is_the_cause_and_an_own_cause_stays():
    failure = Failure(ValueError("x"), "Traceback: in worker")
    assert "in worker" in str(failure.to_raise().__cause__)

    with_cause = ValueError("y")
    with_cause.__cause__ = KeyError("original")
    assert isinstance(Failure(with_cause, "text").to_raise().__cause__, KeyError)


OWN_ERRORS = [
    parallel_facade.BackendLostError("m"),
    parallel_facade.ConfigurationError("m"),
    parallel_facade.PoolClosedError("m"),
    parallel_facade.RemoteError("m", type_name="t", remote_traceback="tb"),
    parallel_facade.SerializationError("m", path="item 3"),
    parallel_facade.TaskTimeoutError("m"),
    parallel_facade.WorkerCrashedError("m", exitcode=-9),
]


@pytest.mark.parametrize("library", [pickle, dill])
@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_our_own_errors_survive_pickling_with_their_fields(library, error):
    error.add_note("noted")

    back = library.loads(library.dumps(error))

    assert (type(back), back.args, vars(back)) == (type(error), error.args, vars(error))
    assert isinstance(back, ParallelFacadeError)


def test_every_own_error_is_in_the_list_above():
    assert {type(error) for error in OWN_ERRORS} == set(ParallelFacadeError.__subclasses__())


def test_a_timeout_is_every_kind_of_timeout():
    import multiprocessing

    assert issubclass(TaskTimeoutError, TimeoutError)
    assert issubclass(TaskTimeoutError, multiprocessing.TimeoutError)


class Log(OutcomeLog):
    """A log with room for everything; it has no slots."""

    stop = (0,)

    def __init__(self):
        self.records = []

    def may_begin(self, place):
        return True

    def open_slots(self, kind, count):
        return array.array("q" if kind is int else "d", bytes(8 * count))

    def write(self, record):
        self.records.append(record)
        return True


def test_an_outcome_too_large_for_the_log_is_sent_at_once(monkeypatch):
    large, log, sent = "a text of more than 2 GiB", Log(), []

    def dumps(value):
        if value == large:
            raise ValueError("unmarshallable object")
        return marshal.dumps(value)

    monkeypatch.setattr(outcome_recorder, "marshal", types.SimpleNamespace(dumps=dumps))
    recorder = OutcomeRecorder(Encoder(new_call_id(), "dill"), log, sent.append)
    recorder.open(3)
    for place, value in enumerate(("small", large, "later")):
        recorder.add(place, value)
    recorder.close(3)

    assert decode_report([sent[0].data]).values == ["small", large]
    assert decode_report([sent[0].data, recorder.part().data]).values == ["small", large, "later"]
    assert len(log.records) == 2


def test_a_crash_is_what_the_standard_library_calls_a_broken_executor():
    error = WorkerCrashedError("died", exitcode=3)

    assert isinstance(error, concurrent.futures.BrokenExecutor)
    assert isinstance(pickle.loads(pickle.dumps(error)), WorkerCrashedError)
