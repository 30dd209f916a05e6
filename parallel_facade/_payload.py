"""Objects to bytes and back: what is sent, and what is said when something cannot be.

Guarantees:
    - Whatever goes wrong is a `SerializationError` that names each part that cannot travel.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from parallel_facade._deep import is_of_pickler, with_room
from parallel_facade._errors import SerializationError, described
from parallel_facade._interrupts import raise_if_handlers
from parallel_facade._offenders import Offender, find_offenders, tree
from parallel_facade._pickling import DeepPickler, Reducer, StandardPickler, TravelPickler
from parallel_facade._plain import PROTOCOL

decode: Callable[[bytes], Any] = pickle.loads
"""Returns the object that a payload holds; raises whatever the object's own code raises."""


Parts = Callable[[], Mapping[str, Any]]


class Encoder:
    """Turns the objects of one call into payloads.

    Args:
        scope: The call's name, from `new_scope`.
        serializer: ``"dill"``, or ``"pickle"`` for the standard library alone.
        returning: Whether the payloads go back to the side that owns the received classes.
    """

    def __init__(self, scope: str, serializer: str, *, returning: bool = False) -> None:
        self.scope = scope
        self.serializer = serializer
        self.returning = returning
        self._everywhere: frozenset[str] = frozenset()

    def encode(self, obj: Any, name: str, parts: Parts | None = None) -> bytes:
        """Return *obj* as a payload.

        Args:
            obj: What shall travel.
            name: What *obj* is in the user's words, for the error message.
            parts: Returns what the user knows of it, by the names that paths to parts begin with;
                `None` for *obj* itself.

        Raises:
            SerializationError: *obj*, or something in it, cannot travel.
        """
        return self._encode(obj, name, parts)[0]

    def encode_callable(self, obj: Any, name: str, parts: Parts) -> bytes:
        """Return *obj* as `encode` does; later payloads only name the classes that it defines."""
        payload, defined = self._encode(obj, name, parts)
        self._everywhere |= defined
        return payload

    def offenders(self, parts: Mapping[str, Any]) -> list[Offender]:
        """Return what in *parts* cannot travel, in the order of their distance."""
        return find_offenders(parts, self.dump, self._reducer(set(self._everywhere)))

    def dump(self, obj: Any) -> bytes:
        """Return *obj* as bytes; raises whatever goes wrong."""
        return self._dump(obj)[0]

    def _encode(self, obj: Any, name: str, parts: Parts | None) -> tuple[bytes, set[str]]:
        try:
            return self._dump(obj)
        except BaseException as exc:
            # SystemExit too, which an object raised while it was pickled: it is no wish to end.
            if not self.returning:
                if isinstance(exc, KeyboardInterrupt):
                    raise
                raise_if_handlers(exc)
            raise self._refusal(exc, name, {name: obj} if parts is None else parts()) from exc

    def _refusal(
        self, exc: BaseException, name: str, parts: Mapping[str, Any]
    ) -> SerializationError:
        offenders = self.offenders(parts)
        root = offenders[0].path if offenders else name
        message = f"cannot {'return' if self.returning else 'send'} {name}: {described(exc)}"
        if offenders:
            message += f"\n\n{tree(offenders)}"
        if self.serializer == "pickle":
            message += (
                "\n\nserializer='dill' carries lambdas, closures, local classes and what the main "
                "script defines too."
            )
        return SerializationError(message, path=root, offenders=tuple(offenders))

    def _reducer(self, defined: set[str]) -> Reducer | None:
        if self.serializer == "pickle":
            return None
        return Reducer(self.scope, defined, returning=self.returning)

    def _dump(self, obj: Any) -> tuple[bytes, set[str]]:
        """Return *obj* as bytes, and the tokens of the classes that these define."""
        try:
            return self._dump_by(TravelPickler, obj)
        except RecursionError as exc:
            if self.serializer == "pickle" or not is_of_pickler(exc):
                raise
            return with_room(lambda: self._dump_by(DeepPickler, obj))

    def _dump_by(self, pickler: Any, obj: Any) -> tuple[bytes, set[str]]:
        buffer, defined = io.BytesIO(), set(self._everywhere)
        if (reducer := self._reducer(defined)) is None:
            StandardPickler(buffer, PROTOCOL).dump(obj)
        else:
            pickler(buffer, reducer).dump(obj)
        return buffer.getvalue(), defined
