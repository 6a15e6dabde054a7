"""What is written for the next hop: h11 reads it back as what was meant, and no value breaks out of its line."""

from __future__ import annotations

import re
from ipaddress import ip_network

import h11
from http_strategies import TEXT, of, response_heads, sound_requests
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trioproxy.errors import UpstreamProtocol
from trioproxy.http1.forward import request_head, response_fields, response_head
from trioproxy.http1.forwarded import Origin, find_origin, parse_address
from trioproxy.http1.framing import Coding
from trioproxy.http1.parse import parse_request, parse_response
from trioproxy.http1.rewrite import Mapping
from trioproxy.http1.target import valid_host

often = settings(max_examples=200)

ORIGIN = Origin("192.0.2.1", ("192.0.2.1", "10.0.0.1"), "https", b"hub", 443)
HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"te",
    b"transfer-encoding",
    b"upgrade",
}
REPLACED = {b"forwarded", b"x-request-id"} | {
    b"x-forwarded-" + end for end in (b"for", b"proto", b"host", b"port", b"prefix")
}
KEPT = {b"host", b"content-length", b"authorization", b"cookie"}

mappings = st.builds(
    Mapping,
    st.sampled_from([b"", b"/s/v", b"/front/s/v"]),
    st.sampled_from([b"hub", b"hub:5050", b"[::1]:80"]),
    st.just(b"10.0.0.5:8888"),
)
_references = st.sampled_from([
    b"/", b"/login", b"//", b"///", b"http://hub/", b"http://10.0.0.5:8888/x", b"//hub:5050", b"/s/v/x", b"5; url=",
    b"5;url='", b"a=b; Path=", b"; path=/",
])  # fmt: skip
references = st.lists(_references | of(TEXT, max_size=5), max_size=4).map(b"".join).map(bytes.strip)


@given(sound_requests, st.sampled_from([b"", b"/s/v"]))
@often
def test_a_forwarded_request_is_read_back_as_the_one_that_came(raw: bytes, prefix: bytes) -> None:
    head = parse_request(raw, header_count=1000)
    sent = request_head(
        head,
        target=head.path + head.query,
        backend=b"kernel:8888",
        origin=ORIGIN,
        request_id=b"r1",
        prefix=prefix,
        upgrade=b", ".join(head.upgrade) or None,
    )
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(sent)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target, event.http_version) == (head.method, head.path + head.query, b"1.1")

    listed = {part.strip().lower() for value in head.special.get(b"connection", []) for part in value.split(b",")}
    listed = {name for name in listed if name not in KEPT and not name.startswith(b"x-forwarded-")}
    drop = HOP | REPLACED | listed | {b"proxy-authenticate"}
    kept = [(name, value) for lower, name, value in head.fields if lower not in drop]
    items = event.headers.raw_items()
    assert items[: len(kept)] == kept

    ours = dict(items[len(kept) :])
    assert len(ours) == len(items) - len(kept)
    assert ours.pop(b"X-Forwarded-For") == b"192.0.2.1, 10.0.0.1"
    assert (ours.pop(b"X-Forwarded-Proto"), ours.pop(b"X-Forwarded-Host"), ours.pop(b"X-Forwarded-Port")) == (
        b"https",
        b"hub",
        b"443",
    )
    assert ours.pop(b"X-Forwarded-Prefix", b"") == prefix
    assert ours.pop(b"X-Request-Id") == b"r1"
    assert (ours.pop(b"Transfer-Encoding", None) == b"chunked") is (head.framing.coding is Coding.CHUNKED)
    upgrade = ours.pop(b"Upgrade", b"")
    assert [part.lower() for part in upgrade.split(b", ") if part] == head.upgrade
    te = ours.pop(b"TE", None)
    assert te in (None, b"trailers")
    hop = [name for name, value in ((b"TE", te), (b"Upgrade", upgrade)) if value]
    assert ours.pop(b"Connection", b"") == b", ".join(hop)
    assert not ours


@given(
    response_heads,
    st.sampled_from([b"GET", b"HEAD"]),
    mappings,
    st.booleans(),
    references,
    st.sampled_from([b"Location", b"Refresh", b"Set-Cookie"]),
)
@often
def test_a_response_that_is_passed_on_is_read_back_by_h11(
    raw: bytes, method: bytes, mapping: Mapping, close: bool, reference: bytes, name: bytes
) -> None:
    try:
        head = parse_response(
            raw.replace(b"\r\n", b"\r\n" + name + b": " + reference + b"\r\n", 1), method=method, header_count=1000
        )
    except UpstreamProtocol:
        assume(False)
        return
    assume(head.status >= 200)
    chunked = head.framing.coding in (Coding.CHUNKED, Coding.CLOSE)
    sent = response_head(head, mapping.fields(response_fields(head)), chunked=chunked, close=close, request_id=b"r1")
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "hub")]))
    connection.receive_data(sent)
    event = connection.next_event()
    assert isinstance(event, h11.Response)
    assert (event.status_code, event.reason) == (head.status, head.reason)
    items = event.headers.raw_items()
    assert [name for name, _ in items].count(b"Transfer-Encoding") == chunked
    assert ((b"Connection", b"close") in items) is close
    assert any(name.lower() == b"x-request-id" for name, _ in items)
    # Nothing came in and nothing was lost but what is for the hop, or follows from the framing.
    listed = {part.strip().lower() for value in head.special.get(b"connection", []) for part in value.split(b",")} - {
        b"content-length",
        b"set-cookie",
    }
    gone = HOP | listed | {b"proxy-authenticate", b"content-length"}
    kept = [name for lower, name, _ in head.fields if lower not in gone]
    assert [name for name, _ in items if name.lower() not in HOP and name.lower() != b"content-length"][
        : len(kept)
    ] == kept


@given(mappings, references)
@often
def test_mapping_stays_on_its_line_and_does_not_map_twice(mapping: Mapping, value: bytes) -> None:
    for mapped in (mapping.url(value), mapping.refresh(value), mapping.cookie(value)):
        assert re.fullmatch(rb"[\t -~\x80-\xff]*", mapped)
    assert mapping.url(mapping.url(value)) == mapping.url(value)
    assert mapping.refresh(mapping.refresh(value)) == mapping.refresh(value)
    assert mapping.cookie(mapping.cookie(value)) == mapping.cookie(value)


_claimed = st.sampled_from(
    [b"192.0.2.1", b"10.0.0.2", b"10.0.0.3:99", b"[::1]:5", b"::ffff:10.0.0.4", b"unknown", b"", b"for=8.8.8.8"]
)
_lists = st.lists(_claimed | of(TEXT), max_size=5).map(b", ".join)
_special = st.fixed_dictionaries(
    {},
    optional={
        b"x-forwarded-for": st.lists(_lists, min_size=1, max_size=2),
        b"forwarded": st.lists(
            _lists
            | st.lists(st.sampled_from([b'for="', b"for=192.0.2.1", b";proto=https", b", ", b";host=a", b'"'])).map(
                b"".join
            ),
            min_size=1,
            max_size=2,
        ),
        b"x-forwarded-proto": st.lists(st.sampled_from([b"https", b"http, wss"]) | of(TEXT), min_size=1, max_size=2),
        b"x-forwarded-host": st.lists(st.sampled_from([b"public:8443", b"a, b"]) | of(TEXT), min_size=1, max_size=2),
        b"x-forwarded-port": st.lists(st.sampled_from([b"8443", b"0", b"70000"]) | of(TEXT), min_size=1, max_size=2),
        b"x-forwarded-prefix": st.lists(
            st.sampled_from([b"/front", b"//x", b"/a/"]) | of(TEXT), min_size=1, max_size=2
        ),
    },
)
TRUSTED = [ip_network("10.0.0.0/8")]


@given(_special, st.sampled_from(["10.0.0.1", "192.0.2.9", "::ffff:10.0.0.1"]), st.booleans())
@often
def test_whatever_is_claimed_the_origin_is_made_of_addresses_a_scheme_and_a_host(
    special: dict[bytes, list[bytes]], peer: str, tls: bool
) -> None:
    origin = find_origin(peer, special, tls=tls, authority=b"hub", trusted=TRUSTED)
    assert origin.client == origin.chain[0]
    assert all(str(parse_address(item)) == item for item in origin.chain)
    assert origin.chain[-1] == str(parse_address(peer))
    assert all(item.startswith("10.") for item in origin.chain[1:])
    assert origin.scheme in ("http", "https")
    assert valid_host(origin.host)
    assert 0 < origin.port <= 99999
    assert re.fullmatch(rb"(/[!-~]+)?", origin.prefix)
    assert not origin.prefix.startswith((b"//", b"/\\"))
