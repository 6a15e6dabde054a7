"""Live connections: what is told of them, and how one is ended from outside."""

from __future__ import annotations

import time

import pytest
import trio
from path_scene import GET, answer, assert_all_over, chunks, exchange, get, last_record, post, scene
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import CloseConnection, ConnectionInfo, Done
from trioproxy.testing import Harness

TUNNEL = get(fields=b"Connection: upgrade\r\nUpgrade: telnet\r\n")
SWITCH = b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: telnet\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def listed(harness: Harness) -> list[ConnectionInfo]:
    return list(harness.report(connections=True).connections)


def only(harness: Harness) -> ConnectionInfo:
    [info] = listed(harness)
    return info


async def test_a_connection_without_a_request_is_idle(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        before = time.time()
        await harness.connect(host="192.0.2.7", port=1234, listener="web")
        await wait_all_tasks_blocked()
        info = only(harness)
        assert (info.kind, info.client, info.listener, info.requests) == ("idle", "192.0.2.7:1234", "web", 0)
        assert (info.session_id, info.service, info.backend, info.method, info.path) == (None,) * 5
        assert before <= info.opened_at <= time.time()


async def test_a_connection_tells_the_request_it_serves(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        await harness.send(get("/s/web/api/x?token=secret"))
        await backend.accept()
        info = only(harness)
        assert (info.kind, info.method, info.path) == ("http", "GET", "/s/web/api/x")
        assert (info.session_id, info.service, info.backend, info.requests) == ("s", "web", "kernel:8888", 1)


async def test_between_two_requests_it_is_idle_again_and_remembers_its_sums(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client, served, _ = await exchange(harness, backend, post(b"four"))
        await served.read_exactly(4)
        await wait_all_tasks_blocked()
        assert (only(harness).kind, only(harness).bytes_in, only(harness).bytes_out) == ("idle", 4, 2)
        await client.send(GET)
        await answer(served)
        await client.read_response()
        await wait_all_tasks_blocked()
        assert (only(harness).requests, only(harness).bytes_in, only(harness).bytes_out) == (2, 4, 4)


async def test_a_tunnel_tells_its_kind_and_its_bytes_while_it_runs(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(TUNNEL)
        served = await backend.accept()
        await answer(served, SWITCH)
        await client.read_head()
        await client.send(b"12345")
        await served.send(b"123")
        await served.read_exactly(5)
        await client.read_exactly(3)
        await wait_all_tasks_blocked()
        assert (only(harness).kind, only(harness).bytes_in, only(harness).bytes_out) == ("tunnel", 5, 3)


async def test_ids_are_unique_and_a_request_has_another_one(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        clients = [await harness.send(GET) for _ in range(20)]
        for client in clients:
            await answer(await backend.accept())
            await client.read_response()
        await wait_all_tasks_blocked()
        ids = {info.id for info in listed(harness)} | {record.id for record in harness.records}
        assert len(ids) == 40


async def test_without_asking_no_connection_is_listed(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        await harness.connect()
        await wait_all_tasks_blocked()
        assert harness.report().connections == ()


# --- closing one ------------------------------------------------------------------------------------------


def close(harness: Harness, connection_id: str) -> Done:
    done = harness.proxy.execute(CloseConnection(connection_id))
    assert isinstance(done, Done)
    return done


async def test_closing_an_idle_connection_ends_it_silently(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        client, other = await harness.connect(), await harness.connect(port=2)
        await wait_all_tasks_blocked()
        first, _ = listed(harness)
        assert close(harness, first.id) == Done(found=True)
        assert await client.read_all() == b""
        await wait_all_tasks_blocked()
        assert [info.client for info in listed(harness)] == ["192.0.2.1:2"]
        await other.aclose()
        await assert_all_over(harness)
        assert harness.records == []


async def test_closing_a_connection_that_waits_for_its_answer_frees_the_backend(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await served.read_head()
        close(harness, only(harness).id)
        assert await client.read_all() == b""
        assert await served.read_all() == b""
        await assert_all_over(harness)
        record = await last_record(harness)
        assert (record.status, record.error) == (0, "closed")


async def test_closing_a_connection_inside_its_answer_is_a_visible_cut(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        await answer(await backend.accept(), STREAM_HEAD)
        await client.read_head()
        close(harness, only(harness).id)
        with pytest.raises(trio.BrokenResourceError):
            await client.read_all()
        await assert_all_over(harness)
        record = await last_record(harness)
        assert (record.status, record.error) == (200, "closed")


async def test_closing_a_tunnel_ends_it(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(TUNNEL)
        served = await backend.accept()
        await answer(served, SWITCH)
        await client.read_head()
        close(harness, only(harness).id)
        await assert_all_over(harness)
        assert trio.current_time() <= 3
        record = await last_record(harness)
        assert (record.status, record.error, record.kind) == (101, "closed", "tunnel")


async def test_closing_what_is_not_there_is_not_found(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        assert close(harness, "nobody") == Done(found=False)


async def test_closing_a_connection_twice_finds_it_until_it_is_gone(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        await harness.connect()
        await wait_all_tasks_blocked()
        connection_id = only(harness).id
        assert (close(harness, connection_id), close(harness, connection_id)) == (Done(), Done())
        await assert_all_over(harness)
        assert close(harness, connection_id) == Done(found=False)


# --- activity ---------------------------------------------------------------------------------------------


@pytest.fixture
def wall_clock(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> float:
    """The time of day moves with trio's clock; where it begins."""
    begin = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: begin + autojump_clock.current_time())
    return begin


async def test_last_activity_is_the_begin_and_then_the_end_of_a_request(
    wall_clock: float, autojump_clock: MockClock
) -> None:
    async with scene() as (harness, backend):
        await trio.sleep(100)
        client = await harness.send(GET)
        served = await backend.accept()
        await trio.sleep(10)
        assert harness.report().activity["s", "web"].last_activity == wall_clock + 100
        await answer(served)
        await client.read_response()
        await trio.sleep(10)
        activity = harness.report().activity["s", "web"]
        assert (activity.last_activity, activity.requests, activity.bytes) == (wall_clock + 110, 1, 2)


async def test_last_activity_moves_while_a_stream_moves_and_only_then(
    wall_clock: float, autojump_clock: MockClock
) -> None:
    async with scene({"timeouts": {"stall": 0}}) as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, STREAM_HEAD)
        await client.read_head()
        for _ in range(5):
            await trio.sleep(50)
            await served.send(chunks(b"x"))
            await client.read_exactly(6)
            await wait_all_tasks_blocked()
            now = trio.current_time()
            assert harness.report().activity["s", "web"].last_activity == wall_clock + now
        await trio.sleep(500)
        assert harness.report().activity["s", "web"].last_activity == wall_clock + now


async def test_last_activity_moves_with_a_tunnel(wall_clock: float, autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(TUNNEL)
        served = await backend.accept()
        await answer(served, SWITCH)
        await client.read_head()
        await trio.sleep(1000)
        await client.send(b"x")
        await served.read_exactly(1)
        await wait_all_tasks_blocked()
        assert harness.report().activity["s", "web"].last_activity == wall_clock + 1000
