"""Parsing complete heads: a fast lane for the canonical shape, h11 for everything else.

h11 is the authority on what a head says. It is lenient where a proxy must not be (bare LF, folded lines, equal
duplicates of Content-Length), because what we pass on is read again by another parser: a request that two
parsers split differently is a smuggled request. So the shape is checked on the raw bytes first, and a head that
h11 would repair is refused.

Nearly all heads are canonical and go through that lane (`canonical.py`); what it declines goes through a fresh h11
connection each. Nobody above sees which lane a head came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import h11

from trioproxy.errors import BadRequest, HeadTooLarge, ProxyError, UpstreamProtocol
from trioproxy.http1.canonical import canonical_request, canonical_response
from trioproxy.http1.fields import Fields, split_block, split_list
from trioproxy.http1.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Coding, Framing
from trioproxy.http1.head import RequestHead, ResponseHead
from trioproxy.http1.target import split_target

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS = rb"((?:\r\n" + _TOKEN + rb":[\t -~\x80-\xff]*)*)\r\n\r\n"
# RFC 9112 §5.2 lets a proxy unfold folded lines of a response, which h11 does.
_FOLDED_FIELDS = rb"((?:\r\n" + _TOKEN + rb":[\t -~\x80-\xff]*(?:\r\n[ \t][\t -~\x80-\xff]*)*)*)\r\n\r\n"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([0-9])" + _FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t -~\x80-\xff]*))?" + _FOLDED_FIELDS)
_FOLD = re.compile(rb"\r\n[ \t]")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_DIGITS = re.compile(rb"[0-9]{1,18}")  # 18 digits stay below 2**63
_ALLOW = (b"Allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS")
_REFUSED_METHODS = frozenset({b"CONNECT", b"TRACE"})
# What the path asks of a request head or response head again; found in one pass over the fields.
SPECIAL = frozenset(
    {
        b"host",
        b"connection",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"te",
        b"keep-alive",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-request-id",
    }
)
_NONE: list[bytes] = []


def parse_request(raw: bytes, *, header_count: int) -> RequestHead:
    """Parse a complete request head. Raises BadRequest, HeadTooLarge."""
    return canonical_request(raw, header_count=header_count) or odd_request(raw, header_count=header_count)


def parse_response(raw: bytes, *, method: bytes, header_count: int) -> ResponseHead:
    """Parse a complete response head to a request with this method. Raises UpstreamProtocol."""
    head = canonical_response(raw, method=method, header_count=header_count)
    return head or odd_response(raw, method=method, header_count=header_count)


def odd_request(raw: bytes, *, header_count: int) -> RequestHead:
    """As `parse_request`, for any request head: the lane for those that are not canonical."""
    found = _REQUEST.fullmatch(raw)
    if found is None:
        raise BadRequest(_why_malformed(raw))
    method, target, minor, block = found.groups()
    fields = split_block(block)
    special = _index(fields)
    if len(fields) > header_count:
        raise HeadTooLarge(f"the head has more than {header_count} fields")
    http11 = minor != b"0"
    framing = _request_framing(fields, special, block, http11=http11)
    _ask_h11(raw, h11.Connection(h11.SERVER, max_incomplete_event_size=len(raw) + 1), BadRequest)
    if method in _REFUSED_METHODS:
        raise BadRequest(f"the method {method.decode()} is not served here", status=405, headers=(_ALLOW,))
    path, query, authority = split_target(method, target, special.get(b"host", _NONE), http11=http11)
    connection = split_list(special.get(b"connection", _NONE))
    expect = split_list(special.get(b"expect", _NONE))
    if expect and expect != [b"100-continue"]:
        raise BadRequest("only the expectation 100-continue is understood", status=417)
    return RequestHead(
        method=method,
        path=path,
        query=query,
        authority=authority,
        http11=http11,
        block=block,
        special=special,
        framing=framing,
        # HTTP/1.0 clients get one response per connection: that is what all of them can read.
        keep_alive=http11 and b"close" not in connection,
        # RFC 9110 §10.1.1: the expectation of an HTTP/1.0 client is ignored.
        expect_continue=bool(expect) and http11 and framing.coding is not Coding.NONE,
        upgrade=_asked_upgrade(special, connection) if http11 and framing.coding is Coding.NONE else [],
    )


def odd_response(raw: bytes, *, method: bytes, header_count: int) -> ResponseHead:
    """As `parse_response`, for any response head: the lane for those that are not canonical."""
    found = _RESPONSE.fullmatch(raw)
    if found is None:
        raise UpstreamProtocol("the backend's response head is malformed")
    minor, digits, reason, block = found.groups()
    status = int(digits)
    http11 = minor != b"0"
    event = _ask_h11(raw, _h11_client(status), UpstreamProtocol)
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    if _FOLD.search(block):
        block = b"".join(b"\r\n%b: %b" % item for item in event.headers.raw_items())
    fields = split_block(block)
    special = _index(fields)
    if len(fields) > header_count:
        raise UpstreamProtocol(f"the backend's response head has more than {header_count} fields")
    connection = split_list(special.get(b"connection", _NONE))
    return ResponseHead(
        status=status,
        reason=reason or b"",
        http11=http11,
        block=block,
        special=special,
        framing=_response_framing(status, special, method=method, http11=http11),
        keep_alive=b"close" not in connection and (http11 or b"keep-alive" in connection),
        upgrade=_chosen_upgrade(special, connection) if status == 101 else None,
    )


def _index(fields: Fields) -> dict[bytes, list[bytes]]:
    special: dict[bytes, list[bytes]] = {}
    for lower, _, value in fields:
        if lower in SPECIAL:
            special.setdefault(lower, []).append(value)
    return special


def _ask_h11(raw: bytes, connection: h11.Connection, error: type[ProxyError]) -> object:
    try:
        connection.receive_data(raw)
        return connection.next_event()
    except h11.RemoteProtocolError as exc:
        raise error(f"malformed head: {exc}") from None


_ANY_REQUEST = h11.Request(method="GET", target="/", headers=[("Host", "backend")])
_ANY_UPGRADE = h11.Request(
    method="GET", target="/", headers=[("Host", "backend"), ("Connection", "upgrade"), ("Upgrade", "any")]
)


def _h11_client(status: int) -> h11.Connection:
    # h11 reads a response only after it wrote a request. What we send is written by ourselves, so any request
    # will do: framing is decided below, from the fields. Only a 101 must have been asked for.
    connection = h11.Connection(h11.CLIENT)
    connection.send(_ANY_UPGRADE if status == 101 else _ANY_REQUEST)
    return connection


def _why_malformed(raw: bytes) -> str:
    parts = raw.partition(b"\r\n")[0].split(b" ")
    if len(parts) != 3:
        return "the request line is not: method, target, version, with one space between"
    if not _VERSION.fullmatch(parts[2]) or not parts[2].startswith(b"HTTP/1."):
        return "the protocol version is not HTTP/1.1 or HTTP/1.0"
    if not re.fullmatch(rb"[!-~]+", parts[1]):
        return "the target has bytes that must be percent-encoded"
    if b"\r\n " in raw or b"\r\n\t" in raw:
        return "a header line is folded or begins with a blank"
    return "the method or a header line is malformed"


def _request_framing(fields: Fields, special: Mapping[bytes, list[bytes]], block: bytes, *, http11: bool) -> Framing:
    # RFC 9112 §6.3, without its leniency towards repeated and listed lengths.
    lengths = special.get(b"content-length")
    codings = special.get(b"transfer-encoding")
    if codings:
        if lengths:
            raise BadRequest("both Content-Length and Transfer-Encoding are given")
        if not http11:
            raise BadRequest("Transfer-Encoding is not part of HTTP/1.0")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise BadRequest("Transfer-Encoding must be exactly: chunked", status=501)
        return CHUNKED
    if not lengths:
        return NO_BODY
    if len(lengths) != 1:
        raise BadRequest("Content-Length is given more than once")
    if not _DIGITS.fullmatch(lengths[0]) or _has_padded_length(block, fields):
        raise BadRequest("Content-Length is not a number")
    length = int(lengths[0])
    return Framing(Coding.LENGTH, length) if length else NO_BODY


def _has_padded_length(block: bytes, fields: Fields) -> bool:
    # Blanks behind a length are legal (RFC 9110 §5.5), unheard of, and read differently by different parsers.
    name = next(name for lower, name, _ in fields if lower == b"content-length")
    return (block + b"\r").partition(b"\n" + name + b":")[2].partition(b"\r")[0][-1:] in (b" ", b"\t")


def _response_framing(status: int, special: Mapping[bytes, list[bytes]], *, method: bytes, http11: bool) -> Framing:
    # RFC 9112 §6.3, in its order. Ambiguity is refused before it is asked whether there is a body at all.
    codings = special.get(b"transfer-encoding")
    lengths = {value.strip(b" \t") for line in special.get(b"content-length", _NONE) for value in line.split(b",")}
    if codings and lengths:
        raise UpstreamProtocol("the backend gave both Content-Length and Transfer-Encoding")
    if codings and ([value.lower() for value in codings] != [b"chunked"] or not http11):
        raise UpstreamProtocol("the backend used a Transfer-Encoding other than chunked")
    if len(lengths) > 1 or not all(_DIGITS.fullmatch(value) for value in lengths):
        raise UpstreamProtocol("the backend's Content-Length is not one number")
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return NO_BODY
    if codings:
        return CHUNKED
    if lengths:
        length = int(lengths.pop())
        return Framing(Coding.LENGTH, length) if length else NO_BODY
    return UNTIL_CLOSE


def _asked_upgrade(special: Mapping[bytes, list[bytes]], connection: list[bytes]) -> list[bytes]:
    # Asked with a body it is served without the upgrade, which RFC 9110 §7.8 allows: no backend reads a request
    # body and another protocol from one connection. h2c never crosses us: we would relay frames blindly.
    if b"upgrade" not in connection:
        return []
    return [protocol for protocol in split_list(special.get(b"upgrade", _NONE)) if protocol not in (b"h2c", b"h2")]


def _chosen_upgrade(special: Mapping[bytes, list[bytes]], connection: list[bytes]) -> bytes:
    chosen = split_list(special.get(b"upgrade", _NONE))
    if b"upgrade" not in connection or len(chosen) != 1:
        raise UpstreamProtocol("the backend switched protocols without naming one")
    return chosen[0]
