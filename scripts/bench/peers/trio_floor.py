"""What trio itself costs a proxy: read, write, read, write on trio.socket. It looks at no byte, so it is no proxy: it
only works because here a request and an answer come in one piece each. No timeouts, no log.

    python trio_floor.py PORT BACKEND_PORT
"""

from __future__ import annotations

import sys
from functools import partial

import trio
from trio.socket import SocketType

READ_BYTES = 64 * 1024


async def serve(backend_port: int, stream: trio.SocketStream) -> None:
    """Serve one client connection, with a backend connection of its own."""
    async with stream, await trio.open_tcp_stream("127.0.0.1", backend_port) as backend:
        try:
            while await carry(stream.socket, backend.socket) and await carry(backend.socket, stream.socket):
                pass
        except OSError:
            return


async def carry(source: SocketType, target: SocketType) -> bool:
    """One piece; False at the end."""
    data = await source.recv(READ_BYTES)
    sent = 0
    while sent < len(data):
        sent += await target.send(data[sent:] if sent else data)
    return bool(data)


async def main() -> None:
    """Serve until killed."""
    port, backend_port = map(int, sys.argv[1:])
    await trio.serve_tcp(partial(serve, backend_port), port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main)
