from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import USER_TIMEOUT, abort, is_readable, set_keepalive, socket_of
from trioproxy.net.tls import TlsStream, accept_tls, client_context, connect_tls, server_context


@asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        theirs = await listener.accept()
    async with ours, theirs:
        yield ours, theirs


async def until_readable(stream: trio.abc.Stream) -> None:
    sock = socket_of(stream)
    assert sock is not None
    await trio.lowlevel.wait_readable(sock)


async def read_to_end(stream: trio.abc.Stream) -> None:
    async for _ in stream:
        pass


async def test_the_socket_is_found_under_pushed_back_bytes() -> None:
    async with tcp_pair() as (ours, _):
        assert socket_of(PrefixedStream(PrefixedStream(ours))) is ours.socket


async def test_an_idle_connection_is_not_readable_until_its_end_or_bytes_come() -> None:
    async with tcp_pair() as (ours, theirs):
        stream = PrefixedStream(ours)
        assert not is_readable(stream)
        await theirs.send_all(b"x")
        await until_readable(ours)
        assert is_readable(stream)
        assert await ours.receive_some() == b"x"  # looking took nothing
        assert not is_readable(stream)
        await theirs.aclose()
        await until_readable(ours)
        assert is_readable(stream)
        await ours.aclose()
        assert is_readable(stream)


async def test_a_reset_connection_is_readable() -> None:
    async with tcp_pair() as (ours, theirs):
        await abort(theirs)
        await until_readable(ours)
        assert is_readable(ours)


async def test_a_vanished_peer_is_noticed_by_keepalive_and_user_timeout() -> None:
    async with tcp_pair() as (ours, _):
        set_keepalive(PrefixedStream(ours))
        option = ours.socket.getsockopt
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle = option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval = option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        count = option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert idle + interval * count == USER_TIMEOUT
        assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT * 1000
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_aborting_resets_the_connection() -> None:
    async with tcp_pair() as (ours, theirs):
        await ours.send_all(b"half a body")
        await abort(PrefixedStream(ours))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await read_to_end(theirs)
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_aborting_a_closed_or_a_unix_stream_is_harmless() -> None:
    async with tcp_pair() as (ours, _):
        await ours.aclose()
        await abort(ours)
    one, other = trio.socket.socketpair()
    async with trio.SocketStream(one) as ours, trio.SocketStream(other) as theirs:
        set_keepalive(ours)
        await abort(ours)
        assert await theirs.receive_some() == b""


async def test_tls_is_looked_through(authority: Any) -> None:
    pair = authority.issue("localhost")
    context = server_context("1.2")
    context.load_cert_chain(pair.cert, pair.key)
    async with tcp_pair() as (ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_tls, theirs, context)
            stream = await connect_tls(ours, client_context(verify=True, ca_file=str(authority.ca)), "localhost")
        assert socket_of(stream) is ours.socket
        assert not is_readable(stream)
        await abort(stream)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await theirs.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_decrypted_bytes_that_wait_in_tls_make_it_readable(authority: Any) -> None:
    pair = authority.issue("localhost")
    context = server_context("1.2")
    context.load_cert_chain(pair.cert, pair.key)
    servers: list[TlsStream] = []

    async def serve(stream: trio.abc.Stream) -> None:
        server, _ = await accept_tls(stream, context)
        await server.send_all(b"garbage")
        servers.append(server)

    async with tcp_pair() as (ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, theirs)
            stream = await connect_tls(ours, client_context(verify=True, ca_file=str(authority.ca)), "localhost")
        assert await stream.receive_some(1) == b"g"
        assert is_readable(stream)
        assert await stream.receive_some() == b"arbage"
        assert not is_readable(stream)
