"""Clients that stay on their backend by a cookie."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from path_scene import OK, answer, get, last_record, proxy
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import SetBackend
from trioproxy.policy.sticky import pin_for
from trioproxy.testing import Harness, MemoryBackend, Response

SECRET = "a secret of some length"


class Scene:
    """A proxy with the sticky route /s/web to backends a, b, c."""

    def __init__(self, harness: Harness, **route: Any) -> None:
        self.harness = harness
        self.keys = {"sticky": True, **route}
        self.backends = [harness.network.listen(name, 1) for name in "abc"]
        self.set_backends("abc")

    def set_backends(self, names: str) -> None:
        targets = [one.as_backend() for one in self.backends if one.host in names]
        self.harness.set_routes([self.backends[0].route("s", "web", **{"backends": targets, **self.keys})])

    def pin(self, name: str) -> bytes:
        """The cookie that names this backend."""
        [backend] = [one for one in self.backends if one.host == name]
        return b"Cookie: trioproxy=" + pin_for(SECRET.encode(), ("s", "web"), backend.as_backend()).encode() + b"\r\n"

    async def request(
        self, fields: bytes = b"", *, path: str = "/s/web/", response: bytes = OK, **client: Any
    ) -> tuple[str, bytes, Response]:
        """One request over a new connection: who served it, with which head, and the answer."""
        dials = [one.dials for one in self.backends]
        wire = await self.harness.send(get(path, fields), **client)
        await wait_all_tasks_blocked()
        [chosen] = [one for one, before in zip(self.backends, dials, strict=True) if one.dials > before]
        served = await chosen.accept()
        head = await answer(served, response)
        got = await wire.read_response()
        await wire.aclose()
        await served.aclose()
        await wait_all_tasks_blocked()
        return chosen.host, head, got


@asynccontextmanager
async def scene(config: dict[str, Any] | None = None, **route: Any) -> AsyncGenerator[Scene]:
    async with proxy({"sticky": {"secret": SECRET}, **(config or {})}) as harness:
        yield Scene(harness, **route)


def cookie_of(response: Response) -> bytes | None:
    """The cookie that a client sends after it got this, as a field line."""
    [*_, line] = response.values("set-cookie") or [b""]
    return b"Cookie: " + line.partition(b";")[0] + b"\r\n" if line else None


async def test_a_client_gets_a_cookie_once_and_stays(autojump_clock: MockClock) -> None:
    async with scene() as here:
        first, _, response = await here.request()
        [line] = response.values("set-cookie")
        assert re.fullmatch(rb"trioproxy=[\w-]{22}; Path=/s/web; HttpOnly; SameSite=Lax", line)
        cookie = cookie_of(response)
        assert cookie is not None
        for _ in range(4):
            name, _, response = await here.request(cookie)
            assert (name, response.values("set-cookie")) == (first, [])


async def test_new_clients_are_balanced(autojump_clock: MockClock) -> None:
    async with scene() as here:
        assert [(await here.request())[0] for _ in range(6)] == ["a", "b", "c"] * 2


async def test_the_cookie_of_every_backend_leads_to_it(autojump_clock: MockClock) -> None:
    async with scene() as here:
        assert [(await here.request(here.pin(name)))[0] for name in "cab"] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("fields", "left"), [(b"", b""), (b"Cookie: a=1; b=2\r\n", b"a=1; b=2")], ids=["alone", "among others"]
)
@pytest.mark.parametrize("lane", [b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"], ids=["short way", "long way"])
async def test_the_cookie_does_not_reach_the_backend_nor_the_log(
    fields: bytes, left: bytes, lane: bytes, autojump_clock: MockClock
) -> None:
    async with scene() as here:
        pin = here.pin("b")
        name, head, _ = await here.request(pin + fields + lane)
        assert name == "b"
        assert b"trioproxy=" not in head
        assert (b"Cookie: " + left + b"\r\n" in head) == bool(left)
        value = pin.partition(b"=")[2].strip()
        assert value not in (await last_record(here.harness)).line()
        assert value not in head


@pytest.mark.parametrize(
    "cookie",
    [
        b"a:1",
        b"0",
        b"",
        b"AAAAAAAAAAAAAAAAAAAAAA",
        b"\xff\xfe",
        pin_for(b"x" * 16, ("s", "web"), MemoryBackend("b", 1).as_backend()).encode(),
    ],
)
async def test_a_forged_cookie_is_ignored_and_replaced(cookie: bytes, autojump_clock: MockClock) -> None:
    async with scene() as here:
        name, head, response = await here.request(b"Cookie: trioproxy=" + cookie + b"\r\n")
        assert name == "a"
        assert b"trioproxy=" not in head
        assert cookie_of(response) == here.pin("a")


async def test_of_several_cookies_the_one_that_names_a_backend_counts(autojump_clock: MockClock) -> None:
    async with scene() as here:
        name, _, response = await here.request(b"Cookie: trioproxy=of-another-route\r\n" + here.pin("c"))
        assert (name, response.values("set-cookie")) == ("c", [])


async def test_a_draining_backend_keeps_its_clients_and_gets_no_new_ones(autojump_clock: MockClock) -> None:
    async with scene() as here:
        here.harness.proxy.execute(SetBackend(("s", "web"), "b:1", "draining"))
        for _ in range(3):
            assert (await here.request(here.pin("b")))[0] == "b"
        assert {(await here.request())[0] for _ in range(6)} == {"a", "c"}


async def test_clients_of_a_backend_that_is_gone_are_pinned_to_another(autojump_clock: MockClock) -> None:
    async with scene() as here:
        here.set_backends("ac")
        name, _, response = await here.request(here.pin("b"))
        assert name in "ac"
        assert cookie_of(response) == here.pin(name)


async def test_clients_of_a_disabled_backend_are_pinned_to_another(autojump_clock: MockClock) -> None:
    async with scene() as here:
        here.harness.proxy.execute(SetBackend(("s", "web"), "b:1", "disabled"))
        name, _, response = await here.request(here.pin("b"))
        assert name in "ac"
        assert cookie_of(response) == here.pin(name)


async def test_clients_of_a_backend_that_fails_are_pinned_to_who_served_them(autojump_clock: MockClock) -> None:
    # Every dial is one more failure only where refusals are not remembered.
    async with scene({"health": {"passive": {"failures": 2}}, "pool": {"refused_for": 0}}) as here:
        here.backends[1].accepting = False
        for _ in range(4):  # it is ejected meanwhile
            wire = await here.harness.send(get("/s/web/", here.pin("b")))
            await wait_all_tasks_blocked()
            [waiting] = [one for one in (here.backends[0], here.backends[2]) if one.dials]
            await answer(await waiting.accept())
            assert cookie_of(await wire.read_response()) == here.pin(waiting.host)
            await wire.aclose()
            waiting.dials = 0
            await here.harness.proxy.pool.aclose()
        states = {info.backend_id: info.state for info in here.harness.report().backends}
        assert states["b:1"] == "ejected"


@pytest.mark.parametrize(
    ("client", "fields", "path", "attributes"),
    [
        ({"tls": True}, b"", "/s/web/x", b"Path=/s/web; HttpOnly; SameSite=Lax; Secure"),
        (
            {"host": "10.0.0.1"},
            b"X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /hub\r\n",
            "/s/web/x",
            b"Path=/hub/s/web; HttpOnly; SameSite=Lax; Secure",
        ),
        ({}, b"", "/p/q/x", b"Path=/p/q; HttpOnly; SameSite=Lax"),
    ],
)
async def test_the_cookie_is_for_where_the_client_finds_the_route(
    client: dict[str, Any], fields: bytes, path: str, attributes: bytes, autojump_clock: MockClock
) -> None:
    async with scene({"access": {"trusted_proxies": ["10.0.0.0/8"]}}, prefix="/p/q") as here:
        _, _, response = await here.request(fields, path=path, **client)
        assert response.values("set-cookie")[0].partition(b"; ")[2] == attributes


@pytest.mark.parametrize("path", ["strip", "keep"])
async def test_by_host_name_the_cookie_is_for_the_whole_host(path: str, autojump_clock: MockClock) -> None:
    async with scene(host="hub", path=path) as here:
        _, _, response = await here.request(path="/deep/below")
        assert b"; Path=/; " in response.values("set-cookie")[0]


async def test_a_route_that_keeps_its_path_has_a_cookie_for_it(autojump_clock: MockClock) -> None:
    async with scene(path="keep") as here:
        _, _, response = await here.request(path="/s/web/lab")
        assert b"; Path=/s/web; " in response.values("set-cookie")[0]


async def test_name_and_age_are_the_routes(autojump_clock: MockClock) -> None:
    async with scene(sticky={"cookie": "stay", "max_age": "1h"}) as here:
        _, _, response = await here.request()
        assert re.match(rb"stay=[\w-]{22}; Path=/s/web; Max-Age=3600; ", response.values("set-cookie")[0])


async def test_the_backends_own_cookies_are_set_too(autojump_clock: MockClock) -> None:
    async with scene() as here:
        own = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 0\r\n\r\n"
        _, _, response = await here.request(response=own)
        assert response.values("set-cookie")[0] == b"a=1; Path=/s/web/"
        assert response.values("set-cookie")[1].startswith(b"trioproxy=")


HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([], [b"private"]),
        ([b"public, max-age=60"], [b"public, max-age=60", b"private"]),
        ([b"max-age=60", b"no-cache"], [b"max-age=60", b"no-cache", b"private"]),
        ([b'private="x-user"'], [b'private="x-user"', b"private"]),
        ([b"max-age=60, Private"], [b"max-age=60, Private"]),
        ([b"no-store"], [b"no-store"]),
    ],
)
@pytest.mark.parametrize("mapped", [b"", b"Location: /elsewhere\r\n"])
async def test_no_shared_cache_may_keep_an_answer_with_our_cookie(
    said: list[bytes], told: list[bytes], mapped: bytes, autojump_clock: MockClock
) -> None:
    fields = b"".join(b"Cache-Control: %b\r\n" % line for line in said) + mapped
    response = b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n"
    async with scene() as s:
        _, _, got = await s.request(response=response)
        assert got.values("cache-control") == told
        _, _, got = await s.request(s.pin("b"), response=response)
        assert got.values("cache-control") == said  # it has no cookie of ours


async def test_a_websocket_handshake_pins_and_follows_the_pin(autojump_clock: MockClock) -> None:
    async with scene() as here:
        name, head, response = await here.request(HANDSHAKE + b"Cookie: a=1\r\n", response=SWITCHING)
        assert (name, response.status, cookie_of(response)) == ("a", 101, here.pin("a"))
        name, head, response = await here.request(HANDSHAKE + here.pin("c"), response=SWITCHING)
        assert (name, response.status, response.values("set-cookie")) == ("c", 101, [])
        assert b"trioproxy=" not in head


async def test_a_route_that_is_not_sticky_leaves_such_a_cookie_alone(autojump_clock: MockClock) -> None:
    async with scene(sticky=False) as here:
        _, head, response = await here.request(here.pin("c"))
        assert here.pin("c") in head
        assert response.values("set-cookie") == []
