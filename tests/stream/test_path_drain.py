"""The end of a forwarder, as its connections live it."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
import trio
from path_scene import GET, OK, answer, assert_all_over, exchange, get, last_record, post, scene
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.control.messages import Done, StartDrain
from trioproxy.testing import Harness, MemoryBackend, Wire

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE = get(fields=UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
GOING_AWAY = (1001).to_bytes(2, "big")


def drain(harness: Harness, grace: float = 10) -> None:
    assert harness.proxy.execute(StartDrain(grace)) == Done()


async def websocket(harness: Harness, backend: MemoryBackend) -> tuple[Wire, Wire]:
    client = await harness.send(HANDSHAKE)
    served = await backend.accept()
    await answer(served, SWITCH)
    assert (await client.read_response()).status == 101
    return client, served


# --- connections between two requests ---------------------------------------------------------------------


async def test_idle_connections_close_at_once(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        fresh = await harness.connect()
        kept, _, _ = await exchange(harness, backend)
        await wait_all_tasks_blocked()
        drain(harness)
        assert (await fresh.read_all(), await kept.read_all()) == (b"", b"")
        assert trio.current_time() == 0
        await assert_all_over(harness)
        assert harness.report().draining
        assert len(harness.records) == 1


async def test_an_empty_line_does_not_save_an_idle_connection(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        client = await harness.send(b"\r\n")
        await wait_all_tasks_blocked()
        drain(harness)
        assert await client.read_all() == b""
        assert trio.current_time() == 0


async def test_a_connection_that_comes_after_the_drain_began_is_closed(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        drain(harness)
        client = await harness.connect()
        assert await client.read_all() == b""
        assert trio.current_time() == 0
        await assert_all_over(harness)


async def test_with_patience_an_idle_connection_brings_one_more_request(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        fresh = await harness.connect()
        kept, served, _ = await exchange(harness, backend)
        waiting = await harness.connect()
        await wait_all_tasks_blocked()
        assert harness.proxy.execute(StartDrain(10, 4)) == Done()
        await trio.sleep(3.9)
        for client in (kept, fresh):
            await client.send(GET)
            await answer(served)
            response = await client.read_response()
            assert (response.status, response.values("connection")) == (200, [b"close"])
            assert await client.read_all() == b""
        # The others are closed when patience is over, and no later.
        assert await waiting.read_all() == b""
        assert trio.current_time() == 4
        await assert_all_over(harness)


async def test_with_patience_an_answer_that_promised_more_is_not_the_last(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await served.read_head()
        await served.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        assert b"close" not in await client.read_head()  # that was before the drain
        assert harness.proxy.execute(StartDrain(10, 4)) == Done()
        await served.send(b"lf")
        assert await client.read_exactly(4) == b"half"
        await client.send(GET)
        await answer(served)
        assert (await client.read_response()).values("connection") == [b"close"]
        assert await client.read_all() == b""
        assert trio.current_time() == 0


async def test_with_patience_a_websocket_may_begin(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        late, served, _ = await exchange(harness, backend)
        await wait_all_tasks_blocked()
        assert harness.proxy.execute(StartDrain(10, 4)) == Done()
        await late.send(HANDSHAKE)
        await answer(served, SWITCH)
        assert (await late.read_response()).status == 101


async def test_an_impatient_drain_ends_the_patience_of_one_before(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        kept, _, _ = await exchange(harness, backend)
        await wait_all_tasks_blocked()
        assert harness.proxy.execute(StartDrain(10, 4)) == Done()
        await trio.sleep(1)
        drain(harness)
        assert await kept.read_all() == b""
        assert trio.current_time() == 1


async def test_a_second_drain_changes_nothing(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        drain(harness)
        drain(harness)
        await answer(served)
        assert (await client.read_response()).status == 200
        await assert_all_over(harness)


# --- requests in flight -----------------------------------------------------------------------------------


async def test_a_request_in_flight_ends_with_connection_close(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        drain(harness)
        await trio.sleep(5)
        await answer(served)
        response = await client.read_response()
        assert (response.status, response.values("connection")) == (200, [b"close"])
        assert await client.read_all() == b""
        assert (await last_record(harness)).error is None
        await assert_all_over(harness)


async def test_a_response_under_way_ends_whole_and_closes_its_connection(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET + GET)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await client.read_head()
        drain(harness)
        await served.send(b"lf")
        assert await client.read_all() == b"half"  # and no answer to the second one
        await assert_all_over(harness)
        assert len(harness.records) == 1


async def test_a_client_that_sends_on_during_a_drain_still_gets_its_answer_whole(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await client.read_head()
        drain(harness)
        await client.send(GET)  # nobody reads it: closing right behind the answer would be a reset
        await served.send(b"lf")
        assert await client.read_all() == b"half"


async def test_a_head_under_way_is_awaited_and_served(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET[:10])
        await wait_all_tasks_blocked()
        drain(harness)
        await trio.sleep(2)
        await client.send(GET[10:])
        await answer(await backend.accept())
        response = await client.read_response()
        assert (response.status, response.values("connection")) == (200, [b"close"])


async def test_a_request_that_comes_in_the_instant_of_the_drain_is_served(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.connect()
        await wait_all_tasks_blocked()
        await client.send(GET)
        drain(harness)  # the proxy has been woken by the request, and has not run yet
        await answer(await backend.accept())
        response = await client.read_response()
        assert (response.status, response.values("connection")) == (200, [b"close"])


async def test_half_a_head_that_comes_in_the_instant_of_the_drain_is_answered_with_503(
    autojump_clock: MockClock,
) -> None:
    async with scene() as (harness, _):
        client = await harness.connect()
        await wait_all_tasks_blocked()
        await client.send(GET[:10])
        drain(harness)
        response = await client.read_response()
        assert (response.status, response.values("connection"), trio.current_time()) == (503, [b"close"], 0)
        assert (await last_record(harness)).error == "draining"


async def test_an_upload_under_way_is_taken(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(post(b"ab", length=4))
        served = await backend.accept()
        drain(harness)
        await trio.sleep(2)
        await client.send(b"cd")
        await served.read_head()
        assert await served.read_exactly(4) == b"abcd"
        await served.send(OK)
        assert (await client.read_response()).values("connection") == [b"close"]


async def test_an_answer_of_our_own_during_a_drain_closes(autojump_clock: MockClock) -> None:
    async with scene() as (harness, _):
        client = await harness.send(b"GET /no/body")
        await wait_all_tasks_blocked()
        drain(harness)
        await client.send(b" HTTP/1.1\r\nHost: hub\r\n\r\n")
        response = await client.read_response()
        assert (response.status, await client.read_all()) == (404, b"")


# --- streams ----------------------------------------------------------------------------------------------


async def test_a_new_upgrade_is_refused_with_503(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(HANDSHAKE[:10])
        await wait_all_tasks_blocked()
        drain(harness)
        await client.send(HANDSHAKE[10:])
        response = await client.read_response()
        assert (response.status, response.values("retry-after")) == (503, [b"1"])
        assert response.values("connection") == [b"close"]
        assert ((await last_record(harness)).error, backend.dials) == ("draining", 0)


@pytest.mark.parametrize("mode", ["message", "relay"])
async def test_a_websocket_is_told_before_the_end_of_the_grace(mode: str, autojump_clock: MockClock) -> None:
    async with scene(websocket=mode) as (harness, backend):
        client, served = await websocket(harness, backend)
        drain(harness, grace=10)
        await trio.sleep(5)
        await served.send(b"\x81\x02hi")
        assert await client.read_exactly(4) == b"\x81\x02hi"  # it goes on until then
        frame = await client.read_exactly(4)
        assert (frame[0], frame[2:]) == (0x88, GOING_AWAY)
        assert 7 <= trio.current_time() < 10
        await client.aclose()
        await served.aclose()
        await assert_all_over(harness)
        record = await last_record(harness)
        assert (record.kind, record.error, record.status) == ("websocket", "draining", 101)


@pytest.mark.parametrize("grace", [0, 1])
async def test_with_a_short_grace_streams_are_told_at_once(grace: float, autojump_clock: MockClock) -> None:
    async with scene(websocket="relay") as (harness, backend):
        client, _ = await websocket(harness, backend)
        drain(harness, grace=grace)
        assert (await client.read_exactly(4))[0] == 0x88
        assert trio.current_time() == 0


async def test_another_upgrade_ends_before_the_end_of_the_grace(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(get(fields=b"Connection: upgrade\r\nUpgrade: telnet\r\n"))
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: telnet\r\n\r\n")
        await client.read_head()
        drain(harness, grace=10)
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            await client.read_exactly(1)
        assert trio.current_time() <= 10
        assert (await last_record(harness)).error == "draining"


async def test_a_long_response_is_not_told_and_is_not_ended_by_the_drain_itself(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(GET)
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
        await client.read_head()
        drain(harness, grace=10)
        await trio.sleep(9.9)
        await served.send(b"i")
        assert await client.read_all() == b"hi"


async def test_what_is_cut_at_the_end_of_the_grace_is_cut_visibly_and_logged(autojump_clock: MockClock) -> None:
    async with scene() as (harness, backend):
        client = await harness.send(b"GET /s/web/ HTTP/1.0\r\n\r\n")
        served = await backend.accept()
        await answer(served, b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await client.read_head()
        harness._handler_nursery.cancel_scope.cancel()  # as the forwarder does
        with trio.CancelScope(shield=True):
            with pytest.raises(trio.BrokenResourceError):
                await client.read_all()
            await assert_all_over(harness)
            assert [(record.status, record.error) for record in harness.records] == [(200, "aborted")]
