"""A WebSocket in mode "relay" whose backend dies: the client is told to connect again, where that can be said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from tunnel_scene import Tunnel, frames, read_to_end, seen_by_client, tunnel
from websocket_peer import NoHalfClose
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.closer import Ended

LOST = CloseConnection(code=1012, reason="the connection to the service was lost")
MESSAGE = BytesMessage(data=b"last words")
HI = Connection(ConnectionType.CLIENT).send(BytesMessage(data=b"hi"))
ANSWER = Connection(ConnectionType.CLIENT).send(LOST)
UPSTREAM_CLOSED = Ended(None, LOST.reason or "", "backend", "upstream_closed")


async def ends(between: Tunnel) -> None:
    await between.backend.aclose()


async def breaks(between: Tunnel) -> None:
    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    back = between.proxy_streams[1].inner
    back.receive_stream.receive_some_hook = broken  # type: ignore[attr-defined]
    await between.backend.send_all(frames(MESSAGE))  # the pump wakes, and meets the hook next time


async def takes_no_more(between: Tunnel) -> None:
    """What it has sent is still on its way when writing to it fails, and then it ends."""
    await between.backend.receive_stream.aclose()  # type: ignore[union-attr]
    await between.client.send_all(HI)
    await between.backend.send_all(frames(MESSAGE))
    await between.backend.aclose()


Die = Callable[[Tunnel], Awaitable[None]]


async def said_to_client(between: Tunnel) -> bytes:
    """All that the client gets before it has to answer."""
    await wait_all_tasks_blocked()
    return bytes(await between.client.receive_some())


@pytest.mark.parametrize(
    ("die", "last"), [(ends, []), (breaks, [MESSAGE]), (takes_no_more, [MESSAGE])], ids=["ends", "breaks", "takes"]
)
async def test_a_lost_backend_is_told_to_the_client_at_once_behind_its_last_words(
    die: Die, last: list[BytesMessage], autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    async with tunnel(websocket=True) as between:
        await between.backend.send_all(frames(MESSAGE))
        assert seen_by_client(await said_to_client(between)) == [MESSAGE]
        await die(between)
        assert seen_by_client(await said_to_client(between)) == [*last, LOST]
        await between.client.send_all(ANSWER)
        assert await between.end() == UPSTREAM_CLOSED
        assert trio.current_time() == started


@pytest.mark.parametrize("wrap", [PrefixedStream, lambda stream: PrefixedStream(NoHalfClose(stream))])
async def test_the_client_s_answer_or_its_end_is_waited_for(
    wrap: Callable[[trio.abc.Stream], PrefixedStream], autojump_clock: MockClock
) -> None:
    async with tunnel(websocket=True, wrap=wrap, close=3) as between:
        await between.backend.aclose()
        await wait_all_tasks_blocked()
        await between.client.send_all(HI)  # crosses the close frame, and has nowhere to go
        await trio.sleep(2)
        assert not between.over.is_set()
        await between.client.send_all(ANSWER)
        assert await between.end() == UPSTREAM_CLOSED
        assert seen_by_client(await read_to_end(between.client)) == [LOST]


async def test_timeouts_close_bounds_the_wait_for_an_answer(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with tunnel(websocket=True, close=3) as between:
        await between.backend.aclose()
        assert await between.end() == UPSTREAM_CLOSED
        assert trio.current_time() - started == pytest.approx(3)


@pytest.mark.parametrize("at", [1, 5, 11])
async def test_inside_a_frame_nothing_can_be_said_and_the_connection_breaks(at: int, autojump_clock: MockClock) -> None:
    async with tunnel(websocket=True) as between:
        await between.backend.send_all(frames(MESSAGE)[:at])
        await between.backend.aclose()
        assert await between.end() == UPSTREAM_CLOSED
        assert await read_to_end(between.client) == frames(MESSAGE)[:at]


async def test_between_the_frames_of_one_message_it_can_be_said(autojump_clock: MockClock) -> None:
    first = frames(BytesMessage(data=b"beginning", message_finished=False))
    async with tunnel(websocket=True) as between:
        await between.backend.send_all(first)
        await between.backend.aclose()
        data = b""
        while not data.endswith(frames(LOST)):
            data += await between.client.receive_some()
        assert data == first + frames(LOST)


async def test_a_backend_that_has_closed_is_not_lost(autojump_clock: MockClock) -> None:
    own = frames(CloseConnection(code=4000, reason="mine"))
    async with tunnel(websocket=True) as between:
        await between.backend.send_all(own)
        await between.backend.aclose()
        assert await read_to_end(between.client) == own
        await between.client.aclose()
        assert await between.end() == Ended(None, "", "backend", None)


async def test_a_backend_that_leaves_a_close_unanswered_has_not_failed(autojump_clock: MockClock) -> None:
    async with tunnel(websocket=True) as between:
        await between.client.send_all(ANSWER)
        assert await between.backend.receive_some() == ANSWER
        await between.backend.aclose()
        assert seen_by_client(await said_to_client(between)) == [LOST]
        await between.client.aclose()
        assert (await between.end()).error is None


async def test_a_client_that_was_lost_first_is_what_counts(autojump_clock: MockClock) -> None:
    async with tunnel(websocket=True) as between:
        await between.client.send_eof()
        assert await between.backend.receive_some() == b""
        await between.backend.aclose()
        assert await read_to_end(between.client) == b""
        assert await between.end() == Ended(None, "", "client", None)


async def test_a_backend_lost_while_a_close_frame_waits_for_its_place_ends_it(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with tunnel(websocket=True, close=3) as between:
        await between.backend.send_all(frames(MESSAGE)[:5])
        await wait_all_tasks_blocked()
        between.closer.request(1001, "going away", error="draining")
        await wait_all_tasks_blocked()
        await between.backend.aclose()
        await between.client.aclose()
        assert (await between.end()).error == "draining"
        assert trio.current_time() == started


async def test_what_is_no_websocket_gets_no_frame(autojump_clock: MockClock) -> None:
    async with tunnel() as between:
        await between.backend.send_all(b"bytes")
        await between.backend.aclose()
        assert await read_to_end(between.client) == b"bytes"
