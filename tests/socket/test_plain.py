"""The stream over a plain socket: pieces sent in one go, and the receive buffer that all streams share."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioproxy.net.lent import HELD, LARGE, SMALL, lent
from trioproxy.net.plain import CALLS_IN_A_ROW, MAX_PIECES, PlainStream
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort

BLOCK = random.Random(7).randbytes(1024 * 1024)


@asynccontextmanager
async def plain_pair() -> AsyncIterator[tuple[PlainStream, PlainStream]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    async with PlainStream(one) as ours, PlainStream(other) as theirs:
        yield ours, theirs


async def read_bytes(stream: PlainStream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count and (data := await stream.receive_some(count - len(received))):
        received += data
    return bytes(received)


async def test_pieces_of_all_kinds_arrive_in_their_order() -> None:
    async with plain_pair() as (ours, theirs):
        await ours.send_pieces([b"one ", bytearray(b"two "), memoryview(b"- three -")[2:-2], b"", b" four"])
        assert await read_bytes(theirs, 18) == b"one two three four"


async def test_more_pieces_than_one_call_takes_arrive() -> None:
    async with plain_pair() as (ours, theirs):
        await ours.send_pieces([b"%04d" % number for number in range(MAX_PIECES + 1)])
        expected = b"".join(b"%04d" % number for number in range(MAX_PIECES + 1))
        assert await read_bytes(theirs, len(expected)) == expected


@pytest.mark.parametrize("sizes", [[5, 1_000_000, 2, 300_000, 700_000], [1_000_000] * 8, [8_000_000], [1] * 900])
async def test_pieces_that_do_not_fit_are_sent_while_their_memory_is_used_again(sizes: list[int]) -> None:
    whole = bytearray((BLOCK * 8)[: sum(sizes)])
    expected = bytes(whole)
    pieces: list[memoryview] = []
    start = 0
    for size in sizes:
        pieces.append(memoryview(whole)[start : start + size])
        start += size
    async with plain_pair() as (ours, theirs), trio.open_nursery() as nursery:
        ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        nursery.start_soon(ours.send_pieces, pieces)
        await wait_all_tasks_blocked()
        whole[:] = bytes(len(whole))
        assert await read_bytes(theirs, len(expected)) == expected


async def test_what_waits_for_a_peer_is_counted_as_held_until_it_is_gone_or_given_up() -> None:
    async with plain_pair() as (ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_pieces, [BLOCK] * 16)
            await wait_all_tasks_blocked()
            assert 0 < lent().held < 16 * len(BLOCK)
            with pytest.raises(trio.BusyResourceError):
                await ours.send_pieces([b"in between"])
            with pytest.raises(trio.BusyResourceError):
                await ours.send_all(b"in between")
            assert await read_bytes(theirs, 16 * len(BLOCK)) == BLOCK * 16
        assert lent().held == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_pieces, [BLOCK] * 16)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert lent().held == 0


async def test_pieces_for_a_peer_that_is_gone_are_an_error() -> None:
    async with plain_pair() as (ours, theirs):
        await abort(theirs)
        await trio.lowlevel.wait_readable(ours.sock)
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_pieces([b"a", b"b"])
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_pieces([b"a", b"b"])


async def test_a_sender_of_pieces_lets_others_run() -> None:
    ran = False

    async def other() -> None:
        nonlocal ran
        await trio.lowlevel.checkpoint()
        ran = True

    async with plain_pair() as (ours, _), trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(4 * (CALLS_IN_A_ROW + 1)):
            await ours.send_pieces([b"x", b"y"])
        assert ran


async def test_what_is_there_is_received_at_once_and_else_waited_for() -> None:
    async with plain_pair() as (ours, theirs):
        assert theirs.receive_now(10) is None
        await ours.send_all(b"here")
        assert await theirs.receive_lent(2) == b"he"
        assert theirs.receive_now(10) == b"re"
        assert theirs.receive_now(10) is None
        await ours.aclose()
        assert await theirs.receive_lent(10) == b""


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    async with plain_pair() as (ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.receive_lent, 10)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await ours.send_all(b"kept")
        assert await theirs.receive_lent(10) == b"kept"


async def test_large_reads_let_others_run_sooner_than_small_ones() -> None:
    async def reads_in_a_row(size: int) -> int:
        async with plain_pair() as (ours, theirs), trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_pieces, [BLOCK] * 4)
            await wait_all_tasks_blocked()
            count = 0
            while theirs.receive_now(size) is not None:
                count += 1
            nursery.cancel_scope.cancel()
        return count

    assert await reads_in_a_row(100) == CALLS_IN_A_ROW
    assert await reads_in_a_row(4 * SMALL) < CALLS_IN_A_ROW / 2


async def test_less_is_read_at_a_time_while_much_is_held() -> None:
    async with plain_pair() as (ours, theirs), trio.open_nursery() as nursery:
        ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGE)
        theirs.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * LARGE)
        nursery.start_soon(ours.send_pieces, [BLOCK] * 4)
        await wait_all_tasks_blocked()
        lent().held += HELD
        assert len(await theirs.receive_lent(LARGE)) <= SMALL
        lent().held -= HELD
        assert len(await theirs.receive_lent(LARGE)) > SMALL
        nursery.cancel_scope.cancel()


async def test_receiving_from_a_peer_that_is_gone_is_an_error() -> None:
    async with plain_pair() as (ours, theirs):
        await abort(ours)
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_lent(10)
        await theirs.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await theirs.receive_lent(10)
        with pytest.raises(trio.ClosedResourceError):
            theirs.receive_now(10)


async def test_pushed_back_bytes_come_before_those_of_the_socket() -> None:
    async with plain_pair() as (ours, theirs):
        stream = PrefixedStream(theirs)
        stream.unread(b"first")
        await ours.send_all(b"second")
        await trio.lowlevel.wait_readable(theirs.sock)
        assert stream.receive_now(10) is None
        assert await stream.receive_lent(10) == b"first"
        assert stream.receive_now(10) == b"second"
