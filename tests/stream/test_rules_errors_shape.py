"""What the proxy answers by itself."""

from __future__ import annotations

import json
import re

import pytest
import trio
from rules import Service, both_ways, ending, get, heard, ok, service
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import SetTable
from trioproxy.routing.table import Table
from trioproxy.testing import open_proxy

OWN = b"X-Request-Id: r1"
PROBLEM = b"Content-Type: application/problem+json"
NO_STORE = b"Cache-Control: no-store"


def problem(status: int, title: str, code: str, detail: str, *fields: bytes, last: tuple[bytes, ...] = ()) -> bytes:
    """The whole answer."""
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": "r1",
    }
    body = json.dumps(document).encode() + b"\n"
    line = f"HTTP/1.1 {status} {title}".encode()
    return ok(PROBLEM, NO_STORE, *fields, b"Content-Length: %d" % len(body), OWN, *last, line=line, body=body)


async def check_it_goes_on(one: Service, client: object) -> None:
    """The same connection, used as long as anyone likes."""
    await one.say(client, get(line=b"GET /nowhere/at/all HTTP/1.1"))  # type: ignore[arg-type]
    assert (await heard(client)).startswith(b"HTTP/1.1 404 ")  # type: ignore[arg-type]
    assert await ending(client) == "open"  # type: ignore[arg-type]


@both_ways
async def test_no_route(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=b"GET /x/y/ HTTP/1.1"))
        assert await heard(client) == problem(404, "Not Found", "no_route", "no session or service has this address")
        await check_it_goes_on(one, client)


@both_ways
async def test_not_synced(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        one.harness.proxy.execute(SetTable(Table.build((), version=99, synced=False)))
        client = await one.ask(get())
        detail = "this worker has not received its routes yet"
        assert await heard(client) == problem(503, "Service Unavailable", "not_synced", detail, b"Retry-After: 2")
        assert await ending(client) == "open"


@both_ways
async def test_no_backend(bytewise: bool) -> None:
    async with open_proxy() as harness:
        one = Service(harness, harness.network.listen("kernel", 8888), bytewise)
        harness.set_routes([one.backend.route("s", "v", backends=[])])
        client = await one.ask(get())
        answer = await heard(client)
        retry = re.search(rb"\r\n(Retry-After: [1-9][0-9]*)\r\n", answer)
        assert retry is not None
        assert answer == problem(503, "Service Unavailable", "no_backend", "this service has no backend", retry[1])
        await check_it_goes_on(one, client)


@both_ways
async def test_connect_failed(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        one.backend.accepting = False
        client = await one.ask(get())
        detail = "kernel:8888 refused the connection"
        assert await heard(client) == problem(502, "Bad Gateway", "connect_failed", detail)
        await check_it_goes_on(one, client)


async def test_connect_timeout(autojump_clock: MockClock) -> None:
    async with service(config={"timeouts": {"connect": "3s"}}) as one:
        one.backend.answering = False
        client = await one.ask(get())
        await trio.sleep(20)
        answer = await heard(client)
        assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n" + PROBLEM)
        assert b'"connect_timeout"' in answer
        await check_it_goes_on(one, client)


@pytest.mark.parametrize("host", ["198.51.100.1", "2001:db8::1"])
@both_ways
async def test_forbidden(host: str, bytewise: bool) -> None:
    access = {"allowed_client_ips": ["192.0.2.0/24", "2001:db8:1::/48"]}
    async with service(bytewise=bytewise, access=access) as one:
        for line in (b"GET /s/v/ HTTP/1.1", b"GET /s/v HTTP/1.1"):
            client = await one.ask(get(line=line), host=host)
            assert await heard(client) == problem(
                403, "Forbidden", "forbidden", "this service does not admit your address"
            )
            assert await ending(client) == "open"
        assert one.backend.dials == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1::1"])
async def test_an_admitted_client_is_served(host: str) -> None:
    async with service(access={"allowed_client_ips": ["192.0.2.0/24", "2001:db8:1::/48"]}) as one:
        _, answer = await one.answered(get(), ok(b"Content-Length: 0"), host=host)
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("client", "status"), [(b"192.0.2.7", b"200"), (b"198.51.100.1", b"403"), (b"192.0.2.7, 198.51.100.1", b"403")]
)
async def test_it_is_the_client_behind_a_trusted_proxy_that_is_admitted(client: bytes, status: bytes) -> None:
    config = {"access": {"trusted_proxies": ["10.0.0.0/8"]}}
    async with service(config=config, access={"allowed_client_ips": ["192.0.2.0/24"]}) as one:
        wire = await one.ask(get(b"X-Forwarded-For: " + client), host="10.0.0.1")
        if status == b"200":
            kernel = await one.backend.accept()
            await heard(kernel)
            await one.say(kernel, ok(b"Content-Length: 0"))
        assert (await heard(wire)).split(b" ")[1] == status


HTTPS = {
    "listeners": [
        {"name": "plain", "bind": "0.0.0.0:80", "tls": "off", "redirect_to_https": True},
        {"name": "web", "bind": "0.0.0.0:5050"},
    ]
}


@pytest.mark.parametrize(
    ("target", "host", "location"),
    [
        (b"/s/v/a//b?c=%2F&d", b"hub", b"https://hub:5050/s/v/a//b?c=%2F&d"),
        (b"/", b"hub:80", b"https://hub:5050/"),
        (b"/x", b"[::1]:80", b"https://[::1]:5050/x"),
        (b"//evil.org/", b"hub", b"https://hub:5050//evil.org/"),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@both_ways
async def test_redirect_to_https(target: bytes, host: bytes, location: bytes, method: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise, config=HTTPS) as one:
        raw = method + b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nX-Request-Id: r1\r\n\r\n"
        client = await one.ask(raw, listener="plain")
        assert await heard(client) == ok(
            b"Location: " + location, b"Content-Length: 0", OWN, line=b"HTTP/1.1 308 Permanent Redirect"
        )
        assert await ending(client) == "open"
        assert one.backend.dials == 0


async def test_redirect_to_https_of_options_for_the_whole_server() -> None:
    async with service(config=HTTPS) as one:
        client = await one.ask(get(line=b"OPTIONS * HTTP/1.1"), listener="plain")
        assert b"\r\nLocation: https://hub:5050\r\n" in await heard(client)


@both_ways
async def test_redirect_to_https_needs_to_know_where(bytewise: bool) -> None:
    async with service(bytewise=bytewise, config=HTTPS) as one:
        client = await one.ask(b"GET / HTTP/1.0\r\n\r\n", listener="plain")
        assert (await heard(client)).startswith(b"HTTP/1.1 400 ")
        assert await ending(client) == "closed"


@both_ways
async def test_a_person_gets_a_page(bytewise: bool) -> None:
    accept = b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(accept, line=b"GET /x/<script>/ HTTP/1.1"))
        head, _, body = (await heard(client)).partition(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"HTTP/1.1 404 Not Found",
            b"Content-Type: text/html; charset=utf-8",
            NO_STORE,
            b"Content-Length: %d" % len(body),
            OWN,
        ]
        assert body.startswith(b"<!doctype html>")
        assert b"no_route" in body
        assert b"<script>" not in body
        await check_it_goes_on(one, client)


@pytest.mark.parametrize("accept", [[], [b"Accept: text/html"]])
@both_ways
async def test_head_gets_no_body(accept: list[bytes], bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(*accept, line=b"HEAD /x/y/ HTTP/1.1"))
        answer = await heard(client)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert answer.endswith(b"\r\n" + OWN + b"\r\n\r\n")
        await check_it_goes_on(one, client)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"GET /x/y/ HTTP/1.1", []),
        (b"GET /s/v HTTP/1.1", []),
        (b"GET /s/v/.. HTTP/1.1", []),
        (b"TRACE /s/v/ HTTP/1.1", []),
        (b"GET /s/v/ HTTP/3.0", []),
        (b"POST /s/v/ HTTP/1.1", [b"Content-Length: x"]),
        (b"POST /s/v/ HTTP/1.1", [b"Expect: x"]),
    ],
)
@both_ways
async def test_every_answer_has_an_id_that_the_log_knows(line: bytes, fields: list[bytes], bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(line + b"\r\nHost: hub\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n")
        answer = await heard(client)
        await client.aclose()
        await wait_all_tasks_blocked()
        found = re.findall(rb"\r\nX-Request-Id: ([^\r]+)\r\n", answer)
        assert [record.id.encode() for record in one.harness.records] == found


@both_ways
async def test_a_refusal_names_the_id_of_its_request_if_it_could_be_read(bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(line=b"GET /s/v/.. HTTP/1.1"))
        detail = "the path climbs out of its service"
        assert await heard(client) == problem(400, "Bad Request", "bad_request", detail, last=(b"Connection: close",))
        assert await ending(client) == "closed"


@pytest.mark.parametrize("connection", [b"close", b"Close, x"])
@both_ways
async def test_a_client_that_asks_to_close_is_told_and_closed(connection: bytes, bytewise: bool) -> None:
    async with service(bytewise=bytewise) as one:
        client = await one.ask(get(b"Connection: " + connection, line=b"GET /x/y/ HTTP/1.1"))
        answer = await heard(client)
        assert b"\r\nConnection: close\r\n" in answer
        assert await ending(client) == "closed"
