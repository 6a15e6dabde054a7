"""The lane for heads of the canonical shape, which nearly all have: an expression proves it, slices do the rest.

Canonical is: HTTP/1.1, a path as target, every field as `Name: value` with one space and no other blank around the
value, nothing twice that the path looks at, and nothing odd among it (codings of requests, expectations, upgrades,
options of Connection other than "close" and "keep-alive"). Whatever else comes is declined, and h11 looks at it.
That this lane declines or agrees with the other one is tested as a property.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from trioproxy.http1.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Coding, Framing
from trioproxy.http1.head import RequestHead, ResponseHead
from trioproxy.http1.target import valid_host

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Possessive throughout: a head that does not fit is found so in one pass.
_FIELDS = rb"(?:\r\n" + _TOKEN + rb": [!-~\x80-\xff][\t -~\x80-\xff]*+(?<![\t ]))*+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") (/[!\"$-~]*+) HTTP/1\.1")
_REQUEST_FIELDS = re.compile(_FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: ([\t -~\x80-\xff]*+))?+(" + _FIELDS + rb")\r\n\r\n")

# Looked for in lower case. Of a response's fields also those that a route may have to map are told.
_IN_REQUESTS = re.compile(
    rb"\n(?=[hcteukpfx])(host|connection|content-length|transfer-encoding|te|expect|upgrade|keep-alive"
    rb"|proxy-(?:connection|authenticate|authorization)|forwarded|x-forwarded-(?:for|proto|host|port|prefix)"
    rb"|x-request-id): "
)
_IN_RESPONSES = re.compile(
    rb"\n(?=[ctuklrspx])(connection|content-length|transfer-encoding|te|upgrade|keep-alive"
    rb"|proxy-(?:connection|authenticate|authorization)|x-request-id|location|content-location|refresh|set-cookie): "
)
_ODD_IN_REQUESTS: Final = frozenset(
    {
        b"transfer-encoding",
        b"te",
        b"expect",
        b"upgrade",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
    }
)
_ODD_IN_RESPONSES: Final = _ODD_IN_REQUESTS - {b"transfer-encoding", b"keep-alive"}
_KEPT_IN_REQUESTS: Final = frozenset({b"host", b"content-length"})
_DROPPED_FROM_RESPONSES: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})

MAX_REMEMBERED: Final = 2048
"""Bytes of a response head that is kept for the case that it comes again."""

Special = Mapping[bytes, list[bytes]]


class _Taken(NamedTuple):
    """What the fields of a request say."""

    lines: int
    special: Special
    plain: bytes
    framing: Framing
    keep_alive: bool
    host: bytes


class RequestLane:
    """Takes apart the request heads of one connection.

    The fields are looked at once as long as they stay the same, as they do while a page polls its server.
    """

    def __init__(self) -> None:
        self._block = b""
        self._taken = _take_fields(b"")

    def take(self, raw: bytes, *, header_count: int) -> RequestHead | None:
        """Take a complete request head apart; None when this lane declines it."""
        line_end = raw.find(b"\r")
        line = _REQUEST_LINE.fullmatch(raw, 0, line_end)
        if line is None or not raw.endswith(b"\r\n\r\n"):
            return None
        method, target = line.groups()
        block = raw[line_end:-4]
        if block != self._block:
            self._block, self._taken = block, _take_fields(block)
        taken = self._taken
        if taken is None or taken.lines > header_count or method in _REFUSED_METHODS:
            return None
        _, special, plain, framing, keep_alive, host = taken
        path, mark, query = target.partition(b"?")
        return RequestHead(
            method, path, mark + query, host, True, self._block, special, framing, keep_alive, False, [], plain
        )


def canonical_request(raw: bytes, *, header_count: int) -> RequestHead | None:
    """Take a complete request head apart; None when this lane declines it."""
    return RequestLane().take(raw, header_count=header_count)


def _take_fields(block: bytes) -> _Taken | None:
    if not _REQUEST_FIELDS.fullmatch(block):
        return None
    special: dict[bytes, list[bytes]] = {}
    plain, at = b"", 0
    for field in _IN_REQUESTS.finditer(block.lower()):
        name = field[1]
        if name in special or name in _ODD_IN_REQUESTS:
            return None
        end = block.find(b"\r", field.end())
        if end < 0:
            end = len(block)
        special[name] = [block[field.end() : end]]
        if name not in _KEPT_IN_REQUESTS:
            plain += block[at : field.start() - 1]
            at = end
    keep_alive = _keeps_alive(special)
    framing = _counted(special)
    host = special.get(b"host")
    if keep_alive is None or framing is None or host is None or not valid_host(host[0]):
        return None
    return _Taken(block.count(b"\r"), special, plain + block[at:] if at else block, framing, keep_alive, host[0])


class ResponseLane:
    """Takes apart the response heads of one connection to a backend.

    One that comes again, as to a page that polls, is not looked at anew; nor is what it was taken apart into changed.
    """

    __slots__ = ("_head", "_header_count", "_method", "_raw")

    def __init__(self) -> None:
        self._raw = b""
        self._method = b""
        self._header_count = 0
        self._head: ResponseHead | None = None

    def take(self, raw: bytes, *, method: bytes, header_count: int) -> ResponseHead | None:
        """As `canonical_response`."""
        if raw == self._raw and method == self._method and header_count == self._header_count:
            return self._head
        head = canonical_response(raw, method=method, header_count=header_count)
        if len(raw) <= MAX_REMEMBERED:
            self._raw, self._method, self._header_count, self._head = raw, method, header_count, head
        return head


def canonical_response(raw: bytes, *, method: bytes, header_count: int) -> ResponseHead | None:
    """Take a complete response head apart; None when this lane declines it. `method` is that of the request."""
    found = _RESPONSE.fullmatch(raw)
    if found is None:
        return None
    digits, reason, block = found.groups()
    if block.count(b"\r") > header_count:
        return None
    special: dict[bytes, list[bytes]] = {}
    plain, at = b"", 0
    for field in _IN_RESPONSES.finditer(block.lower()):
        name = field[1]
        if name in _ODD_IN_RESPONSES or (name in special and name != b"set-cookie"):
            return None
        end = block.find(b"\r", field.end())
        if end < 0:
            end = len(block)
        special.setdefault(name, []).append(block[field.end() : end])
        if name in _DROPPED_FROM_RESPONSES:
            plain += block[at : field.start() - 1]
            at = end
    status = int(digits)
    keep_alive = _keeps_alive(special)
    framing = _framing(special, method, status)
    if keep_alive is None or framing is None:
        return None
    return ResponseHead(
        status,
        reason or b"",
        True,
        block,
        special,
        framing,
        keep_alive,
        None,
        plain + block[at:] if at else block,
    )


def _keeps_alive(special: Special) -> bool | None:
    """What Connection says, with "keep-alive" as default (RFC 9112 §9.3); None when it says more than that."""
    lines = special.get(b"connection")
    if lines is None:
        return True
    option = lines[0].lower()
    return True if option == b"keep-alive" else False if option == b"close" else None


def _counted(special: Special) -> Framing | None:
    """The framing by Content-Length, or its absence; None when that is not a plain number."""
    lines = special.get(b"content-length")
    if lines is None:
        return NO_BODY
    digits = lines[0]
    if not digits.isdigit() or len(digits) > 18:  # 18 digits stay below 2**63
        return None
    length = int(digits)
    return Framing(Coding.LENGTH, length) if length else NO_BODY


def _framing(special: Special, method: bytes, status: int) -> Framing | None:
    """RFC 9112 §6.3 for a response; None where the other lane has to say more."""
    codings = special.get(b"transfer-encoding")
    counted = _counted(special)
    if counted is None or (codings and (b"content-length" in special or codings[0].lower() != b"chunked")):
        return None
    if status == 204 and b"content-length" in special:
        return None  # RFC 9110 §8.6 forbids the field there
    if method == b"HEAD" or status in (204, 304):
        return NO_BODY
    if codings:
        return CHUNKED
    return counted if b"content-length" in special else UNTIL_CLOSE
