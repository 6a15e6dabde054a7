from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from trioproxy.http1.forwarded import MAX_HOPS, Origin, find_origin, inside, parse_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8:aaaa::/48")]
PEER = "10.0.0.1"
Claims = dict[bytes, list[bytes]]


def found(
    special: Claims, *, peer: str = PEER, tls: bool = False, authority: bytes = b"hub", local_peer: bool = False
) -> Origin:
    return find_origin(peer, special, tls=tls, authority=authority, trusted=TRUSTED, local_peer=local_peer)


def x_for(*lines: bytes) -> Claims:
    return {b"x-forwarded-for": list(lines)}


def forwarded(*lines: bytes) -> Claims:
    return {b"forwarded": list(lines)}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        (" 1.2.3.4\t", "1.2.3.4"),
        ("1.2.3.4:567", "1.2.3.4"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:567", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:102:304]:5", "1.2.3.4"),
        ("::1.2.3.4", "::102:304"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("1.2.3", None),
        ("1.2.3.4.5", None),
        ("1.2.3.256", None),
        ("01.2.3.4", None),
        ("[1.2.3.4", "1.2.3.4"),
        ("[]", None),
        ("hub:80", None),
        ("1.2.3.4, 5.6.7.8", None),
        ("127.1", None),
        ("0x7f.1.1.1", None),
    ],
)
def test_an_address_is_read_with_port_and_brackets_and_without(text: str, address: str | None) -> None:
    assert parse_address(text) == (ip_address(address) if address else None)


def test_an_address_is_inside_a_network_of_its_own_kind() -> None:
    assert inside(ip_address("10.1.2.3"), TRUSTED)
    assert inside(ip_address("2001:db8:aaaa::1"), TRUSTED)
    assert not inside(ip_address("11.0.0.1"), TRUSTED)
    assert not inside(ip_address("::ffff:10.0.0.1"), TRUSTED)  # `parse_address` never leaves one
    assert not inside(None, TRUSTED)
    assert not inside(ip_address("10.0.0.1"), [])


@pytest.mark.parametrize("peer", ["192.0.2.1", "::ffff:192.0.2.1"])
def test_who_is_not_trusted_is_the_client_whatever_it_claims(peer: str) -> None:
    special = {
        b"x-forwarded-for": [b"8.8.8.8"],
        b"x-forwarded-proto": [b"https"],
        b"x-forwarded-host": [b"evil"],
        b"x-forwarded-port": [b"1"],
        b"x-forwarded-prefix": [b"/evil"],
        b"forwarded": [b"for=8.8.8.8;proto=https;host=evil"],
    }
    assert found(special, peer=peer) == Origin("192.0.2.1", ("192.0.2.1",), "http", b"hub", 80)


@pytest.mark.parametrize(
    ("authority", "tls", "port"),
    [
        (b"hub", False, 80),
        (b"hub", True, 443),
        (b"hub:5050", True, 5050),
        (b"hub:", True, 443),
        (b"[::1]", False, 80),
        (b"[::1]:5050", False, 5050),
        (b"", False, 80),
    ],
)
def test_the_port_is_that_of_host_or_of_the_scheme(authority: bytes, tls: bool, port: int) -> None:
    assert found({}, peer="192.0.2.1", authority=authority, tls=tls) == Origin(
        "192.0.2.1", ("192.0.2.1",), "https" if tls else "http", authority, port
    )


CHAINS: list[tuple[str, list[bytes], tuple[str, ...]]] = [
    ("nothing claimed", [], (PEER,)),
    ("one client", [b"192.0.2.1"], ("192.0.2.1", PEER)),
    ("a client with a port", [b"192.0.2.1:567"], ("192.0.2.1", PEER)),
    ("a client of IPv6 with a port", [b"[2001:db8::1]:567"], ("2001:db8::1", PEER)),
    ("a mapped client", [b"::ffff:192.0.2.1"], ("192.0.2.1", PEER)),
    ("spoofed entries on the left", [b"8.8.8.8, 127.0.0.1, 192.0.2.1"], ("192.0.2.1", PEER)),
    ("a spoofed trusted entry on the left", [b"10.9.9.9, 192.0.2.1"], ("192.0.2.1", PEER)),
    ("proxies in between", [b"8.8.8.8, 192.0.2.1, 10.0.0.3, 10.0.0.2"], ("192.0.2.1", "10.0.0.3", "10.0.0.2", PEER)),
    ("a mapped trusted proxy in between", [b"192.0.2.1, ::ffff:10.0.0.2"], ("192.0.2.1", "10.0.0.2", PEER)),
    ("a trusted proxy of IPv6 in between", [b"192.0.2.1, 2001:db8:aaaa::2"], ("192.0.2.1", "2001:db8:aaaa::2", PEER)),
    ("a trusted proxy with a port in between", [b"192.0.2.1, 10.0.0.2:99"], ("192.0.2.1", "10.0.0.2", PEER)),
    ("on several lines", [b"8.8.8.8", b"192.0.2.1,10.0.0.3", b"10.0.0.2"], ("192.0.2.1", "10.0.0.3", "10.0.0.2", PEER)),
    ("only trusted ones", [b"10.0.0.3, 10.0.0.2"], ("10.0.0.3", "10.0.0.2", PEER)),
    ("the peer itself", [PEER.encode()], (PEER,)),
    ("junk next to us", [b"192.0.2.1, unknown"], (PEER,)),
    ("junk behind a trusted proxy", [b"192.0.2.1, junk, 10.0.0.2"], ("10.0.0.2", PEER)),
    ("an empty element", [b"192.0.2.1, , 10.0.0.2"], ("10.0.0.2", PEER)),
    ("an empty value", [b""], (PEER,)),
    ("bytes that are no text", [b"\xff\xfe"], (PEER,)),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "chain"), [case[1:] for case in CHAINS], ids=[case[0] for case in CHAINS])
def test_the_client_is_the_first_untrusted_address_from_the_right(lines: list[bytes], chain: tuple[str, ...]) -> None:
    origin = found(x_for(*lines) if lines else {})
    assert (origin.client, origin.chain) == (chain[0], chain)
    # Forwarded says the same in other words.
    elements = [b",".join(b'for="%b"' % item.strip() for item in line.split(b",")) for line in lines]
    assert found(forwarded(*elements) if lines else {}) == origin


def test_at_most_so_many_hops_are_walked() -> None:
    far = [b"192.0.2.1", *[b"10.0.0.2"] * MAX_HOPS]
    origin = found(x_for(b", ".join(far)))
    assert (origin.client, len(origin.chain)) == ("10.0.0.2", MAX_HOPS + 1)
    assert found(x_for(b", ".join(far[:-1]))).client == "192.0.2.1"


@pytest.mark.parametrize(
    ("element", "client", "scheme", "host"),
    [
        (b"for=192.0.2.1;proto=https;host=public", "192.0.2.1", "https", b"public"),
        (b'For="192.0.2.1:567" ; PROTO=HTTPS; Host="public:8443";by=10.0.0.1', "192.0.2.1", "https", b"public:8443"),
        (b'for="[2001:db8::1]:567"', "2001:db8::1", "http", b"hub"),
        (b'for="[2001:db8::1]"', "2001:db8::1", "http", b"hub"),
        (b"for=_hidden;proto=https;host=public", PEER, "https", b"public"),
        (b"for=unknown;proto=gopher", PEER, "http", b"hub"),
        (b'proto=https;host="evil host"', PEER, "https", b"hub"),
        (b"", PEER, "http", b"hub"),
        (b";;=", PEER, "http", b"hub"),
        (b"192.0.2.1", PEER, "http", b"hub"),
        (b"by=192.0.2.1", PEER, "http", b"hub"),
    ],
)
def test_an_element_of_forwarded_tells_address_scheme_and_host(
    element: bytes, client: str, scheme: str, host: bytes
) -> None:
    origin = found(forwarded(element))
    assert (origin.client, origin.scheme, origin.host) == (client, scheme, host)


def test_scheme_and_host_are_those_the_client_used_and_not_those_between_two_proxies() -> None:
    origin = found(forwarded(b"for=192.0.2.1;proto=https;host=public, for=10.0.0.2;proto=http;host=inner"))
    assert (origin.scheme, origin.host, origin.port) == ("https", b"public", 443)
    origin = found(forwarded(b"for=8.8.8.8;proto=https;host=evil, for=192.0.2.1;proto=http;host=public"))
    assert (origin.scheme, origin.host) == ("http", b"public")


@pytest.mark.parametrize("open_quote", [b'for="', b'for="8.8.8.8', b'host="x;for=8.8.8.8', b'for="\\"'])
def test_a_quotation_mark_that_the_client_left_open_swallows_nothing(open_quote: bytes) -> None:
    special = forwarded(open_quote + b', for="[2001:db8::1]:567";proto=https;host="public"')
    origin = found(special)
    assert (origin.client, origin.scheme, origin.host) == ("2001:db8::1", "https", b"public")


def test_forwarded_does_not_count_beside_x_forwarded_for() -> None:
    origin = found({**x_for(b"192.0.2.1"), **forwarded(b"for=8.8.8.8;proto=https;host=evil")})
    assert (origin.client, origin.scheme, origin.host) == ("192.0.2.1", "http", b"hub")


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        ([b"https"], "https"),
        ([b"HTTPS"], "https"),
        ([b"wss"], "https"),
        ([b"ws"], "http"),
        ([b"http, https"], "https"),
        ([b"http", b"https"], "https"),
        ([b"https, http"], "http"),
        ([b"gopher"], "http"),
        ([b"https,"], "http"),
        ([b""], "http"),
    ],
)
def test_a_trusted_proxy_tells_the_scheme(lines: list[bytes], scheme: str) -> None:
    assert found({b"x-forwarded-proto": lines}).scheme == scheme


def test_a_scheme_that_is_none_leaves_that_of_the_connection() -> None:
    assert found({b"x-forwarded-proto": [b"gopher"]}, tls=True).scheme == "https"
    assert found({b"x-forwarded-proto": [b"http"]}, tls=True).scheme == "http"


@pytest.mark.parametrize(
    ("lines", "host"),
    [
        ([b"public:8443"], b"public:8443"),
        ([b"first, second"], b"second"),
        ([b"first", b"second"], b"second"),
        ([b"[::1]:80"], b"[::1]:80"),
        ([b"not a host"], b"hub"),
        ([b"a/b"], b"hub"),
        ([b""], b"hub"),
    ],
)
def test_a_trusted_proxy_tells_the_host(lines: list[bytes], host: bytes) -> None:
    assert found({b"x-forwarded-host": lines}).host == host


@pytest.mark.parametrize(
    ("special", "port"),
    [
        ({b"x-forwarded-port": [b"8443"]}, 8443),
        ({b"x-forwarded-port": [b"1, 8443"]}, 8443),
        ({b"x-forwarded-port": [b"0"]}, 443),
        ({b"x-forwarded-port": [b"-1"]}, 443),
        ({b"x-forwarded-port": [b"123456"]}, 443),
        ({b"x-forwarded-port": [b"\xb2"]}, 443),
        ({b"x-forwarded-port": [b""]}, 443),
        ({b"x-forwarded-host": [b"public:8444"]}, 8444),
        ({b"x-forwarded-host": [b"public"]}, 443),
    ],
)
def test_a_trusted_proxy_tells_the_port_or_it_is_that_of_host_and_scheme(special: Claims, port: int) -> None:
    assert found({b"x-forwarded-proto": [b"https"], **special}).port == port


@pytest.mark.parametrize(
    ("line", "prefix"),
    [
        (b"/front", b"/front"),
        (b"/front/", b"/front"),
        (b"/a/b%20c", b"/a/b%20c"),
        (b"/x, /front", b"/front"),
        (b"/", b""),
        (b"", b""),
        (b"front", b""),
        (b"//evil.org", b""),
        (b"/a//b", b""),
        (b"/a?b", b""),
        (b"/a#b", b""),
        (b"/a b", b""),
        (b"/a\\b", b""),
        (b"/" + b"/".join([b"a"] * 17), b""),
    ],
)
def test_a_trusted_proxy_tells_what_it_stripped_if_that_is_a_path(line: bytes, prefix: bytes) -> None:
    assert found({b"x-forwarded-prefix": [line]}).prefix == prefix


def test_a_unix_socket_is_trusted_and_shown_as_the_own_machine() -> None:
    assert found({}, peer="unix", local_peer=True) == Origin("127.0.0.1", ("127.0.0.1",), "http", b"hub", 80)
    special = {**x_for(b"192.0.2.1"), b"x-forwarded-proto": [b"https"]}
    assert found(special, peer="unix", local_peer=True) == Origin(
        "192.0.2.1", ("192.0.2.1", "127.0.0.1"), "https", b"hub", 443
    )


def test_a_peer_without_an_address_that_is_no_unix_socket_is_not_trusted() -> None:
    assert found(x_for(b"8.8.8.8"), peer="unix").client == "127.0.0.1"
