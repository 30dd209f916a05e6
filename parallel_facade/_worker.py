"""What runs on the far side: a chunk's items through the callable, and never an exception out.

    call payload ──once per call──► Call ─┐
    chunk payload ──────────────────────► run_recorded ──► Ledger ──► parts of a report

Guarantees:
    - `OpenCall.run` returns a report whatever the user's objects do while they are rebuilt or run.
    - A call's callable is decoded once per worker, and dropped when the call ends.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar, copy_context
from types import FrameType
from typing import Any, Final, NamedTuple

from parallel_facade import _namespaces, _news
from parallel_facade._classes import pinning_attributes
from parallel_facade._errors import SerializationError, described
from parallel_facade._hearing import Hearing, unpacked_hearing
from parallel_facade._ledger import BLOCK, GO_ON, Ledger, Log
from parallel_facade._outcomes import Failure, Received, Report, captured, encode_unread
from parallel_facade._payload import Cargo, Encoder, decode
from parallel_facade._scopes import is_made_here
from parallel_facade._seeds import kept_state, seed_item
from parallel_facade._segments import Loan, Shelf
from parallel_facade._stores import Fetched
from parallel_facade._telling import Telling
from parallel_facade._timeline import Stopwatch
from parallel_facade._values import KeptAlive


class Call(NamedTuple):
    """A callable and how to apply it, the same for every chunk of a call.

    Attributes:
        func: The user's callable.
        form: How an item becomes arguments; a key of `FORMS`.
        stops_at_failure: Whether the items behind a failure are left alone.
        seed: Seeds one random stream per item; `None` leaves random state alone.
        take_times: Takes what a `Stopwatch` says; `None` if the call has no timeline.
    """

    func: Callable[..., Any]
    form: str
    stops_at_failure: bool
    seed: int | None
    take_times: Callable[[bytes], object] | None = None


def name_of(func: Callable[..., Any]) -> str:
    """Return what *func* calls itself.

    Not its repr(): that of a bound method holds the repr() of its object, which may be long, slow
    or broken.
    """
    name: Any = None
    with suppress(Exception):  # a proxy may raise whatever it is asked for
        name = func.__qualname__
    return name if isinstance(name, str) else type(func).__qualname__


class Chunk(NamedTuple):
    """Consecutive items sent together.

    Attributes:
        first: The index of the first item.
        items: The items; what one is, the call's form says.
        grain: How many of them are begun together. The rest can be taken back before that.
    """

    first: int
    items: list[Any]
    grain: int = 1


def _apply_one(func: Callable[..., Any]) -> Callable[[Any], Any]:
    return func


def _apply_many(func: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda item: func(*item)


def _apply_call(func: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda item: func(*item[0], **item[1])


FORMS: Final = {"one": _apply_one, "many": _apply_many, "call": _apply_call}
"""An item is the argument; a tuple of arguments; a pair of arguments and keywords."""

THE_CALLABLE: Final = "the callable"
THE_ARGUMENTS: Final = "the arguments"
THE_INITIALIZER: Final = "the initializer"

_is_private: ContextVar[bool | None] = ContextVar("parallel_facade_worker", default=None)
"""Whether this worker has its process to itself; `None` for who is no worker. A context variable,
which asyncio.to_thread and its like carry into their threads."""


class WorkerRole:
    """A block in which this thread is a worker: calls that it makes of its own run in itself.

    Args:
        is_private: Whether no other worker runs in this process.
    """

    def __init__(self, *, is_private: bool = False) -> None:
        self._is_private_here = is_private

    def __enter__(self) -> None:
        self._token = _is_private.set(self._is_private_here)

    def __exit__(self, *exc_info: object) -> None:
        _is_private.reset(self._token)


_process_is_worker = False
_ready_since = 0.0
"""When the process, if it is a worker, was ready for its first task."""


def make_process_a_worker() -> None:
    """Mark every thread of this process as a worker, for good."""
    global _process_is_worker
    _process_is_worker = True


def note_ready() -> None:
    """Note that this process has started as a worker."""
    global _ready_since
    _ready_since = time.time()


def is_worker() -> bool:
    """Return whether the current thread runs tasks for somebody else's call."""
    return _process_is_worker or _is_private.get() is not None


def has_private_state() -> bool:
    """Return whether this thread, if it is a worker, has its process to itself."""
    return _process_is_worker or _is_private.get() is not False


def run_chunk(call: Call, chunk: Chunk, catch: type[BaseException] = BaseException) -> Report:
    """Apply *call* to the items of *chunk* and return what they came to.

    Args:
        call: What to apply.
        chunk: What to apply it to.
        catch: What counts as an item's failure. In a worker that is everything, since a
            `SystemExit` would end the worker and with it the innocent items.
    """
    values: list[Any] = []
    failures: dict[int, Failure] = {}
    stopwatch = Stopwatch(call.take_times)
    stopwatch.mark()
    began = time.perf_counter()
    with _applying(call, chunk.first, stopwatch) as apply:
        for position, item in enumerate(chunk.items):
            try:
                values.append(apply(item))
            except catch as exc:
                failures[position] = captured(exc)
                values.append(None)
                if call.stops_at_failure:
                    break
    stopwatch.tell(chunk.first, len(values))
    return Report(values, failures, seconds=time.perf_counter() - began)


def run_recorded(
    call: Call, chunk: Chunk, ledger: Ledger, at_most: float, stopwatch: Stopwatch
) -> tuple[int, float]:
    """Apply *call* to the items of *chunk* and put what they come to into *ledger*.

    Nothing is called for an item whose value goes into a slot: most items of large maps are tiny.

    Args:
        call: What to apply.
        chunk: What to apply it to.
        ledger: Takes the outcomes, and knows when the rest of the items is taken back.
        at_most: Begin no more items once so many were run.
        stopwatch: Notes when.

    Returns:
        How many items were run, and the seconds that it took.
    """
    global _ledger
    _ledger = ledger
    began = time.perf_counter()
    with _applying(call, chunk.first, stopwatch) as apply:
        count = _run_items(call, apply, chunk, ledger, at_most)
    return count, time.perf_counter() - began


def _run_items(
    call: Call, apply: Callable[[Any], Any], chunk: Chunk, ledger: Ledger, at_most: float
) -> int:
    items, grain = chunk.items, chunk.grain
    stop = ledger.stop if grain == 1 else GO_ON
    count = opened = 0
    ledger.open(min(BLOCK, len(items)))
    while count < len(items):
        if count % grain == 0 and (ledger.is_stopped or count >= at_most):
            break
        if count - opened == BLOCK:
            ledger.close(BLOCK)
            ledger.flush()
            opened = count
            ledger.open(min(BLOCK, len(items) - count))
        end = _end_of_stretch(count, len(items), grain, at_most)
        count += _run_stretch(
            call, apply, items[count:end], first=count - opened, ledger=ledger, stop=stop
        )
        if count < end or (call.stops_at_failure and ledger.has_failed):
            break
    ledger.close(count - opened)
    return count


def _end_of_stretch(count: int, total: int, grain: int, at_most: float) -> int:
    """Return up to where items are run without a look at anything but the signal to stop."""
    end = min(total, count - count % BLOCK + BLOCK)
    if grain == 1:
        return int(min(end, max(at_most, count + 1)))
    return min(end, count - count % grain + grain)


_is_copy = False
"""This process is a fork of a worker, made by a task: the worker itself has the items."""

_ledger: Ledger | None = None
"""Where the outcomes of the chunk that is run now go."""


def _note_fork() -> None:
    global _is_copy
    _is_copy = _process_is_worker
    if _is_copy and _ledger is not None:
        # So that the copy need not be asked for with each value that goes into a slot.
        _ledger.leave_slots()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _end_copy(error: BaseException | None) -> None:
    """End this process, as the task that was forked has come to its end in it."""
    code = error.code if isinstance(error, SystemExit) else error
    os._exit(code if isinstance(code, int) else int(code is not None))


def _run_stretch(
    call: Call,
    apply: Callable[[Any], Any],
    items: list[Any],
    *,
    first: int,
    ledger: Ledger,
    stop: Sequence[int],
) -> int:
    """Run *items*, the first of which has place *first* in the ledger; return how many were run."""
    kind, slots = ledger.slots
    place = first
    for place, item in enumerate(items, first):
        if stop[0] and ledger.is_stopped:
            return place - first
        try:
            value = apply(item)
        except BaseException as exc:
            if _is_copy:
                _end_copy(exc)
            kind, slots = ledger.fail(place, exc)
            if call.stops_at_failure:
                break
            continue
        if type(value) is kind:
            try:
                slots[place] = value
                continue
            except ValueError:  # an integer of more than 64 bits, or this process is a copy
                pass
        if _is_copy:
            _end_copy(None)
        kind, slots = ledger.add(place, value)
    return place - first + 1


def item_now() -> int | None:
    """Return the index of the item that this thread runs; `None` if it runs none, or a call.

    It is read from the loop that runs the items, which for tiny ones cannot afford to note it.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not _run_stretch.__code__:
        frame = frame.f_back
    if frame is None or frame.f_locals["call"].form == "call":
        return None
    assert frame.f_back is not None, "it is called by _run_items"
    around = frame.f_back.f_locals
    return int(around["chunk"].first + around["opened"] + frame.f_locals["place"])


def _applying(
    call: Call, first: int, stopwatch: Stopwatch
) -> AbstractContextManager[Callable[[Any], Any]]:
    """Give what to call with each item in turn, the first of which has index *first*."""
    apply = FORMS[call.form](call.func)
    around = nullcontext(apply) if call.seed is None else _seeded(apply, call.seed, first)
    return _timed(around, stopwatch, first) if stopwatch.is_running else around


@contextmanager
def _timed(
    around: AbstractContextManager[Callable[[Any], Any]], stopwatch: Stopwatch, first: int
) -> Iterator[Callable[[Any], Any]]:
    indexes = itertools.count(first)

    def timed(item: Any) -> Any:
        began = time.time()
        try:
            return apply(item)
        finally:
            stopwatch.note(next(indexes), began, time.time())

    with around as apply:
        stopwatch.begin_items()
        try:
            yield timed
        finally:
            stopwatch.end_items()


@contextmanager
def _seeded(apply: Callable[[Any], Any], seed: int, first: int) -> Iterator[Callable[[Any], Any]]:
    indexes = itertools.count(first)

    def seeded(item: Any) -> Any:
        seed_item(seed, next(indexes))
        return apply(item)

    with kept_state():
        yield seeded


class Surroundings(NamedTuple):
    """What a worker needs to know to decode a call.

    Attributes:
        scope: The call's name.
        serializer: How to encode what goes back.
        import_path: The caller's `sys.path`, where its modules are found.
        folder: The caller's working directory, which relative paths mean.
        is_remote: Whether the worker has a `sys.path` of its own.
        hearing: What the caller wants to hear while tasks run; `None` for nothing.
        is_timed: Whether the caller makes a timeline.
        authkey: What lets the worker in at managers of `multiprocessing`, which the caller may have
            made; `None` for nothing.
    """

    scope: str
    serializer: str
    import_path: list[str]
    folder: str
    is_remote: bool = False
    hearing: bytes | None = None
    is_timed: bool = False
    authkey: bytes | None = None

    def apply(self) -> None:
        """Make names of modules and files mean here what they mean to the caller."""
        if self.is_remote:
            # Behind its own: where the two machines share no files, these lead nowhere.
            known = set(sys.path)
            sys.path += [entry for entry in self.import_path if entry not in known]
        elif sys.path != self.import_path:
            sys.path[:] = self.import_path
        with suppress(OSError):  # on another machine there may be no such folder
            if self.folder and os.getcwd() != self.folder:
                os.chdir(self.folder)
        if self.authkey is not None:
            from multiprocessing import process  # its managers are used here, where few are

            process.current_process().authkey = self.authkey


class OpenCall:
    """A call as a worker knows it: decoded when its first chunk arrives."""

    def __init__(
        self, payload: bytes, loans: tuple[Loan | Fetched, ...] = (), shelf: Shelf | None = None
    ) -> None:
        surroundings, self._payload = decode(payload)
        self._loans = loans
        self._surroundings = Surroundings(*surroundings)
        self.scope = self._surroundings.scope
        self._hearing: Hearing | None = None
        # In the caller's own process, what a task says reaches it by itself.
        if (hearing := self._surroundings.hearing) is not None and not is_made_here(self.scope):
            self._hearing = unpacked_hearing(hearing)
        self._encoder = Encoder(
            self.scope, self._surroundings.serializer, returning=True, shelf=shelf
        )
        self._call: Call | None = None
        self._decoding = threading.Lock()  # guards _call, where a worker has several threads
        self._kept: list[Any] = []  # what only weak references of the callable refer to
        # Context variables that travelled are set here, and for this call alone.
        self._context = copy_context()

    def run(  # noqa: PLR0917 - what each kind of worker has of these differs
        self,
        payload: Received,
        log: Log | None = None,
        send_part: Callable[[Cargo], object] | None = None,
        on_begin: Callable[[], object] | None = None,
        at_most: float = math.inf,
        say: Callable[[bytes], object] | None = None,
    ) -> tuple[Cargo, int]:
        """Run the chunk in *payload*; return the last part of the report, and how many were run.

        Args:
            payload: The chunk, which is not kept.
            log: Where outcomes are safe from the end of this process; `None` for nowhere.
            send_part: Sends a part of the report at once.
            on_begin: Called when the callable is there, before the arguments are rebuilt.
            at_most: Begin no more items once so many were run.
            say: Sends a remark; `None` for nowhere.
        """
        ledger = Ledger(self._encoder, log, send_part)
        stopwatch = Stopwatch(say if self._surroundings.is_timed else None, _ready_since)
        try:
            with self._decoding:
                call = self._context.run(self.call)
        except BaseException as exc:
            return self._unread(THE_CALLABLE, exc)
        stopwatch.mark()
        # A copy: a context can be entered by one thread only.
        return self._context.copy().run(
            self._run_telling, say, call, payload, ledger, on_begin, at_most, stopwatch
        )

    def _run_telling(self, say: Callable[[bytes], object] | None, *what: Any) -> tuple[Cargo, int]:
        if say is None or self._hearing is None:
            return self._run(*what)
        with Telling(self._hearing, say, item_now, is_alone=_process_is_worker):
            return self._run(*what)

    def _run(  # noqa: PLR0917 - what `run` takes and has made
        self,
        call: Call,
        payload: Received,
        ledger: Ledger,
        on_begin: Callable[[], object] | None,
        at_most: float,
        stopwatch: Stopwatch,
    ) -> tuple[Cargo, int]:
        if on_begin is not None:
            on_begin()
        with _namespaces.as_main(self.scope), KeptAlive():
            try:
                chunk = Chunk(*decode(*payload))
            except BaseException as exc:
                return self._unread(THE_ARGUMENTS, exc)
            ledger.enter()
            count, seconds = run_recorded(call, chunk, ledger, at_most, stopwatch)
            part = ledger.part(seconds)
            stopwatch.tell(chunk.first, count)
            return part, count

    def _unread(self, part: str, exc: BaseException) -> tuple[Cargo, int]:
        error = SerializationError(
            f"{part} could not be rebuilt in the worker: {described(exc)}{_advice(exc)}", path=part
        )
        failure = Failure(error, captured(exc).traceback)
        return Cargo(encode_unread(part, failure, self._encoder)), 0

    def call(self) -> Call:
        """Return the call, decoding it on first use."""
        self._surroundings.apply()
        if self._call is None:
            with KeptAlive() as self._kept:
                self._call = Call(*decode(self._payload, self._loans))
            self._payload, self._loans = b"", ()
        return self._call

    def close(self) -> None:
        """Forget the callable and its globals."""
        self._call = None
        self._kept = []
        _namespaces.forget(self.scope)
        _news.forget(self.scope)


def run_initializer(payload: bytes) -> None:
    """Run the initializer in *payload*; the globals that it sets stay for the worker's life."""
    opened = OpenCall(payload)
    initializer = opened.call().func
    defined_in = getattr(getattr(initializer, "func", initializer), "__module__", "")
    with (
        _namespaces.as_main(opened.scope),
        _namespaces.pinning(opened.scope, defined_in),
        pinning_attributes(opened.scope),
    ):
        initializer()
    opened.close()


def _advice(exc: BaseException) -> str:
    """Return what to do about *exc*, if that is known."""
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return ""
    package = exc.name.partition(".")[0]
    return (
        f"\n\nHint: the worker has no module {exc.name!r}. Install it there, or send its code "
        f"along: configure(by_value=[{package!r}])."
    )


def run_as_worker(call: Call, chunk: Chunk) -> Report:
    """Run a chunk through a call, as a plain function of an executor's thread."""
    with WorkerRole():
        return run_chunk(call, chunk)
