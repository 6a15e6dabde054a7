"""Several backends die at once: those that live still get the requests."""

from __future__ import annotations

import pytest
from path_scene import GET, OK, answer, assert_all_over, get, last_record, post, proxy, route_to
from trio.testing import MockClock

from trioproxy.proxy.tries import MOST_PASSED_OVER

LATER = {"pool": {"refused_for": 3600}}


@pytest.mark.parametrize("raw", [GET, post(b"order")], ids=["GET", "POST"])
async def test_backends_known_to_refuse_use_up_no_tries(raw: bytes, autojump_clock: MockClock) -> None:
    async with proxy(LATER) as harness:
        backends = route_to(harness, 8, passive={"failures": 0})
        *dead, living = (backend.as_backend() for backend in backends)
        rules = {"passive": {"failures": 0}}
        harness.set_routes([backends[0].route("s", "web", backends=dead, **rules)])
        for backend in backends[:-1]:
            backend.accepting = False
        for _ in dead:  # each of them refuses once
            client = await harness.send(GET)
            assert (await client.read_response()).status == 502
            await client.aclose()
        harness.set_routes([backends[0].route("s", "web", backends=[*dead, living], **rules)])
        for _ in range(5):
            client = await harness.send(raw)
            served = await backends[-1].accept()
            await answer(served)
            assert (await client.read_response()).status == 200
            await client.aclose()
            await served.aclose()
        record = await last_record(harness)
        assert (record.retries, record.tries) == (0, None)
        await assert_all_over(harness)


async def test_a_kept_connection_that_is_dead_uses_up_no_try(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        *dead, living = route_to(harness, 4, retry={"attempts": 2})
        client = await harness.send(GET)
        kept = await dead[0].accept()
        await answer(kept)
        await client.read_response()
        for backend in (*dead[1:], living):
            await client.send(GET)
            served = await backend.accept()
            await answer(served, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            await client.read_response()
        await client.send(get("/s/web/last"))
        await kept.read_head()
        for backend in dead:
            backend.accepting = False
        await kept.aclose()
        assert b"/last" in await answer(await living.accept())
        assert (await client.read_response()).status == 200
        record = await last_record(harness)
        assert record.tries == ["a:1 upstream_closed", "b:1 connect_failed", "c:1 connect_failed"]
        await client.aclose()
        await assert_all_over(harness)


async def test_without_second_tries_there_are_none(autojump_clock: MockClock) -> None:
    async with proxy(LATER) as harness:
        first, second = route_to(harness, 2, (1, 0), retry={"attempts": 0}, passive={"failures": 0})
        first.accepting = False
        for _ in range(3):
            client = await harness.send(GET)
            assert (await client.read_response()).status == 502
            await client.aclose()
        assert second.dials == 0


@pytest.mark.parametrize(("count", "status"), [(MOST_PASSED_OVER, 200), (MOST_PASSED_OVER + 5, 502)])
async def test_so_many_are_passed_over_and_no_more(count: int, status: int, autojump_clock: MockClock) -> None:
    # A request looks at all backends for each of them, and a route may have a thousand.
    async with proxy(LATER) as harness:
        dead = [harness.network.listen(f"dead-{number}", 1) for number in range(count)]
        living = harness.network.listen("living", 1)
        rules = {"passive": {"failures": 0}}
        targets = [backend.as_backend() for backend in dead]
        harness.set_routes([living.route("s", "web", backends=targets, **rules)])
        for backend in dead:
            backend.accepting = False
        for _ in dead:
            client = await harness.send(GET)
            assert (await client.read_response()).status == 502
            await client.aclose()
        # With no weight it is the last one to be chosen.
        harness.set_routes([living.route("s", "web", backends=[*targets, living.as_backend(weight=0)], **rules)])
        client = await harness.send(GET)
        if status == 200:
            await answer(await living.accept())
        assert (await client.read_response()).status == status
        assert living.dials == (status == 200)
