"""Header fields as a list of (lower-case name, name as sent, value), in the order they came."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIELD = re.compile(rb"\r\n([^:\r]+):[ \t]*([^\r]*)")

Field = tuple[bytes, bytes, bytes]
Fields = list[Field]


def make_field(name: bytes, value: bytes) -> Field:
    """A field of our own making."""
    return (name.lower(), name, value)


def split_block(block: bytes) -> Fields:
    """Take apart the field lines of a head, each with its CRLF before it. They must be of sound shape."""
    return [(name.lower(), name, value.rstrip(b" \t")) for name, value in _FIELD.findall(block)]


def values(fields: Fields, name: bytes) -> list[bytes]:
    """All values of a field, in order; `name` in lower case."""
    return [value for lower, _, value in fields if lower == name]


def first(fields: Fields, name: bytes) -> bytes | None:
    """The first value of a field, or None; `name` in lower case."""
    for lower, _, value in fields:
        if lower == name:
            return value
    return None


def split_list(lines: list[bytes]) -> list[bytes]:
    """A comma-separated list field, joined over its lines, in lower case, empty elements left out (RFC 9110 §5.6.1)."""
    return [token for line in lines for part in line.split(b",") if (token := part.strip(b" \t").lower())]


def write(start_line: bytes, fields: Iterable[Field]) -> bytes:
    """A complete head: start line, fields as sent, empty line."""
    lines = [start_line]
    lines += [b"%b: %b" % (name, value) for _, name, value in fields]
    lines.append(b"\r\n")
    return b"\r\n".join(lines)
