"""Mode "message": how a WebSocket ends, and what each side is told."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked
from websocket_peer import (
    BytesMessage,
    CancelAt,
    CloseConnection,
    Forwarding,
    NoHalfClose,
    Peer,
    Ping,
    TextMessage,
    forwarding,
    is_closed,
)

from trioproxy.proxy.closer import Ended
from trioproxy.proxy.frames import close_frame

SIDES = ["client", "backend"]
CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]


def sides(between: Forwarding, side: str) -> tuple[Peer, Peer]:
    """That side, and the other one."""
    return (between.client, between.backend) if side == "client" else (between.backend, between.client)


async def finished(between: Forwarding) -> Ended:
    """How it ended, once neither side has anything more to read and both proxy streams are closed."""
    ended = await between.end()
    assert [await is_closed(stream) for stream in between.proxy_streams] == [True, True]
    return ended


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("reason", [None, "bye", "é" * 61 + "x"])
async def test_code_and_reason_of_a_close_arrive_unchanged(
    side: str, code: int, reason: str | None, autojump_clock: MockClock
) -> None:
    async with forwarding() as between:
        closing, other = sides(between, side)
        await closing.closed_by(code, reason)
        assert await other.closing() == (code, reason or "")
        await between.backend.stream.aclose()
        assert await finished(between) == Ended(code, reason or "", side, None)


@pytest.mark.parametrize("side", SIDES)
async def test_a_close_without_a_code_stays_one(side: str, autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        closing, other = sides(between, side)
        await closing.closed_by(None)
        assert await other.closing() == (1005, "")
        await between.backend.stream.aclose()
        assert await finished(between) == Ended(1005, "", side, None)


@pytest.mark.parametrize("side", SIDES)
async def test_what_was_said_before_the_close_is_delivered_before_it(side: str, autojump_clock: MockClock) -> None:
    async with forwarding(client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair) as between:
        closing, other = sides(between, side)

        async def leave() -> None:
            await closing.send(*[TextMessage(data=str(n)) for n in range(5)])
            await closing.closed_by(4000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.sleep(10)
            assert [await other.message() for _ in range(5)] == ["0", "1", "2", "3", "4"]
            assert await other.closing() == (4000, "")


async def test_a_client_sees_the_end_of_its_connection_right_behind_both_close_frames(
    autojump_clock: MockClock,
) -> None:
    async with forwarding() as between:
        await between.client.closed_by(1000)
        assert await between.client.receive() is None  # the backend has not answered yet
        assert trio.current_time() == autojump_clock.current_time()
        assert await between.backend.closing() == (1000, "")


async def test_a_backend_is_left_to_close_its_connection_first(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        await between.client.closed_by(1000)
        await between.backend.closing()
        await wait_all_tasks_blocked()
        assert not await is_closed(between.proxy_streams[1])
        assert not between.over.is_set()
        await between.backend.stream.aclose()
        await finished(between)


@pytest.mark.parametrize(
    ("side", "told", "error"),
    [
        ("client", (1001, "the client was lost"), "client_gone"),
        ("backend", (1012, "the connection to the service was lost"), "upstream_closed"),
    ],
)
async def test_a_side_that_is_gone_without_a_word_is_told_to_the_other(
    side: str, told: tuple[int, str], error: str, autojump_clock: MockClock
) -> None:
    async with forwarding() as between:
        gone, other = sides(between, side)
        await gone.send(TextMessage(data="last words"))
        await gone.stream.aclose()
        assert await other.message() == "last words"
        assert await other.closing() == told
        await other.stream.aclose()
        assert await finished(between) == Ended(1006, "", side, error)


def raw(second: int, payload: bytes, *, first: int, masked: bool) -> bytes:
    return bytes([first, second | 0x80 * masked]) + (bytes(4) if masked else b"") + payload


FAULTS = {
    "text that is not UTF-8": (1007, lambda m: raw(2, b"\xff\xff", first=0x81, masked=m)),
    "a reserved bit": (1002, lambda m: raw(1, b"x", first=0xC1, masked=m)),
    "an unknown opcode": (1002, lambda m: raw(1, b"x", first=0x83, masked=m)),
    "the wrong masking": (1002, lambda m: raw(1, b"x", first=0x81, masked=not m)),
    "a fragmented ping": (1002, lambda m: raw(1, b"x", first=0x09, masked=m)),
    "a ping of 126 bytes": (1002, lambda m: raw(126, b"\x00\x7e" + b"x" * 126, first=0x89, masked=m)),
    "a continuation of nothing": (1002, lambda m: raw(1, b"x", first=0x80, masked=m)),
    "a message inside a message": (1002, lambda m: raw(1, b"x", first=0x01, masked=m) * 2),
    "a length that is not minimal": (1002, lambda m: raw(126, b"\x00\x01x", first=0x82, masked=m)),
    "a close of one byte": (1002, lambda m: raw(1, b"x", first=0x88, masked=m)),
    "a close code that must not be sent": (1002, lambda m: raw(2, b"\x03\xee", first=0x88, masked=m)),  # 1006
    "a close code without a meaning": (1002, lambda m: raw(2, b"\x07\xd0", first=0x88, masked=m)),  # 2000
    "a close reason that is not UTF-8": (1007, lambda m: raw(4, b"\x03\xe8\xff\xff", first=0x88, masked=m)),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_who_breaks_the_protocol_is_told_so_and_the_other_side_is_closed_cleanly(
    fault: str, side: str, autojump_clock: MockClock
) -> None:
    code, data = FAULTS[fault]
    async with forwarding() as between:
        offender, other = sides(between, side)
        await offender.send(TextMessage(data="before"))
        await offender.stream.send_all(data(side == "client"))
        assert await other.message() == "before"
        close = await offender.receive()
        assert isinstance(close, CloseConnection)
        assert close.code == code
        assert await offender.receive() is None  # half-closed: an offender's own close may be unreadable
        assert await other.closing() == (
            (1001, "the client was lost") if side == "client" else (1011, "the service broke the WebSocket protocol")
        )
        await offender.stream.aclose()
        await other.stream.aclose()
        ended = await finished(between)
        assert (ended.code, ended.by, ended.error) == (code, side, "protocol_error")


@pytest.mark.parametrize("side", SIDES)
async def test_what_follows_a_fault_is_not_collected_while_the_other_side_is_slow(
    side: str, autojump_clock: MockClock
) -> None:
    async with forwarding(client_pair=lockstep_stream_pair, backend_pair=lockstep_stream_pair) as between:
        offender, _slow = sides(between, side)
        await offender.send(TextMessage(data="the other side does not take this"))
        await offender.stream.send_all(raw(1, b"x", first=0x83, masked=side == "client"))
        with trio.move_on_after(60) as more:
            await offender.stream.send_all(bytes(1000))
        assert more.cancelled_caught


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fragments", [[101], [60, 41], [0, 101], [100, 1, 0]])
async def test_a_message_over_max_message_is_refused_when_it_is_announced(
    side: str, fragments: list[int], autojump_clock: MockClock
) -> None:
    async with forwarding(max_message=100) as between:
        offender, other = sides(between, side)
        await offender.send(TextMessage(data="before"))
        *first, last = [BytesMessage(data=bytes(size), message_finished=False) for size in fragments]
        await offender.send(*first, replace(last, message_finished=True))
        close = await offender.receive()
        assert close == CloseConnection(code=1009, reason="larger than 100 bytes")
        assert await other.message() == "before"
        assert (await other.closing())[0] == (1001 if side == "client" else 1011)
        for _ in range(1000):
            # It need not be heard: what it still says is read and dropped, so that it can read why.
            await offender.stream.send_all(bytes(1000))
        await offender.stream.aclose()
        await other.stream.aclose()
        ended = await finished(between)
        assert (ended.code, ended.by, ended.error) == (1009, side, "message_too_big")


async def test_a_size_is_refused_before_its_payload_comes(autojump_clock: MockClock) -> None:
    async with forwarding(max_message=100) as between:
        await between.client.stream.send_all(b"\x82\xff" + (2**62).to_bytes(8, "big") + b"mask")
        close = await between.client.receive()
        assert isinstance(close, CloseConnection)
        assert close.code == 1009


async def test_a_tls_client_that_was_too_long_is_let_go_when_it_answers(autojump_clock: MockClock) -> None:
    def pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        far, near = memory_stream_pair()
        return far, NoHalfClose(near)

    async with forwarding(client_pair=pair, max_message=100) as between:
        too_long = between.client.frames.send(BytesMessage(data=b"\x88" * 1000))
        await between.client.stream.send_all(too_long + too_long[:500])
        await between.client.receive()
        await between.client.stream.send_all(too_long[500:] + between.client.frames.send(CloseConnection(code=1009)))
        started = trio.current_time()
        assert await between.client.receive() is None
        assert trio.current_time() == started


async def test_a_closer_ends_both_sides_with_its_code_and_reason(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        between.closer.request(4000, "too late", error="other")
        assert await between.client.closing() == (1001, "going away")
        assert await between.client.receive() is None
        assert await between.backend.closing() == (1001, "going away")
        await between.backend.stream.aclose()
        assert await finished(between) == Ended(1001, "going away", "proxy", "draining")


async def test_a_closer_may_be_asked_before_there_is_anything_to_close(autojump_clock: MockClock) -> None:
    async with forwarding(start=False) as between:
        between.closer.request(1001, "early", error="closed")
        between.closer.request(4000, "too late", error="other")
        async with between.running():
            assert await between.client.closing() == (1001, "early")
            assert await between.backend.closing() == (1001, "early")


async def test_a_close_waits_for_the_message_that_is_being_sent(autojump_clock: MockClock) -> None:
    async with forwarding(client_pair=lockstep_stream_pair) as between:
        await between.backend.send(BytesMessage(data=bytes(10**6)))
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        await trio.sleep(2)
        assert await between.client.message() == bytes(10**6)
        assert await between.client.closing() == (1001, "going away")


async def test_a_ping_that_crosses_our_close_frame_does_no_harm(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        await wait_all_tasks_blocked()
        for peer in (between.client, between.backend):
            await peer.send(Ping(payload=b"still there?"))
        await wait_all_tasks_blocked()
        for peer in (between.client, between.backend):
            assert await peer.closing() == (1001, "going away")
            assert await peer.receive() is None
            await peer.stream.aclose()
        started = trio.current_time()
        assert (await finished(between)).error == "draining"
        assert trio.current_time() == started


async def test_both_sides_may_close_at_the_same_time(autojump_clock: MockClock) -> None:
    async with forwarding() as between:
        await between.client.send(CloseConnection(code=4001, reason="client"))
        await between.backend.send(CloseConnection(code=4002, reason="backend"))
        for peer, code in ((between.client, 4001), (between.backend, 4002)):
            close = await peer.receive()
            assert isinstance(close, CloseConnection)
            assert close.code == code
            await peer.stream.aclose()
        assert (await finished(between)).code in (4001, 4002)


async def test_a_cut_at_any_await_leaves_no_stream_open_and_no_group(autojump_clock: MockClock) -> None:
    async def talk(between: Forwarding) -> None:
        said = between.client.frames.send(TextMessage(data="a")) + between.client.frames.send(Ping(payload=b"p"))
        with suppress(trio.BrokenResourceError):
            await between.client.stream.send_all(said)
            await between.backend.stream.receive_some()
            await between.backend.send(BytesMessage(data=bytes(100_000)))
            await between.client.stream.receive_some()
            await between.client.send(CloseConnection(code=1000))
            await between.backend.stream.receive_some()
            await between.backend.send(CloseConnection(code=1000))
            await between.backend.stream.aclose()

    for step in itertools.count(1):
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with forwarding(start=False) as between, trio.open_nursery() as nursery:
            nursery.start_soon(talk, between)
            with trio.CancelScope() as scope:
                trio.lowlevel.add_instrument(cut := CancelAt(step, scope))
                try:
                    async with between.running(ping_interval=30, ping_timeout=30, idle=60):
                        await between.over.wait()
                finally:
                    trio.lowlevel.remove_instrument(cut)
            assert [await is_closed(stream) for stream in between.proxy_streams] == [True, True]
            nursery.cancel_scope.cancel()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        if cut.left > 0:
            break
    assert step > 50


def test_the_close_frame_for_a_backend_is_masked() -> None:
    assert close_frame(1002, "", key=b"\x00\x00\x00\x01") == b"\x88\x82\x00\x00\x00\x01\x03\xea"
