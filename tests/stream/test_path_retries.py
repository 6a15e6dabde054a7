"""What is sent to a second backend, and what is not: one test per rule."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from path_scene import (
    CHUNKED,
    GET,
    OK,
    answer,
    assert_all_over,
    chunks,
    failures_of,
    get,
    last_record,
    post,
    proxy,
    route_to,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.testing import Harness, MemoryBackend, Wire

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
SAFE = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
ON_STATUS = {"statuses": "502-504"}
NO_EJECTION = {"passive": {"failures": 1000, "max_ejected": 0.0}}
KEY = b"Idempotency-Key: 8e03978e\r\n"


def retries(harness: Harness) -> dict[str, int]:
    return dict(harness.proxy.metrics.service("web").retries)


def denied(harness: Harness) -> int:
    return harness.proxy.metrics.service("web").retries_denied


async def hang_up(wire: Wire) -> bytes:
    """Read a head and close without an answer; the head."""
    head = await wire.read_head()
    await wire.aclose()
    return head


async def reset(wire: Wire) -> bytes:
    head = await wire.read_head()
    await wire.abort()
    return head


async def half_an_answer(wire: Wire) -> bytes:
    head = await wire.read_head()
    await wire.send(b"HTTP/1.1 200 O")
    await wire.aclose()
    return head


FAILING = {"closes": hang_up, "resets": reset, "closes inside the head": half_an_answer}


# --- a backend that does not answer -----------------------------------------------------------------------


@pytest.mark.parametrize("how", FAILING)
@pytest.mark.parametrize("method", SAFE)
async def test_an_idempotent_request_goes_to_another_backend(how: str, method: str, autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(get(method=method))
        sent = await FAILING[how](await first.accept())
        again = await answer(await second.accept(), b"HTTP/1.1 204 No Content\r\n\r\n")
        assert again == sent
        assert (await client.read_response(method=method)).status == 204
        record = await last_record(harness)
        assert (record.backend, record.retries, record.error) == ("b:1", 1, None)
        assert record.tries == ["a:1 upstream_closed"]
        assert retries(harness) == {"upstream_closed": 1}
        assert failures_of(harness) == {"a:1": 1, "b:1": 0}
        await client.aclose()
        await assert_all_over(harness)


@pytest.mark.parametrize("how", FAILING)
@pytest.mark.parametrize("method", ["POST", "PATCH", "QUERY"])
async def test_any_other_request_is_sent_once(how: str, method: str, autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(get(method=method, fields=KEY))
        await FAILING[how](await first.accept())
        assert (await client.read_response()).status == 502
        record = await last_record(harness)
        assert (record.backend, record.retries, second.dials) == ("a:1", 0, 0)
        assert retries(harness) == {}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_idempotency_key_makes_it_idempotent_where_the_route_says_so(
    method: str, autojump_clock: MockClock
) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, (1, 0), retry={"idempotency_key": True})
        client = await harness.send(get(method=method, fields=KEY))
        await hang_up(await first.accept())
        assert KEY in await answer(await second.accept())
        assert (await client.read_response()).status == 200
        client = await harness.send(get(method=method))
        await hang_up(await first.accept())
        assert (await client.read_response()).status == 502


async def test_a_backend_that_spoke_nonsense_is_not_followed_by_another(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(GET)
        await answer(await first.accept(), b"nonsense\r\n\r\n")
        assert (await client.read_response()).status == 502
        assert second.dials == 0


async def test_an_answer_that_breaks_off_is_cut_and_not_begun_anew(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(GET)
        await answer(first_wire := await first.accept(), OK[:-1])
        await first_wire.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()
        assert second.dials == 0


async def test_every_try_has_another_backend_and_the_last_error_is_the_answer(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"attempts": 10}}) as harness:
        backends = route_to(harness, 3)
        client = await harness.send(GET)
        for backend in backends:
            await reset(await backend.accept())
        assert (await client.read_response()).status == 502
        record = await last_record(harness)
        assert record.tries == ["a:1 upstream_closed", "b:1 upstream_closed"]
        assert [backend.dials for backend in backends] == [1, 1, 1]


async def test_a_stale_connection_and_then_a_dead_backend_are_two_tries(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, (1, 0))
        client = await harness.send(GET)
        await answer(kept := await first.accept())
        await client.read_response()
        await client.send(GET)
        await hang_up(kept)
        await hang_up(await first.accept())
        await answer(await second.accept())
        assert (await client.read_response()).status == 200
        assert (await last_record(harness)).tries == ["a:1 upstream_closed"] * 2


# --- an answer that is none -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("where", ["config", "route"])
async def test_an_answer_of_retry_statuses_is_not_passed_on(status: int, where: str, autojump_clock: MockClock) -> None:
    config, route = ({"retry": ON_STATUS}, {}) if where == "config" else ({}, {"retry": ON_STATUS})
    async with proxy(config) as harness:
        first, second = route_to(harness, 2, (1, 0), **route)
        client = await harness.send(GET)
        await answer(served := await first.accept(), BUSY.replace(b"503", b"%d" % status))
        await answer(await second.accept())
        response = await client.read_response()
        assert (response.status, response.body) == (200, b"ok")
        record = await last_record(harness)
        assert (record.tries, record.bytes_out) == (["a:1 upstream_status"], 2)
        assert retries(harness) == {"upstream_status": 1}
        await client.send(GET)  # the answer was whole: its connection was kept
        await answer(served)
        assert (await client.read_response()).status == 200
        assert (first.dials, second.dials) == (1, 1)


@pytest.mark.parametrize("slow", [0.0, 1.5])
@pytest.mark.parametrize("length", [4, 100_000])
async def test_an_answer_that_is_not_whole_costs_its_connection(
    slow: float, length: int, autojump_clock: MockClock
) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, retry=ON_STATUS)
        client = await harness.send(GET)
        served = await first.accept()
        await served.read_head()
        await trio.sleep(slow)
        await served.send(b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\nb" % length)
        await answer(await second.accept())
        assert (await client.read_response()).status == 200
        assert await served.receive() == b""
        await client.aclose()
        await assert_all_over(harness)


@pytest.mark.parametrize(
    ("raw", "status", "route"),
    [
        (GET, 503, {}),
        (GET, 500, {"retry": ON_STATUS}),
        (post(b"x"), 503, {"retry": ON_STATUS}),
        (GET, 503, {"retry": {**ON_STATUS, "attempts": 0}}),
        (GET, 503, {"retry": {**ON_STATUS, "budget": 0.0}}),
    ],
    ids=["not asked for", "another status", "not idempotent", "no attempts", "no budget"],
)
async def test_any_other_answer_is_passed_on(
    raw: bytes, status: int, route: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, **route)
        client = await harness.send(raw)
        await answer(await first.accept(), BUSY.replace(b"503", b"%d" % status))
        response = await client.read_response()
        assert (response.status, response.body, second.dials) == (status, b"busy", 0)
        assert (await last_record(harness)).tries is None


async def test_when_nobody_else_is_left_the_last_answer_is_passed_on(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, retry=ON_STATUS)
        client = await harness.send(GET)
        await answer(await first.accept(), BUSY)
        await answer(await second.accept(), BUSY.replace(b"busy", b"more"))
        assert (await client.read_response()).body == b"more"
        assert (await last_record(harness)).tries == ["a:1 upstream_status"]


async def test_a_refused_handshake_is_taken_elsewhere(autojump_clock: MockClock) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: tunnel\r\n"
    async with proxy() as harness:
        first, second = route_to(harness, 2, retry=ON_STATUS)
        client = await harness.send(get(fields=upgrade))
        await answer(await first.accept(), BUSY)
        await answer(await second.accept(), b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")
        assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")


# --- Retry-After ------------------------------------------------------------------------------------------


async def ask(harness: Harness, backend: MemoryBackend, response: bytes) -> Wire:
    client = await harness.send(GET)
    await answer(await backend.accept(), response)
    return client


WAIT = BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 20\r\nConnection: close\r\n\r\n")


async def test_second_tries_spare_a_backend_that_asks_to_wait(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, (1, 0), retry=ON_STATUS)
        client = await ask(harness, first, WAIT)
        await answer(await second.accept(), WAIT)
        response = await client.read_response()  # both have asked for it: what the second one said is the answer
        assert (response.status, response.values("retry-after")) == (503, [b"20"])
        client = await ask(harness, first, WAIT)
        assert (await client.read_response()).status == 503
        assert (first.dials, second.dials) == (2, 1)
        await trio.sleep(21)
        client = await ask(harness, first, WAIT)
        await answer(await second.accept())
        assert (await client.read_response()).status == 200


async def test_a_request_that_was_not_sent_may_go_to_one_that_asks_to_wait(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2, (1, 0), retry=ON_STATUS)
        client = await ask(harness, first, WAIT)
        await answer(await second.accept())
        await client.read_response()
        second.accepting = False
        await trio.sleep(1)
        for served in second.open:
            served.reset()
        client = await ask(harness, first, OK)
        assert (await client.read_response()).status == 200


# --- bodies -----------------------------------------------------------------------------------------------


def put(size: int, body: bytes) -> bytes:
    return get(method="PUT", fields=b"Content-Length: %d\r\n" % size) + body


async def test_a_body_that_was_still_coming_is_sent_again_whole(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(put(10, b"ab"))
        wire = await first.accept()
        await wire.read_head()
        await client.send(b"cdef")
        assert await wire.read_exactly(6) == b"abcdef"
        await wire.abort()
        again = await second.accept()
        await again.read_head()
        assert await again.read_exactly(6) == b"abcdef"
        await client.send(b"ghij")
        assert await again.read_exactly(4) == b"ghij"
        await again.send(OK)
        assert (await client.read_response()).status == 200
        assert (await last_record(harness)).bytes_in == 10


async def test_a_chunked_body_is_sent_again_with_its_trailers(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(get(method="PUT", fields=CHUNKED) + chunks(b"ab"))
        wire = await first.accept()
        await wire.read_head()
        await client.send(chunks(b"cd", b"ef") + b"0\r\nX-Sum: 1\r\n\r\n")
        assert await wire.read_chunked() == (b"abcdef", b"X-Sum: 1\r\n")
        await wire.aclose()
        again = await second.accept()
        await again.read_head()
        assert await again.read_chunked() == (b"abcdef", b"X-Sum: 1\r\n")
        await again.send(OK)
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize(("size", "again"), [(1000, True), (1001, False)])
@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_replay_bytes_is_the_largest_body_that_is_sent_again(
    size: int, again: bool, coding: str, autojump_clock: MockClock
) -> None:
    async with proxy({"retry": {"replay_bytes": 1000}}) as harness:
        first, second = route_to(harness, 2)
        head = put(size, b"") if coding == "length" else get(method="PUT", fields=CHUNKED)
        client = await harness.send(head)
        wire = await first.accept()
        await wire.read_head()
        if coding == "length":
            await client.send(b"x" * size)
            await wire.read_exactly(size)
        else:
            await client.send(chunks(b"x" * size) + b"0\r\n\r\n")
            await wire.read_chunked()
        await wire.aclose()
        if again:
            await answer(await second.accept())
        assert (await client.read_response()).status == (200 if again else 502)
        assert second.dials == again


# --- pauses, per_try, budget ------------------------------------------------------------------------------


async def test_there_is_a_pause_before_another_backend_works_on_it(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"backoff": "1s"}}, rng=lambda: 0.5) as harness:
        first, second, third = route_to(harness, 3)
        await harness.send(GET)
        await hang_up(await first.accept())
        await hang_up(await second.accept())
        assert trio.current_time() == pytest.approx(0.5)
        await third.accept()
        assert trio.current_time() == pytest.approx(1.5)


@pytest.mark.parametrize("per_try", [0.3, 3.0])
async def test_per_try_ends_the_wait_for_a_backend_that_another_one_can_stand_in_for(
    per_try: float, autojump_clock: MockClock
) -> None:
    async with proxy({"retry": {"per_try": per_try, "backoff": 0}}) as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(GET)
        served = await first.accept()
        await answer(await second.accept())
        assert trio.current_time() == pytest.approx(per_try)
        assert (await client.read_response()).status == 200
        assert (await last_record(harness)).tries == ["a:1 response_timeout"]
        await served.read_head()
        assert await served.receive() == b""


@pytest.mark.parametrize(
    ("count", "method", "config"),
    [(1, "GET", {}), (2, "POST", {}), (2, "GET", {"attempts": 0}), (2, "GET", {"budget": 0.0})],
    ids=["nobody else", "not idempotent", "no attempts", "no budget"],
)
async def test_per_try_does_no_harm_where_nobody_could_answer_instead(
    count: int, method: str, config: dict[str, Any], autojump_clock: MockClock
) -> None:
    async with proxy({"retry": {"per_try": "2s", **config}}) as harness:
        first = route_to(harness, count)[0]
        client = await harness.send(get(method=method))
        served = await first.accept()
        await trio.sleep(50)
        await answer(served)
        assert (await client.read_response()).status == 200


async def test_the_last_try_has_all_of_response_head(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"per_try": "2s", "backoff": 0}}) as harness:
        route_to(harness, 2)
        client = await harness.send(GET)
        assert (await client.read_response()).status == 504
        assert trio.current_time() == pytest.approx(62)


async def test_the_budget_bounds_what_a_dead_service_gets(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"backoff": 0}, "health": NO_EJECTION}) as harness:
        first, second = route_to(harness, 2)
        got = 0

        async def fail(backend: MemoryBackend) -> None:
            nonlocal got
            while True:
                await hang_up(await backend.accept())
                got += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, first)
            nursery.start_soon(fail, second)
            for _ in range(200):
                client = await harness.send(GET)
                assert (await client.read_response()).status == 502
            nursery.cancel_scope.cancel()
        assert got == 200 + 40
        assert (retries(harness), denied(harness)) == ({"upstream_closed": 40}, 160)


async def test_the_budget_does_not_hold_back_what_was_not_sent(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"budget": 0.0}}) as harness:
        first, second = route_to(harness, 2)
        first.accepting = False
        for _ in range(30):
            client = await harness.send(post(b"x", fields=b"Connection: close\r\n"))
            await answer(await second.accept(), OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert (await client.read_response()).status == 200
        await wait_all_tasks_blocked()
        assert denied(harness) == 0
