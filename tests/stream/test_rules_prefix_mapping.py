"""Addresses of a service: by path, by prefix, by host; what is stripped, and mapped back."""

from __future__ import annotations

import pytest
from rules import Service, both_ways, ending, get, heard, ok, service

from trioproxy.testing import open_proxy

OWN = b"X-Request-Id: r1"
OK_0 = ok(b"Content-Length: 0")


def target_of(raw: bytes) -> bytes:
    return raw.split(b" ", 2)[1]


def prefixes_in(raw: bytes) -> list[bytes]:
    return [line for line in raw.split(b"\r\n") if line.lower().startswith(b"x-forwarded-prefix")]


ADDRESSES = [
    ("by path", {}, b"hub", b"/s/v/a?b", b"/a?b", b"/s/v"),
    ("by path, kept", {"path": "keep"}, b"hub", b"/s/v/a?b", b"/s/v/a?b", b""),
    ("by path, of a route with a prefix", {"prefix": "/lab"}, b"hub", b"/s/v/a", b"/a", b"/s/v"),
    ("by prefix", {"prefix": "/lab/x"}, b"hub", b"/lab/x/a//b?c", b"/a//b?c", b"/lab/x"),
    ("by prefix, kept", {"prefix": "/lab", "path": "keep"}, b"hub", b"/lab/a", b"/lab/a", b""),
    ("by prefix, kept, without a slash", {"prefix": "/lab", "path": "keep"}, b"hub", b"/lab?q", b"/lab?q", b""),
    ("by host", {"host": "app.example"}, b"app.example", b"/a//b?c", b"/a//b?c", b""),
    ("by host, in another case and with a port", {"host": "app.example"}, b"APP.Example.:5050", b"/", b"/", b""),
    ("by host, kept", {"host": "app.example", "path": "keep"}, b"app.example", b"/a", b"/a", b""),
    ("by host, a path like ours", {"host": "app.example"}, b"app.example", b"/s/v/a", b"/s/v/a", b""),
    ("by path, on another host", {"host": "app.example"}, b"hub", b"/s/v/a", b"/a", b"/s/v"),
]


@pytest.mark.parametrize(
    ("route", "host", "target", "seen", "prefix"), [case[1:] for case in ADDRESSES], ids=[case[0] for case in ADDRESSES]
)
@both_ways
async def test_an_address_leads_to_the_service_with_what_follows_it(
    route: dict[str, str], host: bytes, target: bytes, seen: bytes, prefix: bytes, bytewise: bool
) -> None:
    async with service(bytewise=bytewise, **route) as one:
        request = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        got, answer = await one.answered(request, OK_0)
        assert target_of(got) == seen
        assert prefixes_in(got) == ([b"X-Forwarded-Prefix: " + prefix] if prefix else [])
        assert b"\r\nHost: " + host + b"\r\n" in got
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


NOWHERE = [
    b"/",
    b"/s",
    b"/s/",
    b"/s/vv/",
    b"/ss/v/",
    b"/S/v/",
    b"/s/V/",
    b"/%73/v/",
    b"/s/v%20/",
    b"/s//v/",
    b"//s/v/",
    b"/s%2Fv/",
    b"/./s/v/",
    b"/x/../s/v/",
]


@pytest.mark.parametrize("target", NOWHERE)
@both_ways
async def test_an_address_is_compared_segment_by_segment_as_it_is_written(target: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=b"GET " + target + b" HTTP/1.1"))
        assert (await heard(client)).startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert await ending(client) == "open"
        assert one.backend.dials == 0


REDIRECTS = [
    ("by path", {}, b"/s/v", b"/s/v/"),
    ("by path, with a query", {}, b"/s/v?a=%2F&b=/../|", b"/s/v/?a=%2F&b=/../|"),
    ("by path, with an empty query", {}, b"/s/v?", b"/s/v/?"),
    ("by path, kept", {"path": "keep"}, b"/s/v", b"/s/v/"),
    ("by prefix", {"prefix": "/lab/x"}, b"/lab/x?q", b"/lab/x/?q"),
    ("by an absolute target", {}, b"http://hub/s/v?q", b"/s/v/?q"),
]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("route", "target", "location"), [case[1:] for case in REDIRECTS], ids=[case[0] for case in REDIRECTS]
)
@both_ways
async def test_without_its_slash_an_address_is_redirected(
    method: bytes, route: dict[str, str], target: bytes, location: bytes, bytewise: bool
) -> None:
    async with service(bytewise=bytewise, **route) as one:
        client = await one.ask(get(line=method + b" " + target + b" HTTP/1.1"))
        assert await heard(client) == ok(
            b"Location: " + location, b"Content-Length: 0", OWN, line=b"HTTP/1.1 308 Permanent Redirect"
        )
        assert await ending(client) == "open"
        assert one.backend.dials == 0
        # The connection goes on.
        await one.say(client, get(line=b"GET " + location + b" HTTP/1.1"))
        kernel = await one.backend.accept()
        assert target_of(await heard(kernel)) == (
            location.removeprefix(b"/s/v").removeprefix(b"/lab/x") if "path" not in route else location
        )


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PURGE"])
@both_ways
async def test_other_methods_are_forwarded_without_the_slash(method: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        got, _ = await one.answered(get(line=method + b" /s/v?q HTTP/1.1"), OK_0)
        assert target_of(got) == b"/?q"
        assert prefixes_in(got) == [b"X-Forwarded-Prefix: /s/v"]


@both_ways
async def test_an_upgrade_is_forwarded_without_the_slash(bytewise: bool) -> None:
    # Browsers do not follow redirects of a WebSocket handshake.
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"Connection: Upgrade", b"Upgrade: websocket", line=b"GET /s/v HTTP/1.1"))
        kernel = await one.backend.accept()
        assert target_of(await heard(kernel)) == b"/"
        assert await heard(client) == b""


async def test_a_redirect_with_a_body_to_come_ends_the_connection() -> None:
    async with service() as one:
        client = await one.ask(get(b"Content-Length: 1000", line=b"GET /s/v HTTP/1.1") + get())
        answer = await heard(client)
        assert answer.startswith(b"HTTP/1.1 308 ")
        assert answer.endswith(b"\r\nConnection: close\r\n\r\n")
        assert await ending(client) == "closed"


async def test_a_redirect_behind_a_front_that_strips_names_its_prefix() -> None:
    async with service(config={"access": {"trusted_proxies": ["10.0.0.0/8"]}}) as one:
        client = await one.ask(get(b"X-Forwarded-Prefix: /front", line=b"GET /s/v HTTP/1.1"), host="10.0.0.1")
        assert b"\r\nLocation: /front/s/v/\r\n" in await heard(client)
        client = await one.ask(get(b"X-Forwarded-Prefix: /\\evil.org", line=b"GET /s/v HTTP/1.1"), host="10.0.0.1")
        assert b"\r\nLocation: /s/v/\r\n" in await heard(client)
        client = await one.ask(get(b"X-Forwarded-Prefix: /front", line=b"GET /s/v HTTP/1.1"))
        assert b"\r\nLocation: /s/v/\r\n" in await heard(client)


MAPPED = [
    (b"Location: /login?next=/a", b"Location: /s/v/login?next=/a"),
    (b"LOCATION: /", b"LOCATION: /s/v/"),
    (b"Location: http://hub/x", b"Location: http://hub/s/v/x"),
    (b"Location: //hub/x", b"Location: //hub/s/v/x"),
    (b"Location: http://kernel:8888/x", b"Location: /s/v/x"),
    (b"Location: /s/v/x", b"Location: /s/v/x"),
    (b"Location: x", b"Location: x"),
    (b"Location: https://elsewhere.org/x", b"Location: https://elsewhere.org/x"),
    (b"Content-Location: /a", b"Content-Location: /s/v/a"),
    (b"Refresh: 5; url=/a", b"Refresh: 5; url=/s/v/a"),
    (b'refresh: 0;URL="/a"', b'refresh: 0;URL="/s/v/a"'),
    (b"Set-Cookie: a=b; Path=/; HttpOnly", b"Set-Cookie: a=b; Path=/s/v/; HttpOnly"),
    (b"Set-Cookie: a=b; path=/x", b"Set-Cookie: a=b; path=/s/v/x"),
    (b"Set-Cookie: a=b; Path=/s/v/", b"Set-Cookie: a=b; Path=/s/v/"),
    (b"Set-Cookie: __Host-a=b; Path=/; Secure", b"Set-Cookie: __Host-a=b; Path=/; Secure"),
    (b"Link: </a>; rel=next", b"Link: </a>; rel=next"),
]


@both_ways
async def test_what_points_at_the_backends_root_is_mapped_back(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        _, answer = await one.answered(
            get(), ok(*[field for field, _ in MAPPED], b"Content-Length: 0", line=b"HTTP/1.1 302 Found")
        )
        assert answer == ok(*[field for _, field in MAPPED], b"Content-Length: 0", OWN, line=b"HTTP/1.1 302 Found")


@both_ways
async def test_a_kept_path_needs_no_mapping(bytewise: bool) -> None:
    fields = [field for field, _ in MAPPED]
    async with service(bytewise=bytewise, path="keep") as one:
        _, answer = await one.answered(get(), ok(*fields, b"Content-Length: 0"))
        assert answer == ok(*fields, b"Content-Length: 0", OWN)


@both_ways
async def test_a_route_by_prefix_is_mapped_to_its_prefix(bytewise: bool) -> None:
    async with service(bytewise=bytewise, prefix="/lab") as one:
        _, answer = await one.answered(get(line=b"GET /lab/a HTTP/1.1"), ok(b"Location: /b", b"Content-Length: 0"))
        assert answer == ok(b"Location: /lab/b", b"Content-Length: 0", OWN)


@both_ways
async def test_a_route_by_host_has_only_the_backends_own_address_to_hide(bytewise: bool) -> None:
    async with service(bytewise=bytewise, host="hub") as one:
        response = ok(
            b"Location: http://kernel:8888/b", b"Set-Cookie: a=b; Path=/", b"Content-Location: /c", b"Content-Length: 0"
        )
        _, answer = await one.answered(get(line=b"GET /a HTTP/1.1"), response)
        assert answer == ok(
            b"Location: /b", b"Set-Cookie: a=b; Path=/", b"Content-Location: /c", b"Content-Length: 0", OWN
        )


@pytest.mark.parametrize("line", [b"GET /.. HTTP/1.1", b"GET /a/../../b HTTP/1.1", b"GET /%2e%2e/ HTTP/1.1"])
@pytest.mark.parametrize("route", [{"host": "hub"}, {"prefix": "/lab"}])
async def test_a_path_may_not_climb_out_of_a_host_or_prefix_either(line: bytes, route: dict[str, str]) -> None:
    if "prefix" in route:
        line = line.replace(b"GET ", b"GET /lab")
    async with service(**route) as one:
        client = await one.ask(get(line=line))
        assert (await heard(client)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert await ending(client) == "closed"
        assert one.backend.dials == 0


@pytest.mark.parametrize("route", [{"host": "hub"}, {"prefix": "/lab"}])
async def test_escapes_behind_a_host_or_prefix_are_the_services_own_business(route: dict[str, str]) -> None:
    start = b"/lab" if "prefix" in route else b""
    async with service(**route) as one:
        got, _ = await one.answered(get(line=b"GET " + start + b"/%zz/% HTTP/1.1"), OK_0)
        assert target_of(got) == b"/%zz/%"


@both_ways
@pytest.mark.parametrize("location", [b"/login", b"/front/s/v/login"])
async def test_behind_a_front_that_strips_a_redirect_carries_both_prefixes_once(
    location: bytes, bytewise: bool
) -> None:
    async with service(config={"access": {"trusted_proxies": ["10.0.0.0/8"]}}, bytewise=bytewise) as one:
        answer = ok(b"Location: " + location, b"Content-Length: 0")
        _, answer = await one.answered(get(b"X-Forwarded-Prefix: /front"), answer, host="10.0.0.1")
        assert b"\r\nLocation: /front/s/v/login\r\n" in answer


async def test_an_ipv6_backend_is_written_in_brackets() -> None:
    async with open_proxy() as harness:
        one = Service(harness, harness.network.listen("2001:db8::5", 8888), False)
        harness.set_routes([one.backend.route("s", "v")])
        location = ok(b"Location: http://[2001:db8::5]:8888/x", b"Content-Length: 0")
        asked, answer = await one.answered(b"GET /s/v/ HTTP/1.0\r\n\r\n", location)
        assert b"\r\nHost: [2001:db8::5]:8888\r\n" in asked
        assert b"\r\nLocation: /s/v/x\r\n" in answer
