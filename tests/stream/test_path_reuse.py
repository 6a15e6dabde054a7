"""When a connection serves again: the client's, the backend's, and what happens when the backend's was dead."""

from __future__ import annotations

import pytest
import trio
from path_scene import (
    GET,
    OK,
    answer,
    assert_all_over,
    begun,
    chunks,
    exchange,
    failures,
    get,
    in_use,
    last_record,
    post,
    proxy,
    scene,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.testing import Harness, Wire

SAFE = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
UNSAFE = ["POST", "PATCH", "QUERY"]


def idle(harness: Harness) -> int:
    return harness.proxy.pool.statistics()["idle"]


# --- the backend's connection ----------------------------------------------------------------------------


async def test_a_backend_connection_serves_one_request_after_another(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        for _ in range(3):
            await client.send(GET)
            await answer(served)
            assert (await client.read_response()).status == 200
        assert backend.dials == 1


async def test_another_client_gets_the_kept_backend_connection(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        _, served, _ = await exchange(harness, backend)
        other = await harness.send(GET, host="192.0.2.2")
        await answer(served)
        assert (await other.read_response()).status == 200
        assert backend.dials == 1


ANSWERS = {
    "length": (OK, True),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", True),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
    "http/1.0, kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", True),
    "http/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", False),
    "bytes behind": (OK + b"HTTP/1.1 200 OK\r\n", False),
    "a body for 204": (b"HTTP/1.1 204 No Content\r\n\r\nok", False),
}


@pytest.mark.parametrize(("response", "reused"), ANSWERS.values(), ids=ANSWERS)
async def test_a_backend_connection_is_kept_only_when_its_answer_allows(
    response: bytes, reused: bool, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, response)
        await client.read_response()
        await wait_all_tasks_blocked()
        assert (idle(harness), len(harness.network.leaked())) == ((1, 1) if reused else (0, 0))
        assert in_use(harness)["active"] == 0


async def test_a_response_that_ends_with_its_connection_is_whole_and_the_client_is_kept(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\n\r\nuntil ")
        await served.send(b"the end")
        await served.aclose()
        response = await client.read_response()
        assert (response.values("transfer-encoding"), response.body) == ([b"chunked"], b"until the end")
        await client.send(GET)
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize("field", [b"Keep-Alive: timeout=5", b"keep-alive: max=100, TIMEOUT = 5"])
async def test_a_backends_keep_alive_timeout_is_respected(field: bytes, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        kept_five_seconds = b"HTTP/1.1 200 OK\r\n" + field + b"\r\nContent-Length: 0\r\n\r\n"
        for _ in range(3):
            await answer(served, kept_five_seconds)
            await client.read_response()
            await trio.sleep(3.9)
            await client.send(GET)
        await answer(served, kept_five_seconds)
        await client.read_response()
        await trio.sleep(4.1)
        await client.send(GET)
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize("how", ["closes", "resets", "ends"])
async def test_a_backend_that_hangs_up_an_idle_connection_costs_nobody_anything(
    how: str, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await {"closes": served.aclose, "resets": served.abort, "ends": served.send_eof}[how]()
        await client.send(post(b"not idempotent"))
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200
        record = await last_record(harness)
        assert (record.retries, record.error, failures(harness)) == (0, None, 0)


# --- the race: it hangs up as the request is on its way ---------------------------------------------------


async def hang_up_on(served: Wire) -> None:
    """Close without an answer, though the request has come."""
    await served.receive()
    await served.aclose()


@pytest.mark.parametrize("method", SAFE)
async def test_a_stale_connection_is_replaced_by_a_fresh_one_for_an_idempotent_request(
    method: str, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(get(method=method))
        await hang_up_on(served)
        fresh = await backend.accept()
        assert (await answer(fresh, b"HTTP/1.1 204 No Content\r\n\r\n")).startswith(method.encode())
        assert (await client.read_response(method=method)).status == 204
        record = await last_record(harness)
        assert (record.retries, record.error, backend.dials) == (1, None, 2)
        assert harness.proxy.metrics.service("web").retries == {"upstream_closed": 1}
        assert failures(harness) == 0


@pytest.mark.parametrize("method", UNSAFE)
async def test_a_stale_connection_is_a_502_for_any_other_request(method: str, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(get(method=method))
        await hang_up_on(served)
        assert (await client.read_response()).status == 502
        record = await last_record(harness)
        assert (record.retries, record.error, backend.dials) == (0, "upstream_closed", 1)
        assert failures(harness) == 0  # a backend may hang up an idle connection when it likes
        await client.send(GET)  # the client's connection goes on
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200


async def test_of_a_replay_the_body_is_sent_whole(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(get(method="PUT", fields=b"Content-Length: 4\r\n") + b"body")
        await hang_up_on(served)
        fresh = await backend.accept()
        assert await begun(fresh, 4) == b"body"
        await fresh.send(OK)
        assert (await client.read_response()).status == 200
        assert (await last_record(harness)).bytes_in == 4


async def test_of_a_replay_the_body_may_still_be_coming(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(get(method="PUT", fields=b"Content-Length: 4\r\n") + b"bo")
        await hang_up_on(served)
        fresh = await backend.accept()
        assert await begun(fresh, 2) == b"bo"
        await client.send(b"dy")
        assert await fresh.read_exactly(2) == b"dy"
        await fresh.send(OK)
        assert (await client.read_response()).status == 200


async def test_a_body_larger_than_replay_bytes_is_not_sent_again(autojump_clock: MockClock) -> None:
    async with scene({"retry": {"replay_bytes": 3}}) as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(get(method="PUT", fields=b"Content-Length: 4\r\n") + b"body")
        await hang_up_on(served)
        assert (await client.read_response()).status == 502


async def test_a_body_of_which_more_than_replay_bytes_was_taken_is_not_sent_again(autojump_clock: MockClock) -> None:
    async with scene({"retry": {"replay_bytes": 3}}) as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(get(method="PUT", fields=b"Content-Length: 4\r\n") + b"bo")
        assert await begun(served, 2) == b"bo"
        await client.send(b"dy")
        await served.read_exactly(2)
        await served.aclose()
        assert (await client.read_response()).status == 502


async def test_all_other_idle_connections_are_distrusted_when_one_was_stale(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        clients = [await harness.send(GET) for _ in range(4)]
        kept = [await backend.accept() for _ in clients]
        for client, served in zip(clients, kept, strict=True):
            await answer(served)
            await client.read_response()
        await clients[0].send(GET)
        async with trio.open_nursery() as nursery:
            for served in kept:
                nursery.start_soon(hang_up_on_if_asked, served)
            await answer(await backend.accept())
            assert (await clients[0].read_response()).status == 200
        assert (await last_record(harness)).retries == 1


async def hang_up_on_if_asked(served: Wire) -> None:
    await served.receive()
    await served.aclose()


async def test_a_first_request_that_is_hung_up_on_is_not_stale(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        await hang_up_on(await backend.accept())
        assert (await client.read_response()).status == 502
        assert ((await last_record(harness)).retries, failures(harness)) == (0, 1)


async def test_a_kept_connection_that_ends_inside_its_answer_is_not_stale(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(GET)
        await answer(served, b"HTTP/1.1 200")
        await served.aclose()
        assert (await client.read_response()).status == 502
        assert ((await last_record(harness)).retries, failures(harness)) == (0, 1)


async def test_without_attempts_nothing_is_replayed(autojump_clock: MockClock) -> None:
    async with scene(retry={"attempts": 0}) as (harness, backend):
        client, served, _ = await exchange(harness, backend)
        await client.send(GET)
        await hang_up_on(served)
        assert (await client.read_response()).status == 502


# --- the pool as requests see it --------------------------------------------------------------------------


async def test_two_routes_with_the_same_backend_share_its_connections(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        backend = harness.network.listen("kernel", 8888)
        harness.set_routes([backend.route("s", "web"), backend.route("t", "lab")])
        client, served, _ = await exchange(harness, backend)
        await client.send(get("/t/lab/"))
        await answer(served)
        assert (await client.read_response()).status == 200
        assert backend.dials == 1


async def test_two_routes_with_the_same_backend_share_its_bound(autojump_clock: MockClock) -> None:
    async with proxy({"pool": {"max_per_backend": 1, "queue_timeout": "2s"}}) as harness:
        backend = harness.network.listen("kernel", 8888)
        harness.set_routes([backend.route("s", "web"), backend.route("t", "lab")])
        await harness.send(GET)
        client = await harness.send(get("/t/lab/"))
        response = await client.read_response()
        assert (response.status, response.values("retry-after")) == (503, [b"1"])
        assert (await last_record(harness)).error == "overloaded"
        assert trio.current_time() == 2


async def test_a_full_queue_is_answered_with_503_at_once(autojump_clock: MockClock) -> None:
    async with scene({"pool": {"max_per_backend": 1, "queue": 1}}) as (harness, backend):
        first = await harness.send(GET)
        served = await backend.accept()
        second = await harness.send(GET)
        await wait_all_tasks_blocked()
        third = await harness.send(GET)
        assert (await third.read_response()).status == 503
        assert (trio.current_time(), (await last_record(harness)).error) == (0, "overloaded")
        assert failures(harness) == 0
        for client in (first, second):
            await answer(served)
            assert (await client.read_response()).status == 200


# --- the client's connection ------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_their_order(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(b"".join(get(f"/s/web/{number}") for number in range(5)))
        served = await backend.accept()
        for number in range(5):
            head = await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
            assert head.startswith(b"GET /%d " % number)
        assert [(await client.read_response()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert backend.dials == 1


async def test_a_request_behind_a_body_is_served_next(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        upload = get(method="POST", fields=b"Transfer-Encoding: chunked\r\n") + chunks(b"one")
        client = await harness.send(upload)
        served = await backend.accept()
        await client.send(chunks(b"two") + b"0\r\n\r\n" + get("/s/web/next"))
        await served.read_head()
        assert await served.read_chunked() == (b"onetwo", b"")
        await served.send(OK)
        assert (await answer(served)).startswith(b"GET /next ")
        assert [(await client.read_response()).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "fields", [b"Connection: close\r\n", b"Connection: Keep-Alive, Close\r\n"], ids=["close", "among others"]
)
async def test_a_client_that_asks_for_it_is_closed_after_its_answer(fields: bytes, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get(fields=fields))
        await answer(await backend.accept())
        assert (await client.read_response()).values("connection") == [b"close"]
        assert await client.read_all() == b""
        await assert_all_over(harness)


async def test_a_client_of_http_1_0_is_closed_after_its_answer(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(b"GET /s/web/ HTTP/1.0\r\n\r\n")
        await answer(
            await backend.accept(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        response = await client.read_response()
        assert (response.body, response.values("transfer-encoding")) == (b"ok", [])


async def test_a_refusal_without_a_body_to_come_keeps_the_client(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(post(b"whole", path="/no/body"))
        response = await client.read_response()
        assert (response.status, response.values("connection")) == (404, [])
        await client.send(GET)
        await answer(await backend.accept())
        assert (await client.read_response()).status == 200
