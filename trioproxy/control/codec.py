"""Records as bytes, between the processes of one worker.

Both ends are processes of one program: the supervisor starts each forwarder from its own files, talks to it over a
socket pair that nobody else holds, and both compare versions first. So pickle serves, which knows our frozen
records as they are. It is no protection against a forwarder that means harm, which runs as the same user anyway;
what may be named in a record is limited all the same, so that garbage ends as a ControlError and as nothing else.
A checksum comes first: of one damaged byte pickle can make a request for gigabytes.
"""

from __future__ import annotations

import io
import pickle
import zlib
from typing import Any, TypeVar

from trioproxy.errors import ControlError
from trioproxy.routing.assembly import Given, assemble, share, take_apart
from trioproxy.routing.route import Model

PROTOCOL = 5
CHECKSUM = 4
"""Bytes of a record's CRC-32, big-endian, before it."""

_ROOMS = ("trioproxy.config.", "trioproxy.control.", "trioproxy.observe.", "trioproxy.routing.")
_OTHERS = frozenset(
    {
        ("collections", "Counter"),
        ("ipaddress", "IPv4Network"),
        ("ipaddress", "IPv6Network"),
        ("ipaddress", "IPv4Address"),
        ("ipaddress", "IPv6Address"),
        ("pathlib", "PosixPath"),
    }
)
T = TypeVar("T")


def encode(record: object) -> bytes:
    """Write a record of `control.messages`, or one that is made of such."""
    buffer = io.BytesIO()
    _Pickler(buffer, PROTOCOL).dump(record)
    return seal(buffer.getvalue())


def seal(pickled: bytes) -> bytes:
    """Put its checksum before it."""
    return zlib.crc32(pickled).to_bytes(CHECKSUM, "big") + pickled


def decode(data: bytes, kind: type[T]) -> T:
    """Read a record back. Raises ControlError when it is garbage, or of another kind."""
    view = memoryview(data)
    if zlib.crc32(view[CHECKSUM:]) != int.from_bytes(view[:CHECKSUM], "big"):
        raise ControlError("what came over the control channel is damaged")
    try:
        record: object = _Unpickler(io.BytesIO(view[CHECKSUM:])).load()
    except Exception as error:  # noqa: BLE001 - whatever garbage may come to
        raise ControlError(f"what came over the control channel is no record: {error!r}") from None
    if not isinstance(record, kind):
        raise ControlError(f"what came over the control channel is a {type(record).__name__}")
    return record


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        # pydantic's own way back runs Python code several times per model: thrice as slow, for 100 000 routes.
        if isinstance(obj, Model):
            return _revive, (type(obj), take_apart(obj), obj.__pydantic_fields_set__)
        if type(obj) is Given:  # comes out as the one set that is shared over there
            return share, (tuple(sorted(obj)),)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # A dotted name would lead from a module of ours to those that it imports.
        if "." in global_name or not (module_name.startswith(_ROOMS) or (module_name, global_name) in _OTHERS):
            raise ControlError(f"{module_name}.{global_name} has no place in a record")
        return super().find_class(module_name, global_name)


def _revive(model: type[Model], values: tuple[object, ...], given: set[str]) -> Model:
    """A model as it was: validated when it was made, and not again."""
    return assemble(model, values, given)
