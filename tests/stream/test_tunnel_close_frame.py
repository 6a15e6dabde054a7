"""The proxy's close frame in a relayed WebSocket stands between two frames, however the bytes come."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, TextMessage

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.proxy.framed_sink import FramedSink
from trioproxy.proxy.frames import close_frame

EVENTS = [
    BytesMessage(data=b""),
    BytesMessage(data=b"\x88" * 125),
    BytesMessage(data=b"\x88" * 126),
    BytesMessage(data=b"\x88" * 65536),
    BytesMessage(data=b"part", message_finished=False),
    Ping(payload=b"\x88\x00"),
]


def encode(chosen: list[int]) -> list[bytes]:
    writer = Connection(ConnectionType.SERVER)
    frames = [bytes(writer.send(EVENTS[index])) for index in chosen]
    return [*frames, bytes(writer.send(BytesMessage(data=b"end")))]


@given(st.lists(st.integers(0, len(EVENTS) - 1), max_size=5), st.data())
def test_a_close_frame_takes_the_first_place_after_it_was_asked_for(chosen: list[int], data: st.DataObject) -> None:
    frames = encode(chosen)
    whole = b"".join(frames)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole)), max_size=8)) | {0, len(whole)})
    asked_at = data.draw(st.sampled_from(cuts))
    boundaries = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    place = next(boundary for boundary in boundaries if boundary >= asked_at)

    async def relay() -> bytes:
        near, far = memory_stream_pair()
        sink = FramedSink(PrefixedStream(near))
        for start, end in zip(cuts, [*cuts[1:], None], strict=True):
            if start == asked_at:
                await sink.close(1001, "going away")
            if end is not None:
                await sink.send_lent(whole[start:end])
        await near.aclose()
        return b"".join([bytes(chunk) async for chunk in far])

    assert trio.run(relay) == whole[:place] + close_frame(1001, "going away")


def test_text_is_skipped_by_bytes_not_by_characters() -> None:
    async def relay() -> bytes:
        near, far = memory_stream_pair()
        sink = FramedSink(PrefixedStream(near))
        await sink.send_lent(bytes(Connection(ConnectionType.SERVER).send(TextMessage(data="é" * 70))))
        await sink.close(1001, "")
        return bytes(await far.receive_some())

    assert trio.run(relay)[-4:] == close_frame(1001, "")
