"""Short ways to heads in tests: write the lines, get the parsed head."""

from __future__ import annotations

from trioproxy.http1.head import RequestHead, ResponseHead
from trioproxy.http1.parse import parse_request, parse_response

MANY = 1000  # fields


def raw_head(*lines: bytes) -> bytes:
    """These lines as a head, with its empty line."""
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request(
    *fields: bytes,
    method: bytes = b"GET",
    target: bytes = b"/s/v/",
    version: bytes = b"1.1",
    host: bytes | None = b"hub",
) -> RequestHead:
    """A parsed request with these field lines after its Host."""
    hosts = [] if host is None else [b"Host: " + host]
    return parse_request(raw_head(b"%b %b HTTP/%b" % (method, target, version), *hosts, *fields), header_count=MANY)


def response(
    *fields: bytes, status: bytes = b"200 OK", version: bytes = b"1.1", method: bytes = b"GET"
) -> ResponseHead:
    """A parsed response with these field lines, to a request with `method`."""
    return parse_response(raw_head(b"HTTP/%b %b" % (version, status), *fields), method=method, header_count=MANY)


def cut(data: bytes, size: int) -> list[bytes]:
    """The bytes in pieces of this size."""
    return [data[at : at + size] for at in range(0, len(data), size)]
