"""A network in memory: backends listen on names and ports, a proxy dials them."""

from __future__ import annotations

from typing import Any

import trio

from trioproxy.errors import ConnectFailed
from trioproxy.routing.route import Backend, Route
from trioproxy.testing.pipe import PipeEnd, open_pipe
from trioproxy.testing.wire import Wire

MAX_BACKLOG = 1024  # connections a backend may have waiting to be accepted


class MemoryBackend:
    """One address on the network. Connections wait here until a test accepts them."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.accepting = True  # False: dials are refused
        self.answering = True  # False: dials hang, as with a host that drops packets
        self.dials = 0
        self.open: list[PipeEnd] = []  # our ends of all connections ever made
        self._send, self._receive = trio.open_memory_channel[Wire](MAX_BACKLOG)

    def route(self, session_id: str, service: str, **more: Any) -> Route:
        """A route to this backend alone; `more` are further keys of the route object."""
        values = {"session_id": session_id, "service": service, "backends": [self.as_backend()], **more}
        return Route.model_validate(values)

    def as_backend(self, **more: Any) -> Backend:
        """This address as a backend of a route; `more` are further keys of the backend object."""
        return Backend.model_validate({"host": self.host, "port": self.port, **more})

    async def accept(self) -> Wire:
        """The next connection the proxy makes."""
        return await self._receive.receive()

    def connect(self) -> PipeEnd:
        """Make a connection and return the other end of it. Raises trio.WouldBlock beyond the backlog."""
        theirs, ours = open_pipe()
        self._send.send_nowait(Wire(ours))
        self.open.append(ours)
        return theirs


class MemoryNetwork:
    """All addresses that can be dialled. `dial` is what a proxy is given."""

    def __init__(self) -> None:
        self._backends: dict[tuple[str, int], MemoryBackend] = {}

    def listen(self, host: str, port: int) -> MemoryBackend:
        """Open an address, or open it anew."""
        backend = self._backends[host, port] = MemoryBackend(host, port)
        return backend

    async def dial(self, backend: Backend) -> trio.abc.HalfCloseableStream:
        """Connect. Raises ConnectFailed where nobody listens, and where the backlog is full."""
        await trio.lowlevel.checkpoint()
        target = self._backends.get((backend.host, backend.port))
        if target is None or not target.accepting:
            raise ConnectFailed(f"{backend.host}:{backend.port} refused the connection")
        target.dials += 1
        if not target.answering:
            await trio.sleep_forever()
        try:
            return target.connect()
        except trio.WouldBlock:
            raise ConnectFailed(f"{backend.host}:{backend.port} has too many connections to accept") from None

    def leaked(self) -> list[str]:
        """Addresses to which the proxy still holds a connection, one entry for each."""
        return [
            f"{backend.host}:{backend.port}"
            for backend in self._backends.values()
            for ours in backend.open
            if not ours.peer_closed
        ]
