from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trioproxy.net.lent import SMALL, lent
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort, is_readable, set_keepalive, socket_of
from trioproxy.testing.pipe import open_pipe


class OneWay(trio.abc.Stream):
    """A stream that cannot half-close, as TLS cannot."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return bytearray(await self.inner.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_pushed_back_bytes_come_first_and_then_the_stream() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = PrefixedStream(ours, b"abc")
    await theirs.send_all(b"xyz")
    assert stream.pending == 3
    assert await stream.receive_some(2) == b"ab"
    stream.unread(b"12")
    assert stream.pending == 3
    assert await stream.receive_some() == b"12c"
    assert stream.pending == 0
    assert await stream.receive_some() == b"xyz"


@given(data=st.data(), pieces=st.lists(st.binary(max_size=6), max_size=8))
def test_however_bytes_are_read_and_pushed_back_none_is_lost_or_doubled(
    data: st.DataObject, pieces: list[bytes]
) -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        for piece in pieces:
            await theirs.send_all(piece)
        await theirs.send_eof()
        stream = PrefixedStream(ours)
        received = b""
        while chunk := await stream.receive_some(data.draw(st.one_of(st.none(), st.integers(1, 5)))):
            keep = data.draw(st.integers(1, len(chunk)))
            received += chunk[:keep]
            stream.unread(chunk[keep:])
        assert received == b"".join(pieces)

    trio.run(main)


async def test_a_read_of_pushed_back_bytes_is_a_checkpoint_and_cancelled_it_loses_nothing() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    stream = PrefixedStream(ours, b"abc")
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive_some()
    assert scope.cancelled_caught
    with trio.testing.assert_checkpoints():
        assert await stream.receive_some() == b"abc"


async def test_a_read_of_less_than_one_byte_is_refused() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(ValueError):
        await PrefixedStream(ours, b"abc").receive_some(0)


async def test_everything_else_reaches_the_inner_stream() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = PrefixedStream(ours, b"x")
    await stream.wait_send_all_might_not_block()
    await stream.send_all(b"hello")
    assert await theirs.receive_some() == b"hello"
    await stream.send_eof()
    assert await theirs.receive_some() == b""
    await stream.aclose()
    assert stream.pending == 0
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_reading_ahead_keeps_what_came_behind_what_was_pushed_back() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = PrefixedStream(ours, b"ab")
    await theirs.send_all(b"cd")
    assert await stream.read_ahead(1) == 1
    assert await stream.receive_some() == b"abc"
    await theirs.send_eof()
    assert await stream.read_ahead(10) == 1
    assert await stream.read_ahead(10) == 0
    assert await stream.receive_some() == b"d"


async def test_send_eof_on_a_stream_that_cannot_half_close_does_nothing() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = PrefixedStream(OneWay(ours))
    with trio.testing.assert_checkpoints():
        await stream.send_eof()
    await stream.send_all(b"still open")
    assert await theirs.receive_some() == b"still open"


async def test_what_is_received_is_bytes_even_when_the_inner_stream_hands_out_bytearrays() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"abc")
    assert type(await PrefixedStream(OneWay(ours)).receive_some()) is bytes


# --- helpers, on streams without a socket ---------------------------------------------------------------


class Peekable(OneWay):
    readable = False

    def readable_now(self) -> bool:
        return self.readable


async def test_memory_streams_have_no_socket_and_are_left_as_they_are() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = PrefixedStream(ours)
    assert socket_of(stream) is None
    set_keepalive(stream)
    await theirs.send_all(b"x")
    assert not is_readable(stream)
    await abort(stream)
    assert await theirs.receive_some() == b""


def test_pushed_back_bytes_make_a_stream_readable() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    assert is_readable(PrefixedStream(PrefixedStream(ours, b"x")))


def test_a_stream_that_can_tell_whether_it_is_readable_is_asked() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    inner = Peekable(ours)
    assert not is_readable(PrefixedStream(inner))
    inner.readable = True
    assert is_readable(PrefixedStream(inner))


async def test_what_a_stream_without_a_socket_does_not_take_is_held_and_counted(autojump_clock: MockClock) -> None:
    near, far = open_pipe(capacity=1000)
    memory = bytearray(random.Random(3).randbytes(3 * SMALL))
    expected = b"head" + bytes(memory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(PrefixedStream(near).send_pieces, [b"head", memoryview(memory)])
        await wait_all_tasks_blocked()
        assert lent().held == len(expected)
        memory[:] = bytes(len(memory))
        received = b""
        while len(received) < len(expected):
            received += await far.receive_some()
        assert received == expected
    assert lent().held == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(PrefixedStream(near).send_pieces, [expected])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert lent().held == 0
