"""A proxy of one backend port that only knows WebSockets: two handshakes passed through, then the code under test."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import trio
from websocket_peer import SETTINGS, Counted
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_in_thread

from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.tls import accept_tls
from trioproxy.proxy.closer import Closer, Ended
from trioproxy.proxy.tunnel import forward_bytes
from trioproxy.proxy.websocket import forward_messages

Mode = Literal["message", "relay"]


async def read_head(stream: PrefixedStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some(65536)
    head, end, rest = data.partition(b"\r\n\r\n")
    stream.unread(rest)
    return head + end


@dataclass
class WebSocketProxy:
    mode: Mode
    backend_port: int
    settings: dict[str, float]
    tls: ssl.SSLContext | None = None
    port: int = 0
    closers: list[Closer] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    traffic: Counted = field(default_factory=Counted)

    @property
    def url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://localhost:{self.port}/"

    async def handle(self, stream: trio.SocketStream) -> None:
        client = (await accept_tls(stream, self.tls))[0] if self.tls else PrefixedStream(stream)
        backend = PrefixedStream(await trio.open_tcp_stream("127.0.0.1", self.backend_port))
        lines = (await read_head(client)).split(b"\r\n")
        if self.mode == "message":
            lines = [line for line in lines if not line.lower().startswith(b"sec-websocket-extensions")]
        await backend.send_all(b"\r\n".join(lines))
        await client.send_all(await read_head(backend))
        self.closers.append(closer := Closer())
        settings = replace(SETTINGS, **self.settings)
        if self.mode == "message":
            ended = await forward_messages(client, backend, settings, self.traffic, closer=closer)
        else:
            ended = await forward_bytes(
                client,
                backend,
                idle=settings.idle,
                close=settings.close,
                traffic=self.traffic,
                closer=closer,
                websocket=True,
            )
        self.ended.append(ended)


@asynccontextmanager
async def proxying(
    backend_port: int, mode: Mode = "message", *, tls: ssl.SSLContext | None = None, **settings: float
) -> AsyncIterator[WebSocketProxy]:
    """Serve on a free port. At the end, wait for what is still forwarded."""
    proxy = WebSocketProxy(mode, backend_port, settings, tls)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy.port = listener.socket.getsockname()[1]
    with trio.fail_after(30):
        async with trio.open_nursery() as connections:
            serve = partial(trio.serve_listeners, handler_nursery=connections)
            async with trio.open_nursery() as accepting:
                await accepting.start(serve, proxy.handle, [listener])
                yield proxy
                accepting.cancel_scope.cancel()


@contextmanager
def websockets_server(
    handler: Callable[[ServerConnection], None], *, compression: str | None = "deflate"
) -> Iterator[int]:
    """The port of a server of the `websockets` library, in a thread of its own."""
    with serve_in_thread(handler, "127.0.0.1", 0, compression=compression, max_size=None, ping_interval=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()
