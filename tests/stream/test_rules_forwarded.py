"""What a backend is told of the client: exactly one of each field, and from whom it is believed."""

from __future__ import annotations

import pytest
from rules import both_ways, ok, service

TRUSTING = {"access": {"trusted_proxies": ["10.0.0.0/8", "2001:db8:aaaa::/48"]}}
CLAIMS = (
    b"X-Forwarded-For: 8.8.8.8\r\nx-forwarded-for: 192.0.2.7:1234, 10.0.0.9\r\nX-Forwarded-Proto: https\r\n"
    b"X-Forwarded-Host: public.org:8443\r\nX-Forwarded-Port: 8444\r\nForwarded: for=8.8.4.4;proto=http\r\n"
    b"X-Forwarded-Prefix: /front\r\n"
)


async def told(
    fields: bytes,
    *,
    bytewise: bool,
    route: dict[str, object] | None = None,
    line: bytes = b"GET /s/v/ HTTP/1.1",
    **client: object,
) -> dict[bytes, list[bytes]]:
    """The Host, Forwarded and X-Forwarded fields that the backend gets, lower-case name without its x-forwarded-."""
    async with service(bytewise=bytewise, config=TRUSTING, **(route or {})) as one:
        got, _ = await one.answered(line + b"\r\n" + fields + b"\r\n", ok(b"Content-Length: 0"), **client)
    found: dict[bytes, list[bytes]] = {}
    for field in got.split(b"\r\n")[1:-2]:
        name, _, value = field.partition(b": ")
        if (name := name.lower()).startswith((b"x-forwarded", b"forwarded", b"host")):
            found.setdefault(name.removeprefix(b"x-forwarded-"), []).append(value)
    return found


def only(**values: bytes) -> dict[bytes, list[bytes]]:
    """Each of them exactly once."""
    names = {"for_": b"for", "host": b"host", "proto": b"proto", "port": b"port", "prefix": b"prefix"}
    return {names[name]: [value] for name, value in values.items()}


@pytest.mark.parametrize(
    ("host", "seen"),
    [("192.0.2.1", b"192.0.2.1"), ("2001:db8::1", b"2001:db8::1"), ("::ffff:192.0.2.1", b"192.0.2.1")],
)
@both_ways
async def test_from_a_stranger_everything_is_replaced(host: str, seen: bytes, bytewise: bool) -> None:
    found = await told(b"Host: hub:5050\r\n" + CLAIMS, bytewise=bytewise, host=host, tls=True)
    assert found == {
        **only(for_=seen, proto=b"https", port=b"5050", prefix=b"/s/v"),
        b"host": [b"hub:5050", b"hub:5050"],
    }


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("10.0.0.1", b"10.0.0.1"),
        ("::ffff:10.0.0.1", b"10.0.0.1"),
        ("2001:db8:aaaa::1", b"2001:db8:aaaa::1"),
    ],
)
@both_ways
async def test_a_trusted_proxy_is_believed(host: str, seen: bytes, bytewise: bool) -> None:
    found = await told(b"Host: inner\r\n" + CLAIMS, bytewise=bytewise, host=host)
    assert found == {
        **only(for_=b"192.0.2.7, 10.0.0.9, " + seen, proto=b"https", port=b"8444", prefix=b"/front/s/v"),
        b"host": [b"inner", b"public.org:8443"],
    }


@both_ways
async def test_a_unix_socket_is_a_trusted_proxy(bytewise: bool) -> None:
    found = await told(b"Host: hub\r\nX-Forwarded-For: 192.0.2.7\r\n", bytewise=bytewise, host="unix", port=0)
    assert found[b"for"] == [b"192.0.2.7, 127.0.0.1"]


@both_ways
async def test_a_trusted_proxy_may_speak_the_standard_field_instead(bytewise: bool) -> None:
    claims = (
        b"Forwarded: for=8.8.8.8\r\n"
        b'Forwarded: for="[2001:db8::7]:99";proto=https;host="public.org:8443", for=10.0.0.9\r\n'
    )
    found = await told(b"Host: inner\r\n" + claims, bytewise=bytewise, host="10.0.0.1")
    assert found[b"for"] == [b"2001:db8::7, 10.0.0.9, 10.0.0.1"]
    assert (found[b"proto"], found[b"host"], found[b"port"]) == ([b"https"], [b"inner", b"public.org:8443"], [b"8443"])
    assert b"forwarded" not in found


@both_ways
async def test_a_trusted_proxy_that_claims_nothing_is_the_client(bytewise: bool) -> None:
    found = await told(b"Host: hub\r\n", bytewise=bytewise, host="10.0.0.1")
    assert found == {**only(for_=b"10.0.0.1", proto=b"http", port=b"80", prefix=b"/s/v"), b"host": [b"hub", b"hub"]}


@pytest.mark.parametrize("host", [b"Hub.Example.ORG:5050", b"hub:", b"[2001:db8::5]:80", b"10.1.2.3"])
@both_ways
async def test_host_goes_through_with_its_port_and_case(host: bytes, bytewise: bool) -> None:
    found = await told(b"hOsT: " + host + b"\r\n", bytewise=bytewise)
    assert found[b"host"] == [host, host]


@both_ways
async def test_a_kept_path_has_no_prefix_to_tell(bytewise: bool) -> None:
    found = await told(b"Host: hub\r\n", bytewise=bytewise, route={"path": "keep"})
    assert b"prefix" not in found


@both_ways
async def test_without_a_host_the_backends_address_stands_for_it(bytewise: bool) -> None:
    found = await told(b"A: b\r\n", bytewise=bytewise, line=b"GET /s/v/ HTTP/1.0")
    assert found[b"host"] == [b"kernel:8888", b"kernel:8888"]


async def test_the_log_knows_the_client_and_not_the_proxy_before_us() -> None:
    async with service(config=TRUSTING) as one:
        await one.answered(
            b"GET /s/v/ HTTP/1.1\r\nHost: hub\r\n" + CLAIMS + b"\r\n", ok(b"Content-Length: 0"), host="10.0.0.1"
        )
        assert one.harness.records[0].client == "192.0.2.7"
