"""Mode "message": pings, idle time, and closing handshakes that are not answered."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked
from websocket_peer import (
    BytesMessage,
    CloseConnection,
    Forwarding,
    Peer,
    Ping,
    TextMessage,
    forwarding,
    is_closed,
)

from trioproxy.proxy.closer import Ended
from trioproxy.proxy.leg_stream import PIECE

SIDES = ["client", "backend"]


def sides(between: Forwarding, side: str) -> tuple[Peer, Peer]:
    return (between.client, between.backend) if side == "client" else (between.backend, between.client)


async def answer_pings(peer: Peer) -> None:
    """Answer pings, and the close frame at the end."""
    while (event := await peer.receive()) is not None:
        if isinstance(event, Ping | CloseConnection):
            await peer.send(event.response())
        if isinstance(event, CloseConnection):
            break
    await peer.stream.aclose()


async def test_websocket_idle_ends_both_sides_with_1001(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with forwarding(idle=100) as between:
        assert await between.client.closing() == (1001, "idle")
        assert trio.current_time() - started == pytest.approx(100)
        assert await between.backend.closing() == (1001, "idle")
        await between.backend.stream.aclose()
        assert await between.end() == Ended(1001, "idle", "proxy", "idle")


@pytest.mark.parametrize("side", SIDES)
async def test_a_message_in_either_direction_starts_websocket_idle_again(side: str, autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with forwarding(idle=100) as between:
        speaker, hearer = sides(between, side)
        for _ in range(5):
            await trio.sleep(90)
            await speaker.send(TextMessage(data="x"))
            await hearer.message()
        assert await between.client.closing() == (1001, "idle")
        assert trio.current_time() - started == pytest.approx(550)


async def test_pings_are_no_messages_to_websocket_idle(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with forwarding(idle=100, ping_interval=10, ping_timeout=10) as between, trio.open_nursery() as nursery:
        for peer in (between.client, between.backend):
            nursery.start_soon(answer_pings, peer)
        await trio.sleep(5)
        await between.client.send(Ping(payload=b""))
        assert (await between.end()).error == "idle"
        assert trio.current_time() - started == pytest.approx(100)


async def test_websocket_idle_of_zero_is_never(autojump_clock: MockClock) -> None:
    async with forwarding(idle=0) as between:
        await trio.sleep(10**7)
        await between.client.send(TextMessage(data="still here"))
        assert await between.backend.message() == "still here"


async def test_ping_interval_pings_both_sides(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with forwarding(ping_interval=30, ping_timeout=30) as between:
        for count in (1, 2, 3):
            for peer in (between.client, between.backend):
                ping = await peer.receive()
                assert isinstance(ping, Ping)
                await peer.send(ping.response())
            assert trio.current_time() - started == pytest.approx(30 * count)


async def test_ping_interval_of_zero_is_never(autojump_clock: MockClock) -> None:
    async with forwarding(ping_interval=0, ping_timeout=30) as between:
        with trio.move_on_after(10**6) as silence:
            await between.client.receive()
        assert silence.cancelled_caught
        assert not between.over.is_set()


@pytest.mark.parametrize(
    ("side", "told"),
    [("client", (1001, "the client was lost")), ("backend", (1012, "the connection to the service was lost"))],
)
async def test_ping_timeout_takes_a_silent_side_for_gone(
    side: str, told: tuple[int, str], autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with forwarding(ping_interval=30, ping_timeout=20, close=3) as between:
        _silent, other = sides(between, side)
        ping = await other.receive()
        assert isinstance(ping, Ping)
        await other.send(ping.response())
        assert await other.closing() == told
        assert trio.current_time() - started == pytest.approx(50)
        await other.stream.aclose()
        assert await between.end() == Ended(1006, "", side, "ping_timeout")
        assert trio.current_time() - started == pytest.approx(53)


@pytest.mark.parametrize("side", SIDES)
async def test_ping_timeout_finds_a_side_that_does_not_even_take_the_ping(side: str, autojump_clock: MockClock) -> None:
    async with (
        forwarding(
            client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair, ping_interval=30, ping_timeout=20
        ) as between,
        trio.open_nursery() as nursery,
    ):
        _stuck, other = sides(between, side)
        nursery.start_soon(answer_pings, other)
        await other.send(BytesMessage(data=bytes(10)))  # sending it waits for ever
        ended = await between.end()
        assert (ended.by, ended.error) == (side, "ping_timeout")
        assert [await is_closed(stream) for stream in between.proxy_streams] == [True, True]


@pytest.mark.parametrize("side", SIDES)
async def test_nothing_follows_a_ping_that_was_cut_short(side: str, autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with (
        forwarding(
            client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair, ping_interval=30, ping_timeout=20
        ) as between,
        trio.open_nursery() as nursery,
    ):
        _stuck, other = sides(between, side)
        nursery.start_soon(answer_pings, other)
        ended = await between.end()
        assert (ended.by, ended.error) == (side, "ping_timeout")
        assert trio.current_time() - started == pytest.approx(50)  # no close frame waits to be taken


@pytest.mark.parametrize("side", SIDES)
async def test_any_byte_within_ping_timeout_proves_life(side: str, autojump_clock: MockClock) -> None:
    async with forwarding(ping_interval=30, ping_timeout=20) as between, trio.open_nursery() as nursery:
        slow, other = sides(between, side)
        nursery.start_soon(answer_pings, other)
        # One long message, in which no pong can stand.
        for byte in slow.frames.send(BytesMessage(data=b"0123456789")):
            await trio.sleep(15)
            await slow.stream.send_all(bytes([byte]))
        await slow.receive()
        assert not between.over.is_set()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("side", SIDES)
async def test_a_side_that_takes_a_long_message_slowly_is_alive(side: str, autojump_clock: MockClock) -> None:
    async with (
        forwarding(
            client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair, ping_interval=30, ping_timeout=20
        ) as between,
        trio.open_nursery() as nursery,
    ):
        slow, other = sides(between, side)
        nursery.start_soon(answer_pings, other)
        await other.send(BytesMessage(data=bytes(20 * PIECE)))
        for _ in range(20):
            await trio.sleep(15)
            await slow.stream.receive_some(PIECE)
        assert not between.over.is_set()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fast", SIDES)
async def test_ping_timeout_spares_a_side_that_waits_for_the_slow_one(fast: str, autojump_clock: MockClock) -> None:
    async with (
        forwarding(
            client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair, ping_interval=30, ping_timeout=20
        ) as between,
        trio.open_nursery() as nursery,
    ):
        talker, slow = sides(between, fast)

        async def talk() -> None:
            for _ in range(10):
                await talker.send(BytesMessage(data=bytes(10 * PIECE)))

        nursery.start_soon(talk)
        nursery.start_soon(answer_pings, talker)
        received = 0
        while received < 100 * PIECE:
            await trio.sleep(15)
            received += len(await slow.stream.receive_some(PIECE))
            assert not between.over.is_set()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("side", SIDES)
async def test_timeouts_close_bounds_a_close_that_is_not_answered(side: str, autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with forwarding(close=3) as between:
        closing, _mute = sides(between, side)
        await closing.closed_by(4000, "bye")
        assert await between.end() == Ended(4000, "bye", side, None)
        assert trio.current_time() - started == pytest.approx(3)
        assert [await is_closed(stream) for stream in between.proxy_streams] == [True, True]


async def test_timeouts_close_bounds_a_closer_when_nobody_answers(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with forwarding(close=3) as between:
        between.closer.request(1001, "going away", error="draining")
        assert (await between.end()).error == "draining"
        assert trio.current_time() - started == pytest.approx(3)


async def test_timeouts_close_bounds_a_closer_when_nobody_takes_anything(autojump_clock: MockClock) -> None:
    async with forwarding(client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair, close=3) as between:
        await between.client.send(BytesMessage(data=bytes(10)))
        await between.backend.send(BytesMessage(data=bytes(10)))
        await trio.sleep(1)
        started = trio.current_time()
        between.closer.request(1001, "going away", error="draining")
        await between.end()
        assert trio.current_time() - started == pytest.approx(3)
        assert [await is_closed(stream) for stream in between.proxy_streams] == [True, True]


@pytest.mark.parametrize("side", SIDES)
async def test_who_closes_but_takes_no_answer_is_given_up_after_a_ping_interval(
    side: str, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with (
        forwarding(
            client_pair=lockstep_stream_pair,
            backend_pair=lockstep_stream_pair,
            ping_interval=30,
            ping_timeout=20,
            close=3,
        ) as between,
        trio.open_nursery() as nursery,
    ):
        stuck, other = sides(between, side)
        await stuck.send(CloseConnection(code=4000, reason="bye"))
        nursery.start_soon(answer_pings, other)
        assert await between.end() == Ended(4000, "bye", side, None)
        assert trio.current_time() - started == pytest.approx(36)


@pytest.mark.parametrize("side", SIDES)
async def test_what_was_said_before_a_close_has_more_time_than_that(side: str, autojump_clock: MockClock) -> None:
    async with (
        forwarding(
            client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair, ping_interval=30, ping_timeout=20
        ) as between,
        trio.open_nursery() as nursery,
    ):
        leaving, slow = sides(between, side)

        async def leave() -> None:
            await leaving.send(BytesMessage(data=bytes(20 * PIECE)))
            await leaving.closed_by(4000, "bye")

        nursery.start_soon(leave)
        received = 0
        while received < 20 * PIECE:
            await trio.sleep(15)
            received += len(await slow.stream.receive_some(PIECE))
        await answer_pings(slow)
        assert await between.end() == Ended(4000, "bye", side, None)


@pytest.mark.parametrize("side", SIDES)
async def test_timeouts_close_bounds_the_end_of_who_breaks_the_protocol_and_reads_nothing(
    side: str, autojump_clock: MockClock
) -> None:
    async with (
        forwarding(client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair, close=3) as between,
        trio.open_nursery() as nursery,
    ):
        offender, other = sides(between, side)
        await other.send(BytesMessage(data=bytes(1000)))
        nursery.start_soon(answer_pings, other)
        await offender.stream.send_all(b"\x83\x80mask" if side == "client" else b"\x83\x00")  # no such opcode
        await wait_all_tasks_blocked()
        started = trio.current_time()
        assert (await between.end()).error == "protocol_error"
        assert trio.current_time() - started <= 3
