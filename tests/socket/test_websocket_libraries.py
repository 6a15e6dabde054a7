"""Somebody else's WebSocket client and server, with a forwarded WebSocket between them."""

from __future__ import annotations

import queue
import random
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from websocket_proxy import Mode, proxying, read_head, websockets_server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.tls import server_context
from trioproxy.proxy.closer import Ended
from trioproxy.proxy.frames import close_frame

MODES: list[Mode] = ["message", "relay"]
CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4000, 4999]
Result = TypeVar("Result")


def echo(server: ServerConnection) -> None:
    for message in server:
        server.send(message)


async def visit(url: str, talk: Callable[[ClientConnection], Result], *, tls: ssl.SSLContext | None = None) -> Result:
    """Run `talk` with a client of the `websockets` library, in a thread."""

    def run() -> Result:
        with connect(url, ssl=tls, max_size=None, proxy=None, ping_interval=None, close_timeout=5) as client:
            return talk(client)

    return await trio.to_thread.run_sync(run)


def how_it_ended(peer: ClientConnection | ServerConnection) -> tuple[int, str]:
    """Read to the end. Code and reason as the library tells them: 1005 and 1006 stand for none."""
    try:
        while True:
            peer.recv(timeout=20)
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")


@pytest.mark.parametrize("mode", MODES)
async def test_a_thousand_mixed_messages_come_back_as_they_were(mode: Mode) -> None:
    rng = random.Random(1)
    sizes = [0, 1, 125, 126, 127, 4096, 65535, 65536, 100_000]
    said: list[str | bytes] = [
        rng.choice(["aé€𝄞", "plain"]) * (size // 5) if rng.random() < 0.5 else rng.randbytes(size)
        for size in rng.choices(sizes, weights=[9, 9, 9, 9, 9, 9, 1, 1, 1], k=1000)
    ]

    def talk(client: ClientConnection) -> list[str | bytes]:
        heard = []
        for start in range(0, len(said), 10):
            for message in said[start : start + 10]:
                client.send([message[:3], message[3:]] if len(message) == 126 else message)
            heard += [client.recv(timeout=20) for _ in range(10)]
        return heard

    with websockets_server(echo) as port:
        async with proxying(port, mode) as proxy:
            heard = await visit(proxy.url, talk)
    assert heard == said
    if mode == "message":
        total = sum(len(one.encode() if isinstance(one, str) else one) for one in said)
        assert (proxy.traffic.bytes_in, proxy.traffic.bytes_out) == (total, total)


async def test_a_message_of_64_mib_comes_back_as_it_was() -> None:
    message = random.Random(2).randbytes(2**20) * 64

    def talk(client: ClientConnection) -> bool:
        client.send(message)
        return client.recv(timeout=30) == message

    with websockets_server(echo) as port:
        async with proxying(port) as proxy:
            assert await visit(proxy.url, talk)


async def test_compression_is_negotiated_in_mode_relay_only() -> None:
    def extensions(client: ClientConnection) -> list[str]:
        client.send("x" * 1000)
        assert client.recv(timeout=20) == "x" * 1000
        return [extension.name for extension in client.protocol.extensions]

    with websockets_server(echo) as port:
        async with proxying(port, "message") as proxy:
            assert await visit(proxy.url, extensions) == []
        async with proxying(port, "relay") as proxy:
            assert await visit(proxy.url, extensions) == ["permessage-deflate"]


@pytest.mark.parametrize("mode", MODES)
async def test_every_close_code_and_reason_arrives_from_either_side(mode: Mode) -> None:
    heard: queue.Queue[tuple[int, str]] = queue.Queue()

    def close_as_told(server: ServerConnection) -> None:
        first = server.recv()
        if first == "wait":
            heard.put(how_it_ended(server))
        else:
            server.close(int(first), f"bye {first}")

    with websockets_server(close_as_told) as port:
        async with proxying(port, mode) as proxy:
            for code in CODES:

                def server_closes(client: ClientConnection, code: int = code) -> tuple[int, str]:
                    client.send(str(code))
                    return how_it_ended(client)

                def client_closes(client: ClientConnection, code: int = code) -> None:
                    client.send("wait")
                    client.close(code, f"bye {code}")

                assert await visit(proxy.url, server_closes) == (code, f"bye {code}")
                await visit(proxy.url, client_closes)
                assert await trio.to_thread.run_sync(heard.get) == (code, f"bye {code}")
    if mode == "message":
        assert [(ended.code, ended.by) for ended in proxy.ended] == [
            (code, by) for code in CODES for by in ("backend", "client")
        ]


@pytest.mark.parametrize("mode", MODES)
async def test_a_closer_is_heard_by_both_sides(mode: Mode) -> None:
    heard: queue.Queue[tuple[int, str]] = queue.Queue()

    def listen(server: ServerConnection) -> None:
        heard.put(how_it_ended(server))

    def talk(client: ClientConnection) -> tuple[int, str]:
        client.send("x")
        trio.from_thread.run_sync(lambda: proxy.closers[0].request(1001, "going away", error="draining"))
        return how_it_ended(client)

    with websockets_server(listen) as port:
        async with proxying(port, mode) as proxy:
            assert await visit(proxy.url, talk) == (1001, "going away")
            code, _reason = await trio.to_thread.run_sync(heard.get)
            assert code == 1001
    assert proxy.ended == [Ended(1001, "going away", "proxy", "draining")]


async def test_a_client_in_the_middle_of_too_big_a_message_reads_1009_and_no_reset() -> None:
    heard: queue.Queue[tuple[int, str]] = queue.Queue()

    def listen(server: ServerConnection) -> None:
        heard.put(how_it_ended(server))

    def talk(client: ClientConnection) -> tuple[int, str]:
        with suppress(ConnectionClosed):
            client.send(bytes(2**26))
        return how_it_ended(client)

    with websockets_server(listen) as port:
        async with proxying(port, max_message=2**20) as proxy:
            assert await visit(proxy.url, talk) == (1009, "larger than 1048576 bytes")
            assert (await trio.to_thread.run_sync(heard.get))[0] == 1001
    assert [ended.error for ended in proxy.ended] == ["message_too_big"]


@dataclass
class Contexts:
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture
def tls(authority: Any) -> Contexts:
    pair = authority.issue("localhost")
    server = server_context("1.2")
    server.load_cert_chain(pair.cert, pair.key)
    return Contexts(server, ssl.create_default_context(cafile=authority.ca))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ending", ["client", "backend", "proxy"])
async def test_a_client_behind_tls_hears_all_and_how_it_ends(mode: Mode, ending: str, tls: Contexts) -> None:
    heard: queue.Queue[tuple[int, str]] = queue.Queue()

    def serve(server: ServerConnection) -> None:
        server.send(server.recv())
        if ending == "backend":
            server.close(4000, "bye")
        heard.put(how_it_ended(server))

    def talk(client: ClientConnection) -> tuple[int, str]:
        client.send(bytes(10**6))
        assert client.recv(timeout=20) == bytes(10**6)
        if ending == "client":
            client.close(4000, "bye")
        if ending == "proxy":
            trio.from_thread.run_sync(lambda: proxy.closers[0].request(4000, "bye", error="draining"))
        return how_it_ended(client)

    with websockets_server(serve) as port:
        async with proxying(port, mode, tls=tls.server) as proxy:
            assert await visit(proxy.url, talk, tls=tls.client) == (4000, "bye")
            assert await trio.to_thread.run_sync(heard.get) == (4000, "bye")
    assert [ended.error for ended in proxy.ended] == ["draining" if ending == "proxy" else None]


async def test_a_client_behind_tls_reads_why_it_was_refused(tls: Contexts) -> None:
    def talk(client: ClientConnection) -> tuple[int, str]:
        with suppress(ConnectionClosed):
            client.send(bytes(2**24))
        return how_it_ended(client)

    with websockets_server(echo) as port:
        async with proxying(port, tls=tls.server, max_message=2**20) as proxy:
            assert await visit(proxy.url, talk, tls=tls.client) == (1009, "larger than 1048576 bytes")


def reset(connection: ClientConnection | ServerConnection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.shutdown(socket.SHUT_RD)  # wakes the library's own thread, which holds the socket
    connection.socket.close()


async def test_a_reset_of_the_backend_is_1012_to_the_client() -> None:
    def vanish(server: ServerConnection) -> None:
        server.recv()
        reset(server)

    def talk(client: ClientConnection) -> tuple[int, str]:
        client.send("x")
        return how_it_ended(client)

    with websockets_server(vanish) as port:
        async with proxying(port) as proxy:
            assert (await visit(proxy.url, talk))[0] == 1012
    assert proxy.ended == [Ended(1006, "", "backend", "upstream_closed")]


async def test_a_reset_of_the_client_is_1001_to_the_backend() -> None:
    heard: queue.Queue[tuple[int, str]] = queue.Queue()

    def listen(server: ServerConnection) -> None:
        heard.put(how_it_ended(server))

    with websockets_server(listen) as port:
        async with proxying(port) as proxy:
            await visit(proxy.url, reset)
            assert (await trio.to_thread.run_sync(heard.get))[0] == 1001
    assert proxy.ended == [Ended(1006, "", "client", "client_gone")]


def count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def answer_close(stream: trio.SocketStream) -> None:
    """A backend without a thread, whose files would be counted, too: a handshake and a closing handshake."""
    backend = PrefixedStream(stream)
    await read_head(backend)
    await backend.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    await backend.receive_some()
    await backend.send_all(close_frame(1000, ""))
    await backend.aclose()


async def close(port: int) -> bytes:
    """A client that says goodbye at once. Returns the answer."""
    async with PrefixedStream(await trio.open_tcp_stream("127.0.0.1", port)) as client:
        await client.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await read_head(client)
        await client.send_all(close_frame(1000, "", key=b"1234"))
        return b"".join([bytes(chunk) async for chunk in client])


@pytest.mark.parametrize("mode", MODES)
async def test_no_file_stays_open_after_many_connections(mode: Mode) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer_close, 0, host="127.0.0.1"))
        async with proxying(listener.socket.getsockname()[1], mode) as proxy:
            before = count_open_files()
            for _ in range(20):
                assert await close(proxy.port) == close_frame(1000, "")
        assert len(proxy.ended) == 20
        assert count_open_files() < before  # the listener of the proxy is closed
        nursery.cancel_scope.cancel()
