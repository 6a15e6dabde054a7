"""The handshake that trio-websocket gets to see, in front of a stream that has had its own."""

from __future__ import annotations

import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from trioproxy.proxy.leg_stream import LegStream, Side


def wrapped(side: Side) -> tuple[LegStream, trio.abc.Stream]:
    near, far = memory_stream_pair()
    return LegStream(near, side, max_message=0, refused=lambda: False), far


async def test_a_server_is_asked_and_its_answer_goes_nowhere(autojump_clock: MockClock) -> None:
    stream, far = wrapped("client")
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(await stream.receive_some())
    (request,) = server.events()
    assert isinstance(request, Request)
    await stream.send_all(server.send(AcceptConnection()))
    await stream.send_all(b"frame")
    assert await far.receive_some() == b"frame"


async def test_a_client_is_answered_and_its_question_goes_nowhere(autojump_clock: MockClock) -> None:
    stream, far = wrapped("backend")
    client = WSConnection(ConnectionType.CLIENT)
    await stream.send_all(client.send(Request(host="localhost", target="/")))
    client.receive_data(await stream.receive_some())
    assert list(client.events()) == [AcceptConnection()]
    await stream.send_all(b"frame")
    assert await far.receive_some() == b"frame"


async def test_frames_wait_until_a_server_has_answered(autojump_clock: MockClock) -> None:
    stream, far = wrapped("client")
    received: list[bytes] = []

    async def read() -> None:
        received.append(bytes(await stream.receive_some()))
        received.append(bytes(await stream.receive_some()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await far.send_all(b"frame")
        await wait_all_tasks_blocked()
        assert len(received) == 1
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert received[1] == b"frame"


async def test_a_client_gets_no_answer_before_it_has_asked(autojump_clock: MockClock) -> None:
    stream, far = wrapped("backend")
    await far.send_all(b"frame")
    with trio.move_on_after(60) as waiting:
        await stream.receive_some()
    assert waiting.cancelled_caught
