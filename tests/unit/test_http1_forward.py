from __future__ import annotations

import pytest
from http_heads import raw_head, request, response

from trioproxy.http1.fields import make_field
from trioproxy.http1.forward import (
    informational_head,
    request_head,
    response_fields,
    response_head,
    switching_head,
    trailers,
)
from trioproxy.http1.forwarded import Origin
from trioproxy.http1.head import RequestHead, ResponseHead

ORIGIN = Origin("192.0.2.1", ("192.0.2.1",), "https", b"hub:5050", 5050)
OURS = [
    b"X-Forwarded-For: 192.0.2.1",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: hub:5050",
    b"X-Forwarded-Port: 5050",
]
ID = [b"X-Request-Id: r1"]


def sent(
    head: RequestHead,
    *,
    origin: Origin = ORIGIN,
    prefix: bytes = b"",
    upgrade: bytes | None = None,
    extensions: bool = True,
) -> list[bytes]:
    """The lines of the head for the backend."""
    raw = request_head(
        head,
        target=b"/x?y",
        backend=b"kernel:8888",
        origin=origin,
        request_id=b"r1",
        prefix=prefix,
        upgrade=upgrade,
        extensions=extensions,
    )
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].split(b"\r\n")


def received(head: ResponseHead) -> list[bytes]:
    """The field lines for the client, before framing and our own."""
    return [name + b": " + value for _, name, value in response_fields(head)]


def test_a_request_goes_on_as_http_1_1_with_its_new_target_and_who_it_comes_from() -> None:
    assert sent(request(b"accept: */*", host=b"hub:5050", version=b"1.0")) == [
        b"GET /x?y HTTP/1.1", b"Host: hub:5050", b"accept: */*", *OURS, *ID,
    ]  # fmt: skip


def test_order_case_and_duplicates_of_fields_are_kept() -> None:
    fields = [b"b: 1", b"A: 2", b"B: 3", b"x-Y: \xff  z", b"Trailer: x", b"Empty: "]
    assert sent(request(*fields))[2:-5] == fields


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: Basic eDp5",
        b"TE: gzip",
        b"TE: trailers;q=0.5",
        b"Upgrade: h2c",
        b"Expect:",
        b"Expect: 100-continue",
        b"Forwarded: for=8.8.8.8",
        b"X-Forwarded-For: 8.8.8.8",
        b"x-forwarded-proto: gopher",
        b"X-FORWARDED-HOST: evil",
        b"X-Forwarded-Port: 1",
        b"X-Forwarded-Prefix: /evil",
        b"X-Request-Id: theirs",
    ],
)
def test_what_is_for_this_hop_only_or_ours_to_say_does_not_go_on(field: bytes) -> None:
    assert sent(request(field)) == [b"GET /x?y HTTP/1.1", b"Host: hub", *OURS, *ID]


def test_names_listed_in_connection_do_not_go_on() -> None:
    head = request(b"Connection: close, X-One", b"X-ONE: 1", b"x-two: 2", b"connection:,x-Two ,", b"X-Three: 3")
    assert sent(head)[2:-5] == [b"X-Three: 3"]


@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: Bearer t",
        b"Cookie: a=b",
        b"Content-Length: 3",
        b"X-Forwarded-User: alice",
        b"X-Forwarded-Ssl: on",
    ],
)
def test_a_client_cannot_remove_what_backends_rely_on_by_naming_it_in_connection(field: bytes) -> None:
    name = field.partition(b":")[0]
    assert sent(request(b"Connection: Host, X-Forwarded-For, " + name, field)) == [
        b"GET /x?y HTTP/1.1", b"Host: hub", field, *OURS, *ID,
    ]  # fmt: skip


def test_a_request_without_host_gets_that_of_its_target_or_the_backends() -> None:
    nameless = Origin("192.0.2.1", ("192.0.2.1",), "https", b"", 5050)
    lines = sent(request(b"A: 1", version=b"1.0", host=None), origin=nameless)
    assert lines[1:3] == [b"Host: kernel:8888", b"A: 1"]
    assert b"X-Forwarded-Host: kernel:8888" in lines
    assert sent(request(version=b"1.0", host=None, target=b"http://hub:1/"))[1] == b"Host: hub:1"


@pytest.mark.parametrize("coding", [b"chunked", b"CHUNKED"])
def test_a_chunked_body_is_announced_as_ours(coding: bytes) -> None:
    head = request(b"Transfer-Encoding: " + coding, b"Connection: Transfer-Encoding, Content-Length", b"A: 1")
    assert sent(head)[2:4] == [b"A: 1", b"Transfer-Encoding: chunked"]


def test_an_expectation_with_a_body_goes_on() -> None:
    assert b"Expect: 100-continue" in sent(request(b"Expect: 100-continue", b"Content-Length: 3"))


@pytest.mark.parametrize("te", [[b"trailers"], [b"gzip, Trailers"], [b"gzip", b"trailers"]])
def test_trailers_may_be_asked_for_and_nothing_else(te: list[bytes]) -> None:
    lines = sent(request(*[b"TE: " + value for value in te], b"Connection: TE"))
    assert lines[2:4] == [b"TE: trailers", b"Connection: TE"]
    assert sum(line.lower().startswith(b"te:") for line in lines) == 1


def test_an_upgrade_is_asked_for_in_the_clients_spelling_without_what_is_not_offered() -> None:
    head = request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c, SPDY/3.1 , Foo", b"HTTP2-Settings: AA")
    assert sent(head, upgrade=b"spdy/3.1, foo")[2:4] == [b"Upgrade: SPDY/3.1, Foo", b"Connection: Upgrade"]
    assert b"HTTP2-Settings: AA" not in sent(head, upgrade=b"spdy/3.1, foo")


def test_trailers_and_an_upgrade_share_one_connection_field() -> None:
    head = request(b"Connection: Upgrade", b"Upgrade: websocket", b"TE: trailers")
    lines = sent(head, upgrade=b"websocket")
    assert lines[2:5] == [b"TE: trailers", b"Upgrade: websocket", b"Connection: TE, Upgrade"]


@pytest.mark.parametrize("kept", [True, False])
def test_websocket_extensions_go_on_only_where_frames_do(kept: bool) -> None:
    field = b"Sec-WebSocket-Extensions: permessage-deflate"
    assert (field in sent(request(field), extensions=kept)) is kept


@pytest.mark.parametrize(
    ("outer", "stripped", "expected"),
    [
        (b"", b"", []),
        (b"", b"/s/v", [b"X-Forwarded-Prefix: /s/v"]),
        (b"/front", b"/s/v", [b"X-Forwarded-Prefix: /front/s/v"]),
        (b"/front", b"", [b"X-Forwarded-Prefix: /front"]),
    ],
)
def test_the_prefix_is_all_that_was_stripped_on_the_way(outer: bytes, stripped: bytes, expected: list[bytes]) -> None:
    origin = Origin("192.0.2.1", ("192.0.2.1",), "https", b"hub:5050", 5050, outer)
    assert sent(request(), origin=origin, prefix=stripped)[2:] == [*OURS, *expected, *ID]


def test_the_chain_of_addresses_is_one_field() -> None:
    origin = Origin("192.0.2.1", ("192.0.2.1", "2001:db8::1"), "http", b"hub", 80)
    assert sent(request(), origin=origin)[2] == b"X-Forwarded-For: 192.0.2.1, 2001:db8::1"


# --- responses -----------------------------------------------------------------------------------------------


def test_order_case_and_duplicates_of_response_fields_are_kept() -> None:
    fields = [b"set-cookie: a=1", b"X: 1", b"Set-Cookie: b=2", b"x: \xff", b"Content-Length: 3", b"Trailer: X-Sum"]
    assert received(response(*fields)) == fields


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: close",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: close",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: x",
        b"TE: trailers",
        b"Transfer-Encoding: chunked",
        b"Upgrade: h2c",
    ],
)
def test_what_a_backend_says_of_its_hop_stays_there(field: bytes) -> None:
    assert received(response(field, b"A: 1")) == [b"A: 1"]


def test_names_a_backend_lists_in_connection_stay_but_cookies_and_length() -> None:
    head = response(
        b"Connection: X-One, set-cookie, Content-Length, X-Forwarded-Foo",
        b"X-One: 1", b"Set-Cookie: a=1", b"Content-Length: 3", b"X-Forwarded-Foo: 1",
    )  # fmt: skip
    assert received(head) == [b"Set-Cookie: a=1", b"Content-Length: 3"]


@pytest.mark.parametrize("lengths", [[b"3", b"3"], [b"3, 3"], [b"3,3", b"3"]])
def test_equal_lengths_become_one(lengths: list[bytes]) -> None:
    fields = received(
        response(b"content-length: " + lengths[0], b"A: 1", *[b"Content-Length: " + one for one in lengths[1:]])
    )
    assert fields == [b"content-length: 3", b"A: 1"]


@pytest.mark.parametrize(
    ("status", "method", "kept"),
    [
        (b"100", b"GET", False),
        (b"204", b"GET", False),
        (b"304", b"GET", True),
        (b"200", b"HEAD", True),
        (b"200", b"GET", True),
    ],
)
def test_a_length_goes_where_the_standard_forbids_it_and_stays_elsewhere(
    status: bytes, method: bytes, kept: bool
) -> None:
    head = response(b"Content-Length: 3", status=status, method=method)
    assert received(head) == ([b"Content-Length: 3"] if kept else [])


def test_a_response_gets_our_framing_and_id() -> None:
    head = response(b"A: 1", b"Transfer-Encoding: chunked", status=b"200 All right", version=b"1.2")
    fields = response_fields(head)
    assert response_head(head, fields, chunked=True, close=True, request_id=b"r1") == raw_head(
        b"HTTP/1.1 200 All right", b"A: 1", b"Transfer-Encoding: chunked", b"X-Request-Id: r1", b"Connection: close"
    )
    assert response_head(head, fields, chunked=False, close=False, request_id=b"r1") == raw_head(
        b"HTTP/1.1 200 All right", b"A: 1", b"X-Request-Id: r1"
    )


def test_the_backends_own_request_id_is_the_one() -> None:
    head = response(b"x-request-id: theirs")
    raw = response_head(head, response_fields(head), chunked=False, close=False, request_id=b"r1")
    assert raw == raw_head(b"HTTP/1.1 200 OK", b"x-request-id: theirs")


def test_an_informational_response_keeps_its_fields() -> None:
    head = response(b"Link: </a>; rel=preload", b"link: </b>", b"Connection: x", b"X: 1", status=b"103 Early Hints")
    assert informational_head(head) == raw_head(b"HTTP/1.1 103 Early Hints", b"Link: </a>; rel=preload", b"link: </b>")


def test_a_switch_is_announced_in_the_backends_spelling() -> None:
    head = response(b"Upgrade: Foo/2", b"Connection: upgrade", b"Sec-A: 1", status=b"101 Go")
    assert switching_head(head, upgrade=b"foo/2", request_id=b"r1") == raw_head(
        b"HTTP/1.1 101 Go", b"Sec-A: 1", b"Upgrade: Foo/2", b"Connection: Upgrade", b"X-Request-Id: r1"
    )


def test_a_switch_without_a_reason_is_given_one_and_keeps_the_backends_id() -> None:
    head = response(b"Upgrade: websocket", b"Connection: upgrade", b"X-Request-Id: theirs", status=b"101")
    assert switching_head(head, upgrade=b"websocket", request_id=b"r1") == raw_head(
        b"HTTP/1.1 101 Switching Protocols", b"X-Request-Id: theirs", b"Upgrade: websocket", b"Connection: Upgrade"
    )


# --- trailers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"TE", b"Trailer", b"Upgrade",
        b"Authorization", b"Cookie", b"Set-Cookie", b"X-Forwarded-For", b"X-Forwarded-User", b"Forwarded",
        b"X-Request-Id", b"Expect",
        b"Content-Encoding", b"Content-Type", b"Content-Range", b"Range", b"Proxy-Authorization",
    ],
)  # fmt: skip
def test_a_field_of_framing_routing_or_authentication_is_no_trailer(name: bytes) -> None:
    kept = [make_field(b"X-Sum", b"1"), make_field(b"grpc-status", b"0"), make_field(b"x-sum", b"2")]
    assert trailers([kept[0], make_field(name, b"1"), *kept[1:]]) == kept


@pytest.mark.parametrize("head", [request(b"Connection: X-Sum"), response(b"Connection: x-sum")])
def test_a_trailer_named_in_connection_is_for_this_hop(head: RequestHead | ResponseHead) -> None:
    fields = [make_field(b"X-Sum", b"1"), make_field(b"X-Other", b"2")]
    assert trailers(fields, head) == fields[1:]
    assert trailers(fields, request()) == fields
