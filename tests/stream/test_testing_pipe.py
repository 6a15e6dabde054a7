"""The memory streams of `trioproxy.testing` behave like TCP connections, and like trio's own streams."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, check_half_closeable_stream, wait_all_tasks_blocked

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort, is_readable
from trioproxy.testing.pipe import PipeEnd, open_pipe


async def test_a_pipe_keeps_every_promise_of_a_half_closeable_stream() -> None:
    async def make() -> tuple[PipeEnd, PipeEnd]:
        return open_pipe()

    async def make_clogged() -> tuple[PipeEnd, PipeEnd]:
        left, right = open_pipe(1)
        await left.send_all(b"x")
        await right.send_all(b"x")
        return left, right

    await check_half_closeable_stream(make, make_clogged)


async def test_capacity_bounds_what_is_under_way_in_each_direction(autojump_clock: MockClock) -> None:
    left, right = open_pipe(10)
    for sender, receiver in ((left, right), (right, left)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_all, bytes(25))
            await wait_all_tasks_blocked()
            assert receiver.unread == 10
            assert len(await receiver.receive_some(4)) == 4
            await wait_all_tasks_blocked()
            assert receiver.unread == 10
            assert [len(await receiver.receive_some()) for _ in range(3)] == [10, 10, 1]


async def test_what_is_received_is_what_was_sent_whatever_the_pieces() -> None:
    left, right = open_pipe(7)
    data = bytes(range(256)) * 4
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, data)
        while len(received) < len(data):
            received += await right.receive_some(3)
    assert received == data


async def test_a_send_cut_short_leaves_what_fitted() -> None:
    left, right = open_pipe(10)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, b"0123456789abc")
            await wait_all_tasks_blocked()
            scope.cancel()
    assert await right.receive_some() == b"0123456789"


async def test_a_receive_cut_short_loses_nothing() -> None:
    left, right = open_pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.receive_some)
        await wait_all_tasks_blocked()
        await left.send_all(b"data")
        nursery.cancel_scope.cancel()
    with trio.move_on_after(0):
        await right.receive_some()
    assert right.unread in (0, 4)  # received before the cancellation, or still there
    await left.send_all(b"more")
    assert (await right.receive_some()).endswith(b"more")


async def test_half_a_close_ends_one_direction_only() -> None:
    left, right = open_pipe()
    await left.send_all(b"last")
    await left.send_eof()
    await left.send_eof()
    assert (await right.receive_some(), await right.receive_some()) == (b"last", b"")
    await right.send_all(b"still")
    assert await left.receive_some() == b"still"
    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"x")
    assert not right.peer_closed


async def test_closing_lets_the_other_end_read_what_is_under_way() -> None:
    left, right = open_pipe()
    await left.send_all(b"last")
    await left.aclose()
    assert right.peer_closed
    assert (await right.receive_some(), await right.receive_some()) == (b"last", b"")
    with pytest.raises(trio.BrokenResourceError):
        await right.send_all(b"x")


async def test_a_reset_is_seen_behind_what_was_under_way() -> None:
    left, right = open_pipe()
    await left.send_all(b"last")
    left.reset()
    assert await right.receive_some() == b"last"
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await right.send_all(b"x")


async def test_closing_with_bytes_unread_is_a_reset() -> None:
    left, right = open_pipe()
    await right.send_all(b"nobody reads this")
    await left.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()


async def test_a_reset_after_a_close_breaks_nothing() -> None:
    left, right = open_pipe()
    await left.aclose()
    left.reset()
    assert await right.receive_some() == b""


@pytest.mark.parametrize("way", ["reset", "aclose"])
async def test_whoever_waits_is_woken_by_the_end(way: str) -> None:
    left, right = open_pipe(1)
    woken: list[str] = []

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await right.receive_some()
        woken.append("receiver")

    async def send() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await right.send_all(b"too much")
        woken.append("sender")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        if way == "reset":
            left.reset()
        else:
            await left.aclose()  # with a byte unread
    assert sorted(woken) == ["receiver", "sender"]


async def test_it_tells_whether_a_read_would_wait() -> None:
    left, right = open_pipe()
    assert not right.readable_now()
    await left.send_all(b"x")
    assert right.readable_now()
    await right.receive_some()
    assert not right.readable_now()
    await left.send_eof()
    assert right.readable_now()
    assert is_readable(PrefixedStream(right))


async def test_an_abort_is_a_reset_also_under_other_layers() -> None:
    left, right = open_pipe()
    await abort(PrefixedStream(left))
    assert left.closed
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()
