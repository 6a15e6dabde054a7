"""Backends that are left alone while they fail, and come back."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from path_scene import GET, OK, answer, proxy
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import GetNews, News, SetConfig, SetEjected
from trioproxy.testing import Harness, MemoryBackend

RETRIED = {"retry": {"attempts": 2}}
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
HUNG = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"


def route_to(harness: Harness, count: int, **keys: object) -> list[MemoryBackend]:
    backends = [harness.network.listen(name, 1) for name in "abcd"[:count]]
    harness.set_routes([backends[0].route("s", "web", **{"backends": [one.as_backend() for one in backends], **keys})])
    return backends


def states(harness: Harness) -> dict[str, str]:
    return {info.backend_id[0]: info.state for info in harness.report().backends}


async def request(harness: Harness, backends: list[MemoryBackend], responses: dict[str, bytes] | None = None) -> str:
    """One request over a new connection; who got it in the end."""
    dials = [one.dials for one in backends]
    client = await harness.send(GET)
    await wait_all_tasks_blocked()
    chosen = [one for one, before in zip(backends, dials, strict=True) if one.dials > before and one.accepting]
    name = ""
    for one in chosen:
        served = await one.accept()
        await answer(served, (responses or {}).get(one.host, OK))
        await served.aclose()
        name = one.host
        await wait_all_tasks_blocked()
    await client.aclose()
    await wait_all_tasks_blocked()
    return name


async def test_a_backend_that_refuses_is_ejected_and_costs_no_more_dials_until_its_trial(
    autojump_clock: MockClock,
) -> None:
    async with proxy(RETRIED) as harness:
        backends = route_to(harness, 3)
        backends[1].accepting = False
        while states(harness).get("b") != "ejected":
            assert await request(harness, backends) in "ac"
            await trio.sleep(0.5)
        began = trio.current_time()
        dials = backends[1].dials
        while trio.current_time() < began + 9:
            assert await request(harness, backends) in "ac"
            await trio.sleep(0.5)
        assert backends[1].dials == dials
        backends[1].accepting = True
        await trio.sleep_until(began + 10)
        assert await request(harness, backends) == "b"
        assert states(harness)["b"] == "healthy"
        news = harness.proxy.execute(GetNews())
        assert isinstance(news, News)
        assert [(one.route, one.backend_id, one.state, one.previous) for one in news.changes] == [
            (("s", "web"), "b:1", "ejected", "healthy"),
            (("s", "web"), "b:1", "healthy", "ejected"),
        ]
        assert news.changes[0].until - news.changes[0].at == pytest.approx(10, abs=0.1)
        assert harness.proxy.execute(GetNews()) == News()


@pytest.mark.parametrize("response", [BAD, HUNG, b"", b"nonsense\r\n\r\n"], ids=["503", "cut", "nothing", "nonsense"])
async def test_a_backend_that_answers_badly_is_ejected(response: bytes, autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"attempts": 0}}) as harness:
        backends = route_to(harness, 3)
        found = Counter([await request(harness, backends, {"b": response}) for _ in range(24)])
        assert found["b"] == 3
        assert states(harness) == {"a": "healthy", "b": "ejected", "c": "healthy"}


async def test_a_backend_that_never_answers_is_ejected(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"attempts": 0}, "timeouts": {"response_head": "2s"}}) as harness:
        backends = route_to(harness, 2)
        for _ in range(6):
            client = await harness.send(GET)
            await wait_all_tasks_blocked()
            if backends[1].dials:
                wire = await backends[1].accept()
                await answer(wire)
                await client.read_response()
                await wire.aclose()
                backends[1].dials = 0
            else:
                assert (await client.read_response()).status == 504
                await client.aclose()
            await wait_all_tasks_blocked()
        assert states(harness) == {"a": "ejected", "b": "healthy"}


async def test_a_trial_by_a_stream_ends_with_its_head(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"attempts": 0}}) as harness:
        backends = route_to(harness, 2)
        while states(harness).get("b") != "ejected":
            await request(harness, backends, {"b": BAD})
        await trio.sleep(10)
        client = await harness.send(GET)
        served = await backends[1].accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await wait_all_tasks_blocked()
        assert states(harness)["b"] == "healthy"
        await client.aclose()


async def test_clients_that_leave_eject_nobody(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        backends = route_to(harness, 2)
        for _ in range(12):
            client = await harness.send(GET)
            await trio.sleep(1.5)
            await client.abort()
            await wait_all_tasks_blocked()
        assert states(harness) == {"a": "healthy", "b": "healthy"}
        assert len(backends) == 2


async def test_when_all_are_out_the_answer_is_503_at_once_and_nobody_is_dialled(autojump_clock: MockClock) -> None:
    async with proxy({"health": {"passive": {"max_ejected": 1.0}}}) as harness:
        backends = route_to(harness, 2)
        for name in "ab":
            harness.proxy.execute(SetEjected(("s", "web"), f"{name}:1", 4e9, "down"))
        began = trio.current_time()
        client = await harness.send(GET)
        response = await client.read_response()
        assert (response.status, response.values("retry-after")) == (503, [b"5"])
        assert (trio.current_time() - began, [one.dials for one in backends]) == (0, [0, 0])


async def test_settings_of_a_reload_count_for_the_next_request(autojump_clock: MockClock) -> None:
    async with proxy({"health": {"passive": {"max_ejected": 1.0}}}) as harness:
        backends = route_to(harness, 1)
        harness.proxy.execute(SetEjected(("s", "web"), "a:1", 4e9, "down"))
        assert await request(harness, backends) == ""
        config = harness.proxy._plane.config  # pyright: ignore[reportPrivateUsage]
        panic = config.health.model_copy(update={"panic": True})
        harness.proxy.execute(SetConfig(config.model_copy(update={"health": panic})))
        assert await request(harness, backends) == "a"


async def test_slow_start_after_an_ejection(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"attempts": 0}, "health": {"slow_start": "20s"}}) as harness:
        backends = route_to(harness, 2)
        while states(harness).get("b") != "ejected":
            await request(harness, backends, {"b": BAD})
        await trio.sleep(10)
        assert await request(harness, backends) == "b"
        got: list[int] = []
        for _ in range(3):
            got.append(Counter([await request(harness, backends) for _ in range(22)])["b"])
            await trio.sleep(10)
        assert got[0] in (1, 2, 3)
        assert got[1] in (7, 8)
        assert got[2] == 11
