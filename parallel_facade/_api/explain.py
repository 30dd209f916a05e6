"""`explain`: whether an object can travel to a worker; if not, which part prevents it and why."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

from parallel_facade._common.call_ids import new_call_id
from parallel_facade._common.errors import described
from parallel_facade._configuration.settings import resolve
from parallel_facade._serialization.encoder import Encoder
from parallel_facade._serialization.offenders import Offender, tree


@dataclass(frozen=True)
class Explanation:
    """Whether an object can travel, and which parts prevent it; printing it shows a tree.

    Attributes:
        travels: Whether it can be sent to a worker process.
        size: Number of bytes that are sent; `None` if it cannot travel.
        offenders: The parts that cannot travel, nearest first, each with ``path``, ``type_name``,
            ``reason`` and ``remedy``. At most 20.

    >>> from parallel_facade import explain
    >>> explain(lambda x: x + 1).travels
    True
    """

    travels: bool
    size: int | None
    offenders: tuple[Offender, ...]
    _name: str = "obj"

    def __str__(self) -> str:
        if self.travels:
            return f"{self._name} can travel: {self.size:,} bytes"
        return f"{self._name} cannot travel\n\n{tree(list(self.offenders))}"

    __repr__ = __str__


def explain(obj: Any, /) -> Explanation:
    """Explain whether *obj* can travel to a worker; if not, which part prevents it and why.

    The check is the same as in a call before anything runs, with the configured serializer. It
    runs the code that pickling runs (`__reduce_ex__`, `__getstate__`), but no property, and raises
    nothing.

    Args:
        obj: A callable, an argument, or any other object.

    Returns:
        An `Explanation`: print it, or read its fields.

    >>> import socket
    >>> from parallel_facade import explain
    >>> with socket.socket() as connection:
    ...     report = explain(lambda x: connection.send(x))
    >>> report.travels
    False
    >>> report.offenders[0].path
    "global 'connection'"
    """
    name = "func" if callable(obj) else "obj"
    encoder = Encoder(new_call_id(), resolve({}).serializer)
    try:
        size = len(encoder.dump(obj))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        offenders = tuple(encoder.offenders({name: obj})) or (_whole(name, obj, exc),)
        return Explanation(False, None, offenders, _title(name, obj))
    return Explanation(True, size, (), _title(name, obj))


def _whole(name: str, obj: Any, error: BaseException) -> Offender:
    """Return *obj* as its own offender: pickling refused it the first time, but not again."""
    kind = type(obj).__qualname__
    return Offender(name, kind, described(error), "send plain data instead", ((name, kind),))


def _title(name: str, obj: Any) -> str:
    if isinstance(obj, types.FunctionType | types.MethodType):
        return f"{name} {obj.__qualname__}"
    return f"{name}, a {type(obj).__qualname__}"


for _public in (Explanation, explain):
    # help() shows the name under which users import these.
    _public.__module__ = "parallel_facade"
