"""What the kernel tells of sockets, once each time: nothing may be missed, whatever comes in between."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioproxy.net.plain import CALLS_IN_A_ROW, PlainStream
from trioproxy.net.readiness import Readiness


@asynccontextmanager
async def pair(*, unix: bool = False) -> AsyncIterator[tuple[PlainStream, socket.socket]]:
    """One of ours, and what is at its other end."""
    if unix:
        one, other = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            other, _ = listener.accept()
    one.setblocking(False)
    with trio.fail_after(20), other:
        async with PlainStream(one) as ours:
            yield ours, other


@pytest.mark.parametrize("unix", [False, True])
async def test_bytes_that_come_between_looking_and_waiting_are_received(unix: bool) -> None:
    async with pair(unix=unix) as (ours, peer):
        for number in range(5 * CALLS_IN_A_ROW):
            peer.send(b"%04d" % number)  # at once there, told of before the wait, or while nobody waits
            assert await ours.receive_later(4 if number % 3 else 100) == b"%04d" % number


@pytest.mark.parametrize("unix", [False, True])
async def test_what_is_left_behind_by_a_short_read_is_received_without_being_told_again(unix: bool) -> None:
    async with pair(unix=unix) as (ours, peer):
        peer.send(b"abcdefgh")
        assert [await ours.receive_later(3) for _ in range(3)] == [b"abc", b"def", b"gh"]


@pytest.mark.parametrize("unix", [False, True])
async def test_an_end_that_came_with_the_last_bytes_is_found_every_time(unix: bool) -> None:
    async with pair(unix=unix) as (ours, peer):
        peer.send(b"last")
        peer.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        assert await ours.receive_later(100) == b"last"
        for _ in range(3 * CALLS_IN_A_ROW):
            assert await ours.receive_later(100) == b""
        assert bytes(await ours.receive_lent(100)) == b""


async def test_what_comes_behind_urgent_data_is_received_without_being_told_again() -> None:
    async with pair() as (ours, peer):
        assert ours.quiet is None
        with trio.move_on_after(0):
            await ours.receive_later(100)  # from now on it is told
        peer.send(b"abc")
        peer.send(b"!", socket.MSG_OOB)
        peer.send(b"def")
        # The urgent byte is no part of the stream, and a read stops where it was.
        assert [await ours.receive_later(100), await ours.receive_later(100)] == [b"abc", b"def"]
        await wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await ours.receive_later(100)
        assert scope.cancelled_caught
        assert ours.quiet  # and it does not look for more for ever


async def test_an_end_that_comes_while_one_waits_is_told() -> None:
    async with pair() as (ours, peer), trio.open_nursery() as nursery:
        received: list[bytes] = []

        async def read() -> None:
            received.append(await ours.receive_later(100))

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        peer.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        assert received == [b""]


@pytest.mark.parametrize("unix", [False, True])
async def test_a_send_that_was_full_goes_on_each_time_the_peer_takes_some(unix: bool) -> None:
    block = os.urandom(512 * 1024)
    async with pair(unix=unix) as (ours, peer), trio.open_nursery() as nursery:
        ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        peer.setblocking(False)
        theirs = PlainStream(peer)
        nursery.start_soon(ours.send_all, block * 4)
        taken = bytearray()
        while len(taken) < 4 * len(block):
            taken += await theirs.receive_some(10_000)
        assert taken == block * 4
        await ours.wait_send_all_might_not_block()  # it is free, and nobody will say so again


async def test_who_gave_up_waiting_misses_nothing() -> None:
    async with pair() as (ours, peer):
        for number in range(50):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ours.receive_later, 100)
                    await wait_all_tasks_blocked()
                    scope.cancel()
            peer.send(b"%02d" % number)
            assert await ours.receive_later(100) == b"%02d" % number


async def test_two_readers_are_one_too_many() -> None:
    async with pair() as (ours, _), trio.open_nursery() as nursery:
        nursery.start_soon(ours.receive_later, 100)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await ours.receive_later(100)
        nursery.cancel_scope.cancel()


async def test_a_reader_and_a_writer_wait_at_the_same_time_and_both_learn_of_the_close() -> None:
    async with pair() as (ours, _):
        ended: list[str] = []

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_later(100)
            ended.append("read")

        async def write() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(bytes(64 * 1024 * 1024))
            ended.append("write")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            await ours.aclose()
        assert sorted(ended) == ["read", "write"]
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_later(100)


async def test_a_descriptor_that_is_used_again_tells_its_new_owner() -> None:
    for _ in range(50):
        async with pair() as (ours, peer):
            peer.send(b"for this one")
            assert await ours.receive_later(100) == b"for this one"
            assert ours.quiet
            peer.shutdown(socket.SHUT_WR)


async def test_it_is_quiet_until_the_kernel_was_heard_to_say_otherwise() -> None:
    async with pair() as (ours, peer):
        assert ours.quiet is None
        peer.send(b"x")
        assert await ours.receive_later(100) == b"x"
        assert ours.quiet
        peer.close()
        await wait_all_tasks_blocked()
        assert ours.quiet is False


async def test_a_socket_that_cannot_be_watched_is_an_error_of_this_socket() -> None:
    with socket.socket() as sock:
        readiness = Readiness(sock)
    with pytest.raises(ValueError, match="negative"):
        await readiness.wait_readable()


async def test_more_sockets_than_are_looked_at_in_one_go_are_all_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioproxy.net.readiness.MAX_EVENTS", 2)
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        peers: list[socket.socket] = []

        async def read(sock: socket.socket) -> None:
            async with PlainStream(sock) as stream:
                received.append(await stream.receive_later(100))

        for _ in range(9):
            one, other = socket.socketpair()
            one.setblocking(False)
            peers.append(other)
            nursery.start_soon(read, one)
        await wait_all_tasks_blocked()
        for number, peer in enumerate(peers):
            with peer:
                peer.send(b"%d" % number)
    assert sorted(received) == [b"%d" % number for number in range(9)]
