"""From a received head to the head we send on: hop-by-hop fields go, forwarded fields come (RFC 9110 §7.6)."""

from __future__ import annotations

from functools import lru_cache

from trioproxy.http1.fields import Fields, make_field, split_list, values, write
from trioproxy.http1.forwarded import Origin
from trioproxy.http1.framing import Coding
from trioproxy.http1.head import RequestHead, ResponseHead
from trioproxy.http1.rewrite import MAPPED, Mapping

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
    }
)
# A client may not have these removed by naming them in Connection: what is behind us relies on them, and also on
# whatever else begins with X-Forwarded-.
PROTECTED = FORWARDED | {b"host", b"content-length", b"authorization", b"cookie", b"x-request-id"}
# RFC 9110 §6.5.1: fields of framing, routing, authentication and request control have no place in trailers.
NOT_IN_TRAILERS = HOP_BY_HOP | {
    b"trailer",
    b"set-cookie",
    b"content-encoding",
    b"content-type",
    b"content-range",
    b"expect",
    b"range",
}
REQUEST_ID = b"x-request-id"
_ALWAYS_DROPPED = HOP_BY_HOP | FORWARDED | {REQUEST_ID}  # from requests; some are replaced by our own
_KEPT_IN_RESPONSES = frozenset({b"content-length", b"set-cookie"})


def _named(head: RequestHead | ResponseHead) -> list[bytes]:
    """What Connection declares to be for this hop only."""
    lines = head.special.get(b"connection")
    return split_list(lines) if lines else []


def _is_protected(name: bytes) -> bool:
    return name in PROTECTED or name.startswith(b"x-forwarded-")


def request_head(
    head: RequestHead,
    *,
    target: bytes,
    backend: bytes,
    origin: Origin,
    request_id: bytes,
    prefix: bytes,
    upgrade: bytes | None,
    extensions: bool = True,
) -> bytes:
    """The head for the backend, as bytes.

    `backend` is the backend's host:port, for want of a Host. `prefix` is what was stripped from the path (empty:
    nothing). `upgrade` holds the protocols to offer, in lower case; they are sent in the client's spelling.
    `extensions`: whether Sec-WebSocket-Extensions go on.
    """
    if head.plain is not None and extensions:
        forwarded = _forwarded_lines(origin, prefix)
        return b"%b %b HTTP/1.1%b%bX-Request-Id: %b\r\n\r\n" % (head.method, target, head.plain, forwarded, request_id)
    drop = _ALWAYS_DROPPED
    if named := [name for name in _named(head) if not _is_protected(name)]:
        drop = drop.union(named)
    if b"expect" in head.special and not head.expect_continue:
        drop |= {b"expect"}
    if not extensions:
        drop |= {b"sec-websocket-extensions"}
    fields: Fields = [field for field in head.fields if field[0] not in drop]
    host = head.authority or backend
    if b"host" not in head.special:
        # An HTTP/1.0 client may leave Host out; what we send is HTTP/1.1, where it is required.
        fields.insert(0, make_field(b"Host", host))
    if head.framing.coding is Coding.CHUNKED:
        fields.append(make_field(b"Transfer-Encoding", b"chunked"))
    hop: list[bytes] = []
    if b"trailers" in split_list(head.special.get(b"te", [])):
        fields.append(make_field(b"TE", b"trailers"))
        hop.append(b"TE")
    if upgrade is not None:
        fields.append(make_field(b"Upgrade", _as_spelled(head, upgrade)))
        hop.append(b"Upgrade")
    if hop:
        fields.append(make_field(b"Connection", b", ".join(hop)))
    fields += _forwarded_fields(origin, prefix, host)
    fields.append(make_field(b"X-Request-Id", request_id))
    return write(b"%b %b HTTP/1.1" % (head.method, target), fields)


def _forwarded_fields(origin: Origin, prefix: bytes, host: bytes) -> Fields:
    fields = [
        make_field(b"X-Forwarded-For", ", ".join(origin.chain).encode()),
        make_field(b"X-Forwarded-Proto", origin.scheme.encode()),
        make_field(b"X-Forwarded-Host", origin.host or host),
        make_field(b"X-Forwarded-Port", b"%d" % origin.port),
    ]
    if origin.prefix or prefix:
        fields.append(make_field(b"X-Forwarded-Prefix", origin.prefix + prefix))
    return fields


@lru_cache(maxsize=4096)
def _forwarded_lines(origin: Origin, prefix: bytes) -> bytes:
    """For a canonical head, which has a Host: the lines between its own and our last one."""
    return b"\r\n%b\r\n" % b"\r\n".join(
        b"%b: %b" % (name, value) for _, name, value in _forwarded_fields(origin, prefix, b"")
    )


def _as_spelled(head: RequestHead | ResponseHead, protocols: bytes) -> bytes:
    """These protocols in the spelling of the head's Upgrade field: not everyone compares them as RFC 9110 §7.8 says."""
    wanted = protocols.split(b", ")
    listed = [part.strip(b" \t") for line in head.special[b"upgrade"] for part in line.split(b",")]
    return b", ".join(protocol for protocol in listed if protocol.lower() in wanted)


def response_fields(head: ResponseHead) -> Fields:
    """The fields of a backend's response that go to the client, before framing and our own are added."""
    named = _named(head)
    drop = HOP_BY_HOP.union(named) - _KEPT_IN_RESPONSES if named else HOP_BY_HOP
    fields = [field for field in head.fields if field[0] not in drop]
    if head.framing.coding is Coding.NONE and (head.status < 200 or head.status == 204):
        return [field for field in fields if field[0] != b"content-length"]  # RFC 9110 §8.6 forbids it there
    return _one_content_length(fields, head.special.get(b"content-length", []))


def _one_content_length(fields: Fields, lines: list[bytes]) -> Fields:
    if not lines or (len(lines) == 1 and b"," not in lines[0]):
        return fields
    # RFC 9110 §8.6: a list of equal lengths is replaced by one; different ones were refused when parsed.
    kept = [field for field in fields if field[0] != b"content-length"]
    place = next(at for at, field in enumerate(fields) if field[0] == b"content-length")
    lower, name, value = fields[place]
    kept.insert(place, (lower, name, value.partition(b",")[0].strip()))
    return kept


def mapped_response_head(
    head: ResponseHead, mapping: Mapping | None, *, chunked: bool, close: bool, request_id: bytes, cookie: bytes = b""
) -> bytes:
    """The head for the client, as bytes, with what the backend says about its own root mapped.

    `cookie`: one of our own to be set, beside the backend's; empty = none.
    """
    if head.plain is None or (mapping is not None and not MAPPED.isdisjoint(head.special)):
        fields = response_fields(head)
        if mapping is not None:
            fields = mapping.fields(fields)
        if cookie:
            fields += [make_field(name, value) for name, value in _pinning(head, cookie)]
        return response_head(head, fields, chunked=chunked, close=close, request_id=request_id)
    return b"HTTP/1.1 %d %b%b%b%b%b%b\r\n\r\n" % (
        head.status,
        head.reason,
        head.plain,
        b"".join(b"\r\n%b: %b" % field for field in _pinning(head, cookie)) if cookie else b"",
        b"\r\nTransfer-Encoding: chunked" if chunked else b"",
        b"" if REQUEST_ID in head.special else b"\r\nX-Request-Id: " + request_id,
        b"\r\nConnection: close" if close else b"",
    )


def _pinning(head: ResponseHead, cookie: bytes) -> list[tuple[bytes, bytes]]:
    """Our cookie, and that nobody may keep it for others: to a cache Set-Cookie does not say so (RFC 9111 §7.3)."""
    said = split_list(values(head.fields, b"cache-control"))
    own = (b"Set-Cookie", cookie)
    return [own] if b"private" in said or b"no-store" in said else [own, (b"Cache-Control", b"private")]


def response_head(head: ResponseHead, fields: Fields, *, chunked: bool, close: bool, request_id: bytes) -> bytes:
    """The head for the client, as bytes: `fields`, our framing, and X-Request-Id unless the backend set one."""
    out = list(fields)
    if chunked:
        out.append(make_field(b"Transfer-Encoding", b"chunked"))
    if REQUEST_ID not in head.special:
        out.append(make_field(b"X-Request-Id", request_id))
    if close:
        out.append(make_field(b"Connection", b"close"))
    return write(b"HTTP/1.1 %d %b" % (head.status, head.reason), out)


def informational_head(head: ResponseHead) -> bytes:
    """A 1xx as it goes to the client."""
    return write(b"HTTP/1.1 %d %b" % (head.status, head.reason), response_fields(head))


def switching_head(head: ResponseHead, *, upgrade: bytes, request_id: bytes, cookie: bytes = b"") -> bytes:
    """A 101 as it goes to the client. `upgrade` is the protocol, in lower case; the backend's spelling is kept.

    `cookie`: as for `mapped_response_head`.
    """
    fields = response_fields(head)
    if cookie:
        fields.append(make_field(b"Set-Cookie", cookie))
    fields.append(make_field(b"Upgrade", _as_spelled(head, upgrade)))
    fields.append(make_field(b"Connection", b"Upgrade"))
    if REQUEST_ID not in head.special:
        fields.append(make_field(b"X-Request-Id", request_id))
    return write(b"HTTP/1.1 101 %b" % (head.reason or b"Switching Protocols"), fields)


def trailers(fields: Fields, head: RequestHead | ResponseHead | None = None) -> Fields:
    """The trailers that may be passed on, of a message with this head: its Connection may name some of them."""
    drop = NOT_IN_TRAILERS.union(_named(head)) if head is not None else NOT_IN_TRAILERS
    return [field for field in fields if field[0] not in drop and not _is_protected(field[0])]
