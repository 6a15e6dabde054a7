"""Upgraded streams as bytes: both ways, to the end, and not a byte more held than needed."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked
from tunnel_scene import Tunnel, frames, read_to_end, seen_by_client, tunnel
from websocket_peer import CancelAt, Counted, NoHalfClose, is_closed
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.closer import Ended
from trioproxy.proxy.tunnel import RELAY_BUFFER

SIDES = ["client", "backend"]
BYE = CloseConnection(code=1001, reason="going away")


@pytest.mark.parametrize("websocket", [False, True])
async def test_bytes_pass_both_ways_and_are_counted(websocket: bool, autojump_clock: MockClock) -> None:
    async with tunnel(websocket=websocket) as between:
        await between.client.send_all(b"question")
        assert await between.backend.receive_some() == b"question"
        await between.backend.send_all(b"an answer")
        assert await between.client.receive_some() == b"an answer"
        assert between.traffic == Counted(bytes_in=8, bytes_out=9)


async def test_bytes_that_were_read_too_far_come_first(autojump_clock: MockClock) -> None:
    async with tunnel(wrap=lambda stream: PrefixedStream(stream, b"early ")) as between:
        await between.client.send_all(b"late")
        await wait_all_tasks_blocked()
        assert await between.backend.receive_some() == b"early late"
        assert await between.client.receive_some() == b"early "


@pytest.mark.parametrize("side", SIDES)
async def test_the_end_of_one_side_leaves_the_other_way_open(side: str, autojump_clock: MockClock) -> None:
    async with tunnel() as between:
        first, second = between.sides(side)
        await first.send_all(b"that was all")
        await first.send_eof()
        assert await read_to_end(second) == b"that was all"
        await trio.sleep(10_000)
        await second.send_all(b"noted")
        await second.send_eof()
        assert await read_to_end(first) == b"noted"
        assert await between.end() == Ended(None, "", side, None)


@pytest.mark.parametrize("side", SIDES)
async def test_an_end_that_can_not_be_passed_on_ends_everything(side: str, autojump_clock: MockClock) -> None:
    async with tunnel(wrap=lambda stream: PrefixedStream(NoHalfClose(stream))) as between:
        first, second = between.sides(side)
        await first.send_all(b"that was all")
        await first.send_eof()
        assert await read_to_end(second) == b"that was all"
        assert await between.end() == Ended(None, "", side, None)


@pytest.mark.parametrize(("side", "error"), [("client", "client_gone"), ("backend", "upstream_closed")])
async def test_a_side_that_breaks_ends_the_other(side: str, error: str, autojump_clock: MockClock) -> None:
    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    async with tunnel() as between:
        first, second = between.sides(side)
        await second.send_all(b"x")
        await first.receive_some()
        front, back = (stream.inner for stream in between.proxy_streams)  # type: ignore[attr-defined]
        (front if side == "client" else back).receive_stream.receive_some_hook = broken
        await first.send_all(b"the pump wakes, and meets the hook next time")
        assert await read_to_end(second) == b"the pump wakes, and meets the hook next time"
        assert await between.end() == Ended(None, "", side, error)


@pytest.mark.parametrize(("side", "error"), [("client", "client_gone"), ("backend", "upstream_closed")])
async def test_a_side_that_takes_no_more_ends_the_other(side: str, error: str, autojump_clock: MockClock) -> None:
    async with tunnel(pair=lockstep_stream_pair) as between:  # type: ignore[arg-type]
        first, second = between.sides(side)
        await second.send_all(b"x")
        await wait_all_tasks_blocked()
        await first.receive_stream.aclose()
        assert await read_to_end(second) == b""
        assert await between.end() == Ended(None, "", side, error)


async def test_a_failure_after_a_clean_half_is_still_a_failure(autojump_clock: MockClock) -> None:
    async with tunnel(pair=lockstep_stream_pair) as between:  # type: ignore[arg-type]
        await between.client.send_eof()
        assert await between.backend.receive_some() == b""
        await between.backend.send_all(b"answ")
        await wait_all_tasks_blocked()
        await between.client.receive_stream.aclose()
        assert await between.end() == Ended(None, "", "client", "client_gone")


@pytest.mark.parametrize("side", SIDES)
async def test_a_side_that_does_not_read_stops_the_other_after_one_buffer(side: str, autojump_clock: MockClock) -> None:
    sent = 0
    async with tunnel(pair=lockstep_stream_pair) as between:  # type: ignore[arg-type]
        talker, slow = between.sides(side)

        async def talk() -> None:
            nonlocal sent
            while True:
                await talker.send_all(bytes(RELAY_BUFFER // 4))
                sent += RELAY_BUFFER // 4

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await trio.sleep(60)
            assert sent <= 2 * RELAY_BUFFER
            received = 0
            while received < 10 * RELAY_BUFFER:
                received += len(await slow.receive_some(RELAY_BUFFER))
            await trio.sleep(60)
            assert sent - received <= 2 * RELAY_BUFFER
            nursery.cancel_scope.cancel()


async def test_a_backend_that_resets_after_its_close_frame_has_ended_well(autojump_clock: MockClock) -> None:
    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    async with tunnel(websocket=True) as between:
        await wait_all_tasks_blocked()
        between.proxy_streams[1].inner.receive_stream.receive_some_hook = broken  # type: ignore[attr-defined]
        await between.backend.send_all(frames(BYE))
        assert seen_by_client(await read_to_end(between.client)) == [BYE]
        assert await between.end() == Ended(None, "", "backend", None)


async def test_websocket_idle_cuts_a_tunnel(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with tunnel(idle=100) as between:
        assert (await between.end()).error == "idle"
        assert trio.current_time() - started == pytest.approx(100)
        assert await read_to_end(between.client) == b""


@pytest.mark.parametrize("side", SIDES)
async def test_a_byte_in_either_direction_starts_websocket_idle_again(side: str, autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with tunnel(idle=100) as between:
        for _ in range(5):
            await trio.sleep(90)
            await between.sides(side)[0].send_all(b"x")
        assert (await between.end()).error == "idle"
        assert trio.current_time() - started == pytest.approx(550)


async def test_websocket_idle_also_ends_a_half_closed_tunnel(autojump_clock: MockClock) -> None:
    async with tunnel(idle=100) as between:
        await between.client.send_eof()
        assert (await between.end()).error == "idle"


async def test_a_closer_cuts_a_tunnel_at_once(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with tunnel() as between:
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        assert await between.end() == Ended(1001, "going away", "proxy", "draining")
        assert trio.current_time() == started


# --- WebSockets ----------------------------------------------------------------------------------------


async def answered_close(between: Tunnel) -> None:
    """The client answers a close frame, the answer reaches the backend, which closes; then the client does."""
    answer = Connection(ConnectionType.CLIENT).send(BYE)
    await between.client.send_all(answer)
    assert await between.backend.receive_some() == answer
    await between.backend.send_all(frames(BYE))
    await between.backend.aclose()
    assert await between.client.receive_some() == b""
    await between.client.aclose()


async def test_a_closer_tells_a_websocket_client_and_its_answer_closes_the_backend(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with tunnel(websocket=True) as between:
        await between.backend.send_all(frames(BytesMessage(data=b"x")))
        await between.client.receive_some()
        between.closer.request(1001, "going away", error="draining")
        assert seen_by_client(await between.client.receive_some()) == [BYE]
        await answered_close(between)
        assert await between.end() == Ended(1001, "going away", "proxy", "draining")
        assert trio.current_time() == started


async def test_websocket_idle_tells_a_websocket_client(autojump_clock: MockClock) -> None:
    async with tunnel(websocket=True, idle=100) as between:
        assert seen_by_client(await between.client.receive_some()) == [CloseConnection(code=1001, reason="idle")]
        await answered_close(between)
        assert (await between.end()).error == "idle"


async def test_a_close_frame_waits_for_the_end_of_the_backend_s_frame(autojump_clock: MockClock) -> None:
    message = BytesMessage(data=bytes(1000))
    data = frames(message, BytesMessage(data=b"behind"))
    async with tunnel(websocket=True) as between:
        await between.backend.send_all(data[:500])
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        await wait_all_tasks_blocked()
        await between.backend.send_all(data[500:])
        await wait_all_tasks_blocked()
        assert seen_by_client(await between.client.receive_some())[-2:] == [message, BYE]
        await answered_close(between)
        await between.end()


async def test_a_close_frame_waits_for_bytes_that_are_being_sent(autojump_clock: MockClock) -> None:
    message = BytesMessage(data=bytes(1000))
    async with tunnel(websocket=True, pair=lockstep_stream_pair) as between:  # type: ignore[arg-type]
        await between.backend.send_all(frames(message))
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        await trio.sleep(2)
        data = b""
        while len(seen_by_client(data)) < 2:
            data += await between.client.receive_some()
        assert seen_by_client(data) == [message, BYE]


async def test_no_close_frame_follows_the_backend_s_own(autojump_clock: MockClock) -> None:
    own = CloseConnection(code=4000, reason="mine")
    async with tunnel(websocket=True) as between:
        await between.backend.send_all(frames(own))
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        await wait_all_tasks_blocked()
        await between.backend.aclose()
        assert await read_to_end(between.client) == frames(own)
        await between.client.aclose()
        assert (await between.end()).error == "draining"


@pytest.mark.parametrize("mid_frame", [False, True])
async def test_timeouts_close_bounds_a_close_frame_that_is_not_answered(
    mid_frame: bool, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with tunnel(websocket=True, close=3) as between:
        await between.backend.send_all(b"\x82\x7e" if mid_frame else b"\x82\x00")
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        assert (await between.end()).error == "draining"
        assert trio.current_time() - started == pytest.approx(3)


@pytest.mark.parametrize("side", SIDES)
async def test_timeouts_close_bounds_what_is_left_of_a_websocket_after_one_side_ended(
    side: str, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with tunnel(websocket=True, close=3) as between:
        first, second = between.sides(side)
        await first.send_all(b"\x88\x00")
        await first.send_eof()
        assert await read_to_end(second) == b"\x88\x00"
        await second.send_all(b"\x88\x00")
        assert await first.receive_some() == b"\x88\x00"
        assert await between.end() == Ended(None, "", side, None)
        assert trio.current_time() - started == pytest.approx(3)


async def test_a_cut_at_any_await_leaves_no_stream_open_and_no_group(autojump_clock: MockClock) -> None:
    async def talk(between: Tunnel) -> None:
        with suppress(trio.BrokenResourceError):
            await between.client.send_all(b"x")
            await between.backend.receive_some()
            await between.backend.send_all(frames(BytesMessage(data=b"x")))
            await between.client.receive_some()
            between.closer.request(1001, "going away", error="draining")
            await between.client.receive_some()
            await between.backend.aclose()
            await between.client.aclose()

    for step in itertools.count(1):
        with trio.CancelScope() as scope:
            trio.lowlevel.add_instrument(cut := CancelAt(step, scope))
            try:
                async with tunnel(websocket=True, idle=60) as between:
                    await talk(between)
                    await between.over.wait()
            finally:
                trio.lowlevel.remove_instrument(cut)
        assert [await is_closed(stream) for stream in between.proxy_streams] == [True, True]
        if cut.left > 0:
            break
    assert step > 30
