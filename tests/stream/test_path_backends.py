"""Which backend serves, what another one is tried for, and whose fault it was."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from path_scene import (
    CHUNKED,
    GET,
    OK,
    answer,
    assert_all_over,
    begun,
    chunks,
    get,
    in_use,
    last_record,
    post,
    proxy,
    route_to,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import AdminState, BackendInfo, Done, SetBackend
from trioproxy.testing import Harness, MemoryBackend


def infos(harness: Harness) -> dict[str, BackendInfo]:
    return {info.backend_id: info for info in harness.report().backends}


async def served_by(harness: Harness, backends: list[MemoryBackend], response: bytes = OK) -> str:
    """Send one request over a new connection; the backend that got it."""
    before = [backend.dials for backend in backends]
    client = await harness.send(GET)
    await wait_all_tasks_blocked()
    [chosen] = [one for one, dials in zip(backends, before, strict=True) if one.dials > dials]
    served = await chosen.accept()
    await answer(served, response)
    await client.read_response()
    await client.aclose()
    await served.aclose()
    await wait_all_tasks_blocked()
    return chosen.host


# --- whose turn it is -------------------------------------------------------------------------------------


async def test_backends_take_turns(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        backends = route_to(harness, 3)
        assert [await served_by(harness, backends) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


async def test_backends_take_turns_by_weight_without_bursts(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        backends = route_to(harness, 3, (5, 1, 1))
        turns = [await served_by(harness, backends) for _ in range(14)]
        assert "".join(turns) == "aabacaa" * 2


async def test_a_backend_of_weight_0_serves_only_when_nothing_else_is_left(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        backends = route_to(harness, 2, (1, 0))
        assert {await served_by(harness, backends) for _ in range(4)} == {"a"}
        backends[0].accepting = False
        assert await served_by(harness, backends) == "b"


async def test_a_route_without_backends_is_answered_with_503(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        route_to(harness, 1, backends=[])
        client = await harness.send(GET)
        response = await client.read_response()
        assert (response.status, response.values("retry-after")) == (503, [b"5"])
        record = await last_record(harness)
        assert (record.error, record.backend) == ("no_backend", None)


# --- another try ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [GET, post(b"body"), get(fields=CHUNKED, method="POST") + chunks(b"bo")])
async def test_a_refused_connection_is_tried_on_the_next_backend_with_any_method(
    raw: bytes, autojump_clock: MockClock
) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        first.accepting = False
        client = await harness.send(raw)
        served = await second.accept()
        if b"chunked" in raw:
            await client.send(chunks(b"dy") + b"0\r\n\r\n")
            await served.read_head()
            assert await served.read_chunked() == (b"body", b"")
            await served.send(OK)
        else:
            await answer(served)
        assert (await client.read_response()).status == 200
        record = await last_record(harness)
        assert (record.backend, record.retries, record.error) == ("b:1", 1, None)
        assert harness.proxy.metrics.service("web").retries == {"connect_failed": 1}
        assert infos(harness)["a:1"].last_error == "connect_failed: a:1 refused the connection"


async def test_a_connect_timeout_is_tried_on_the_next_backend(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        first.answering = False
        client = await harness.send(GET)
        await answer(await second.accept())
        assert (await client.read_response()).status == 200
        assert trio.current_time() == 3
        assert (await last_record(harness)).wait_seconds == 3


async def test_a_full_pool_is_tried_on_the_next_backend(autojump_clock: MockClock) -> None:
    async with proxy({"pool": {"max_per_backend": 1, "queue": 0}}) as harness:
        first, second = route_to(harness, 2)
        await harness.send(GET)
        await first.accept()
        await harness.send(GET)
        served = await second.accept()
        client = await harness.send(GET)  # a's turn, and a has no place
        assert (await client.read_response()).status == 503
        assert (await last_record(harness)).retries == 1
        await answer(served)
        assert {name: info.failures for name, info in infos(harness).items()} == {"a:1": 0, "b:1": 0}


async def test_when_all_fail_the_last_error_is_the_answer(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        first.accepting = False
        second.answering = False
        client = await harness.send(GET)
        assert (await client.read_response()).status == 504
        record = await last_record(harness)
        assert (record.error, record.backend, record.retries) == ("connect_timeout", "b:1", 1)
        await client.aclose()
        await assert_all_over(harness)


async def test_a_lone_backend_that_refuses_is_not_counted_as_tried_again(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        [backend] = route_to(harness, 1)
        backend.accepting = False
        client = await harness.send(GET)
        assert (await client.read_response()).status == 502
        assert (await last_record(harness)).retries == 0
        assert harness.proxy.metrics.service("web").retries == {}


@pytest.mark.parametrize(("config", "route", "tries"), [(2, None, 3), (0, None, 1), (5, 1, 2), (0, 3, 4)])
async def test_attempts_bound_the_tries(config: int, route: int | None, tries: int, autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"attempts": config}}) as harness:
        backends = route_to(harness, 8, retry={} if route is None else {"attempts": route})
        for backend in backends:
            backend.accepting = False
        client = await harness.send(GET)
        assert (await client.read_response()).status == 502
        assert (await last_record(harness)).retries == tries - 1
        assert sum(info.requests for info in infos(harness).values()) == tries


async def test_what_never_left_may_be_sent_elsewhere_however_large_it_is(autojump_clock: MockClock) -> None:
    async with proxy({"retry": {"replay_bytes": 0}}) as harness:
        first, second = route_to(harness, 2)
        first.accepting = False
        client = await harness.send(post(b"body"))
        served = await second.accept()
        assert await begun(served, 4) == b"body"
        await served.send(OK)
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize(
    "response",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n",
    ],
)
async def test_an_answer_is_not_tried_again_however_bad_it_is(response: bytes, autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        first, second = route_to(harness, 2)
        client = await harness.send(GET)
        served = await first.accept()
        await answer(served, response)
        await served.aclose()
        assert (await client.read_response()).status == (500 if b"500" in response else 502)
        assert ((await last_record(harness)).retries, second.dials) == (0, 0)


# --- the operator's word ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["draining", "disabled"])
async def test_a_backend_taken_out_gets_no_new_requests_until_it_is_enabled(
    state: AdminState, autojump_clock: MockClock
) -> None:
    async with proxy() as harness:
        backends = route_to(harness, 2)
        assert harness.proxy.execute(SetBackend(("s", "web"), "a:1", state)) == Done(found=True)
        assert {await served_by(harness, backends) for _ in range(4)} == {"b"}
        assert infos(harness)["a:1"].state == state
        harness.proxy.execute(SetBackend(("s", "web"), "a:1", "enabled"))
        assert {await served_by(harness, backends) for _ in range(4)} == {"a", "b"}


async def test_what_runs_on_a_backend_taken_out_goes_on(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        [backend] = route_to(harness, 1)
        client = await harness.send(GET)
        served = await backend.accept()
        harness.proxy.execute(SetBackend(("s", "web"), "a:1", "disabled"))
        await trio.sleep(50)
        await answer(served)
        assert (await client.read_response()).status == 200
        await client.send(GET)
        assert (await client.read_response()).status == 503
        assert (await last_record(harness)).error == "no_backend"


async def test_an_operators_word_outlives_a_new_table(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        route_to(harness, 2)
        harness.proxy.execute(SetBackend(("s", "web"), "a:1", "disabled"))
        backends = route_to(harness, 3)
        assert {await served_by(harness, backends) for _ in range(4)} == {"b", "c"}


@pytest.mark.parametrize("key", [("s", "web", "z:1"), ("s", "none", "a:1")])
async def test_a_word_about_what_is_not_there_is_not_found(
    key: tuple[str, str, str], autojump_clock: MockClock
) -> None:
    async with proxy() as harness:
        route_to(harness, 1)
        session, service, backend = key
        assert harness.proxy.execute(SetBackend((session, service), backend, "disabled")) == Done(found=False)


# --- blame ------------------------------------------------------------------------------------------------

REFUSED_FOR = 0.5  # seconds after which a backend that refused once is dialled again

BACKEND_FAULTS = {
    "connect_failed": lambda backend: setattr(backend, "accepting", False),
    "connect_timeout": lambda backend: setattr(backend, "answering", False),
}


@pytest.mark.parametrize("code", BACKEND_FAULTS)
async def test_a_backend_that_cannot_be_reached_is_to_blame(code: str, autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        [backend] = route_to(harness, 1)
        BACKEND_FAULTS[code](backend)
        for _ in range(2):
            client = await harness.send(GET)
            assert (await client.read_response()).status in (502, 504)
            await trio.sleep(REFUSED_FOR)
        info = infos(harness)["a:1"]
        assert (info.failures, info.requests, info.in_flight) == (2, 2, 0)
        assert info.last_error is not None
        assert info.last_error.startswith(code)
        assert info.last_error_at is not None


async def test_a_served_request_ends_a_row_of_failures(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        [backend] = route_to(harness, 1)
        backend.accepting = False
        client = await harness.send(GET)
        await client.read_response()
        assert infos(harness)["a:1"].failures == 1
        backend.accepting = True
        await trio.sleep(REFUSED_FOR)
        await client.send(GET)
        await answer(await backend.accept())
        await client.read_response()
        await wait_all_tasks_blocked()
        info = infos(harness)["a:1"]
        assert (info.failures, info.requests) == (0, 2)
        assert info.last_error is not None  # it is remembered, with its time


async def test_a_request_that_was_cut_says_nothing_about_its_backend(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        [backend] = route_to(harness, 1)
        backend.accepting = False
        await (await harness.send(GET)).read_response()
        backend.accepting = True
        await trio.sleep(REFUSED_FOR)
        await harness.send(GET)
        await backend.accept()
        for connection in harness.proxy.live:
            connection.end("closed by an operator", error="closed")
        await assert_all_over(harness)
        assert infos(harness)["a:1"].failures == 1


async def test_errors_of_clients_are_no_failures_and_errors_are_counted_by_code(autojump_clock: MockClock) -> None:
    async with proxy({"limits": {"body_bytes": 5}}) as harness:
        [backend] = route_to(harness, 1)
        chunked = get(fields=CHUNKED, method="POST")
        for wrong, code in (
            (b"xyz\r\n", "bad_request"),
            (chunks(b"123456"), "body_too_large"),
        ):
            client = await harness.send(chunked)
            await backend.accept()
            await client.send(wrong)
            assert (await client.read_response()).status in (400, 413)
            assert (await last_record(harness)).error == code
        client = await harness.send(chunked)
        await backend.accept()
        await client.abort()
        await wait_all_tasks_blocked()
        assert infos(harness)["a:1"].failures == 0
        assert harness.proxy.metrics.errors == Counter(bad_request=1, body_too_large=1, client_gone=1)
        assert in_use(harness)["backend in-flight"] == 0


async def test_in_flight_is_counted_while_a_request_runs(autojump_clock: MockClock) -> None:
    async with proxy() as harness:
        [backend] = route_to(harness, 1)
        clients = [await harness.send(GET) for _ in range(3)]
        served = [await backend.accept() for _ in clients]
        assert infos(harness)["a:1"].in_flight == 3
        assert harness.report().activity["s", "web"].connections == 3
        for client, wire in zip(clients, served, strict=True):
            await answer(wire)
            await client.read_response()
        await wait_all_tasks_blocked()
        assert infos(harness)["a:1"].in_flight == 0
        assert harness.report().activity["s", "web"].connections == 0
