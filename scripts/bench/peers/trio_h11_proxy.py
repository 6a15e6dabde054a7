"""A proxy out of trio and h11, the straightforward way: one h11 connection per side, keep-alive on both, hop-by-hop
fields stripped, forwarded fields added. No timeouts, no log, no WebSockets.

    python trio_h11_proxy.py PORT BACKEND_PORT
"""

from __future__ import annotations

import sys
from collections import deque
from functools import partial
from typing import Any, cast

import h11
import trio

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
READ_BYTES = 64 * 1024
Headers = list[tuple[bytes, bytes]]


class Leg:
    """One connection and its protocol state."""

    def __init__(self, stream: trio.SocketStream, role: type[h11.CLIENT | h11.SERVER]) -> None:
        self.stream = stream
        self.http = h11.Connection(role)

    async def next_event(self) -> Any:
        """The next h11 event, reading as needed."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            if self.http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self.http.receive_data(await self.stream.receive_some(READ_BYTES))
        return event

    async def send(self, event: Any) -> None:
        """Send an h11 event."""
        data = cast("bytes | None", self.http.send(event))
        if data:
            await self.stream.send_all(data)

    def reusable(self) -> bool:
        """Whether another request may follow; if so, be ready for it."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        return False


async def serve(idle: deque[Leg], backend_port: int, stream: trio.SocketStream) -> None:
    """Serve one client connection."""
    client = Leg(stream, h11.SERVER)
    host = stream.socket.getpeername()[0]
    async with stream:
        while True:
            try:
                request = await client.next_event()
                if not isinstance(request, h11.Request):
                    return
                backend = idle.pop() if idle else Leg(await trio.open_tcp_stream("127.0.0.1", backend_port), h11.CLIENT)
            except (h11.ProtocolError, trio.BrokenResourceError, OSError):
                return
            try:
                await forward(client, backend, request, host)
            except (h11.ProtocolError, trio.BrokenResourceError):
                return
            finally:
                if backend.reusable():
                    idle.append(backend)
                else:
                    await trio.aclose_forcefully(backend.stream)
            if not client.reusable():
                return


async def forward(client: Leg, backend: Leg, request: h11.Request, peer: str) -> None:
    """One request and its response."""
    headers = end_to_end(request.headers)
    host = next((value for name, value in headers if name == b"host"), b"")
    headers += [(b"X-Forwarded-For", peer.encode()), (b"X-Forwarded-Proto", b"http"), (b"X-Forwarded-Host", host)]
    await backend.send(h11.Request(method=request.method, target=request.target, headers=headers))
    await copy_body(client, backend)
    while isinstance(response := await backend.next_event(), h11.InformationalResponse):
        pass
    await client.send(
        h11.Response(status_code=response.status_code, headers=end_to_end(response.headers), reason=response.reason)
    )
    await copy_body(backend, client)


async def copy_body(source: Leg, target: Leg) -> None:
    """The rest of a message."""
    while not isinstance(event := await source.next_event(), h11.EndOfMessage):
        await target.send(event)
    await target.send(event)


def end_to_end(headers: Any) -> Headers:
    """Without those meant for one hop only; h11 adds framing of its own."""
    framing: Headers = [(b"Transfer-Encoding", b"chunked")] if (b"transfer-encoding", b"chunked") in headers else []
    return [(name, value) for name, value in headers if name not in HOP_BY_HOP] + framing


async def main() -> None:
    """Serve until killed."""
    port, backend_port = map(int, sys.argv[1:])
    idle: deque[Leg] = deque()
    await trio.serve_tcp(partial(serve, idle, backend_port), port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main)
