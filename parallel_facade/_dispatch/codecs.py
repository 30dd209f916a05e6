"""Codecs that pass calls, chunks and reports to a back-end and back: as objects or as payloads."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any, Protocol

from parallel_facade._common.call_ids import new_call_id
from parallel_facade._common.errors import described
from parallel_facade._common.plain_data import PROTOCOL
from parallel_facade._console.replay import (
    packed_output_request,
)
from parallel_facade._console.tqdm_bars import is_on_terminal
from parallel_facade._dispatch.call_options import Options
from parallel_facade._dispatch.surroundings import Surroundings, packed_state, surroundings_now
from parallel_facade._serialization.buffers.object_store import Store
from parallel_facade._serialization.buffers.shared_memory import SegmentPool
from parallel_facade._serialization.encoder import Encoder, Payload
from parallel_facade._serialization.modules import call_globals as _namespaces
from parallel_facade._worker.loaded_call import CallEnvironment
from parallel_facade._worker.outcomes import (
    ChunkReport,
    decode_report,
    first_traceback,
    have_failures,
)
from parallel_facade._worker.run_chunk import (
    THE_ARGUMENTS,
    THE_CALLABLE,
    Call,
    Chunk,
    name_of,
)
from parallel_facade.backends.base import Backend

_log = logging.getLogger("parallel_facade")


class Codec(Protocol):
    """Converts calls, chunks and reports for any back-end."""

    def pack_call(self, call: Call) -> Any:
        """Return *call* in the form that the back-end takes."""
        ...

    def pack_chunk(self, chunk: Chunk) -> Any:
        """Return *chunk* in the form that the back-end takes."""
        ...

    def size_of(self, packed: Any) -> int:
        """Return the size of a packed chunk in bytes; 0 if it is not bytes."""
        ...

    def deduplicate_buffers(self) -> None:
        """Send a buffer that many items hold only once; from now on, nothing changes the items."""
        ...

    def forget_callable(self) -> None:
        """Release the callable, to whose parts no items refer from now on."""
        ...

    def unpack(self, received: Any, known: int = 0) -> ChunkReport:
        """Return the report in *received*.

        Args:
            received: From the back-end.
            known: How many outcomes, from the first, are known already and need not be rebuilt.
        """
        ...

    def has_failures(self, received: Any) -> bool:
        """Return whether the report holds a failure, without running the user's code."""
        ...

    def first_failure(self, received: Any) -> str:
        """Return the first failure in the report as text, without running the user's code."""
        ...


class ObjectCodec:
    """Passes all objects unchanged, within one process."""

    def pack_call(self, call: Call) -> Call:
        """Return *call* itself."""
        return call

    def pack_chunk(self, chunk: Chunk) -> Chunk:
        """Return *chunk* itself."""
        return chunk

    def size_of(self, packed: Chunk) -> int:  # noqa: ARG002
        """Return 0."""
        return 0

    def deduplicate_buffers(self) -> None:
        """Do nothing, because nothing is sent."""

    def forget_callable(self) -> None:
        """Do nothing, because the callable itself was passed."""

    def unpack(self, received: ChunkReport, known: int = 0) -> ChunkReport:  # noqa: ARG002
        """Return the report itself."""
        return received

    def has_failures(self, received: ChunkReport) -> bool:
        """Return whether anything failed."""
        return bool(received.failures)

    def first_failure(self, received: ChunkReport) -> str:
        """Return the first failure's traceback."""
        failure = next(iter(received.failures.values()))
        return failure.traceback or described(failure.error)


class PayloadCodec:
    """Encodes all objects as our own bytes, so that no pool's pickler handles the user's data.

    Args:
        serializer: As in `Encoder`.
        segment_pool: That of a back-end that takes a `Payload`; `None` for one that takes bytes.
        by_value: As in `Encoder`.
        is_remote: Whether workers may be on other machines.
        has_children: Whether workers are processes that this process has started.
        relay: Whether workers send the output of tasks to the caller.
        has_bar: Whether a progress bar is on the caller's terminal.
        items_may_change: Whether the program runs between the callable and the items.
    """

    def __init__(
        self,
        serializer: str,
        segment_pool: SegmentPool | Store | None = None,
        by_value: tuple[str, ...] = (),
        *,
        is_remote: bool = False,
        has_children: bool = False,
        relay: bool = False,
        has_bar: bool = False,
        items_may_change: bool = False,
    ) -> None:
        self._encoder = Encoder(
            new_call_id(), serializer, segment_pool=segment_pool, by_value=by_value
        )
        self._takes_segments = segment_pool is not None
        self._is_remote = is_remote
        self._has_children = has_children
        self._relay = relay
        self._has_bar = has_bar
        self._items_may_change = items_may_change
        self._form = "one"
        self._here: Surroundings | None = None

    def pack_call(self, call: Call, name: str = THE_CALLABLE) -> Any:
        """Return *call* as a payload; messages call it *name*."""
        self._form = call.form
        payload = self._encoder.encode_callable(
            call[: Call._fields.index("take_times")],
            f"{name} {name_of(call.func)}",
            lambda: {"func": call.func},
            may_change=self._items_may_change,
        )
        here = self._surroundings()
        environment = CallEnvironment(
            self._encoder.call_id,
            self._encoder.serializer,
            here.import_path,
            here.folder,
            self._is_remote,
            None if here.output is None else packed_output_request(here.output),
            call.take_times is not None,
            here.authkey,
            here.settings or None,
            packed_state(here.state, self._encoder),
        )
        data = pickle.dumps((tuple(environment), payload.data), PROTOCOL)
        return self._as_taken(payload._replace(data=data))

    def how(self, call: Call) -> tuple[Any, ...] | None:
        """Return what a payload of *call* depends on besides its callable, to be compared.

        Returns:
            `None` if that cannot be compared.
        """
        here = self._surroundings()
        if here.state or call.take_times is not None or self._encoder.serializer != "dill":
            return None
        return (*call[1:], here, self._is_remote)

    def resume(self, call_id: str, call: Call) -> None:
        """Go on with a call that workers have kept, and of which no payload is needed."""
        self._form = call.form
        self._encoder.call_id = call_id

    @property
    def call_id(self) -> str:
        """The id of the call."""
        return self._encoder.call_id

    def _surroundings(self) -> Surroundings:
        """Return what tasks see of this process, as it was when this was asked for first."""
        if self._here is None:
            self._here = surroundings_now(
                is_remote=self._is_remote,
                has_children=self._has_children,
                relay=self._relay,
                has_bar=self._has_bar,
            )
        return self._here

    def _as_taken(self, payload: Payload) -> Any:
        return payload if self._takes_segments else payload.data

    def pack_chunk(self, chunk: Chunk) -> Any:
        """Return *chunk* as a payload.

        Raises:
            SerializationError: One of its items cannot travel.
        """
        last = chunk.first + len(chunk.items) - 1
        if self._form == "call":
            args, kwds = chunk.items[0]
            return self._as_taken(
                self._encoder.encode_items(
                    chunk, self._form, THE_ARGUMENTS, lambda: {"args": args, "kwds": kwds}
                )
            )
        name = f"item {last}" if len(chunk.items) == 1 else f"items {chunk.first} to {last}"
        return self._as_taken(
            self._encoder.encode_items(
                chunk,
                self._form,
                name,
                lambda: {f"item {at}": item for at, item in enumerate(chunk.items, chunk.first)},
            )
        )

    def size_of(self, packed: Any) -> int:
        """Return the size of the payload and its buffers."""
        return packed.size if self._takes_segments else len(packed)

    def deduplicate_buffers(self) -> None:
        """Place a buffer that many items hold only once."""
        self._encoder.deduplicate_buffers()

    def forget_callable(self) -> None:
        """Release the callable, its buffers and what it refers to."""
        self._encoder.parts = None

    def unpack(self, received: list[Any], known: int = 0) -> ChunkReport:
        """Return the report from its parts in *received*."""
        report = decode_report(received, known)
        # Functions among the results keep their own globals alive.
        _namespaces.forget(self._encoder.call_id)
        return report

    def has_failures(self, received: list[Any]) -> bool:
        """Return whether anything failed."""
        return have_failures(received)

    def first_failure(self, received: list[Any]) -> str:
        """Return the first failure's traceback."""
        return first_traceback(received)


def codec_for(backend: Backend, options: Options, *, items_may_change: bool = False) -> Codec:
    """Return the codec that *backend* needs.

    Args:
        backend: Runs the call.
        options: The options of the call.
        items_may_change: Whether the program runs between the callable and the items.
    """
    can = backend.capabilities
    if can.needs_serialization:
        return PayloadCodec(
            options.settings.serializer,
            backend.segment_pool,
            options.settings.by_value,
            is_remote=can.is_remote,
            has_children=can.has_children,
            relay=options.settings.relay,
            has_bar=is_on_terminal(options.settings.progress),
            items_may_change=items_may_change,
        )
    return ObjectCodec()


def pack_initializer(
    initializer: Callable[[], object],
    serializer: str,
    by_value: tuple[str, ...],
    *,
    has_children: bool,
) -> bytes:
    """Return *initializer* as a payload for `loaded_call.run_initializer`."""
    call = Call(initializer, "call", stops_at_failure=True, seed=None)
    codec = PayloadCodec(serializer, by_value=by_value, has_children=has_children)
    packed: bytes = codec.pack_call(call, "the initializer")
    return packed
