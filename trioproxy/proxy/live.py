"""The client connections that are open now, and how to end one from outside."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from trioproxy.control.messages import ConnectionInfo, ConnectionKind
from trioproxy.net.peer import Peer
from trioproxy.observe.access_log import RequestRecord
from trioproxy.proxy.balancer import RouteStats
from trioproxy.proxy.closer import GOING_AWAY, Closer
from trioproxy.routing.route import RouteKey


@dataclass(slots=True, eq=False)
class LiveConnection:
    """One client connection. Its own task writes the fields; others read them or end it."""

    id: str
    peer: Peer
    opened_at: float = field(default_factory=time.time)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    requests: int = 0
    record: RequestRecord | None = None  # of the request being served
    route: RouteStats | None = None
    backend_key: str | None = None
    closer: Closer | None = None  # set while a WebSocket or tunnel is open: the polite way to end it
    end_error: str | None = None  # why it was ended from outside
    bytes_in: int = 0  # of finished requests
    bytes_out: int = 0
    seen_bytes: int = 0  # at the last look for activity
    due: float = math.inf  # when what it waits for becomes too long, on trio's clock: see Watch
    late: bool = False  # it did; that is why the scope was cancelled

    def open_scope(self) -> trio.CancelScope:
        """A new scope for what it does next, cancelled at once when the connection was ended meanwhile."""
        self.scope = trio.CancelScope()
        self.due = math.inf
        self.late = False
        if self.end_error is not None:
            self.scope.cancel()
        return self.scope

    def total_bytes(self) -> tuple[int, int]:
        """Payload bytes so far, from and to the client."""
        if self.record is None:
            return self.bytes_in, self.bytes_out
        return self.bytes_in + self.record.bytes_in, self.bytes_out + self.record.bytes_out

    def end(self, reason: str, *, error: str) -> None:
        """End it: a stream with a close frame, anything else at once. `error` is what the log says."""
        self.end_error = error
        if self.closer is not None:
            self.closer.request(GOING_AWAY, reason, error=error)
        else:
            self.scope.cancel()

    def describe(self) -> ConnectionInfo:
        """For a listing."""
        record = self.record
        kind: ConnectionKind = "idle"
        if record is not None:
            kind = "websocket" if record.kind == "websocket" else "tunnel" if record.kind == "tunnel" else "http"
        bytes_in, bytes_out = self.total_bytes()
        return ConnectionInfo(
            id=self.id,
            client=self.peer.address,
            listener=self.peer.listener,
            kind=kind,
            session_id=record.session_id if record else None,
            service=record.service if record else None,
            backend=record.backend if record else None,
            method=record.method if record else None,
            path=record.path if record else None,
            opened_at=self.opened_at,
            requests=self.requests,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
        )


class LiveConnections:
    """All of a forwarder's connections, by id."""

    def __init__(self) -> None:
        self._by_id: dict[str, LiveConnection] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[LiveConnection]:
        return iter(self._by_id.values())

    def add(self, connection: LiveConnection) -> None:
        """A connection opened."""
        self._by_id[connection.id] = connection

    def remove(self, connection: LiveConnection) -> None:
        """A connection ended."""
        del self._by_id[connection.id]

    def end(self, connection_id: str) -> bool:
        """End one; False when there is none of that id."""
        connection = self._by_id.get(connection_id)
        if connection is None:
            return False
        connection.end("closed by an operator", error="closed")
        return True

    def end_streams(self, reason: str, *, error: str) -> None:
        """End every WebSocket and tunnel politely."""
        for connection in list(self._by_id.values()):
            if connection.closer is not None:
                connection.end(reason, error=error)

    def end_route(self, key: RouteKey, backend_key: str | None, reason: str) -> None:
        """End what runs on a route, or on one backend address of it."""
        for connection in list(self._by_id.values()):
            if (
                connection.route is not None
                and connection.route.route.key == key
                and backend_key in (None, connection.backend_key)
            ):
                connection.end(reason, error="route_removed")

    def note_activity(self) -> None:
        """Date the routes whose running requests have moved bytes since the last look."""
        now = time.time()
        for connection in self._by_id.values():
            if connection.route is not None:
                total = sum(connection.total_bytes())
                if total != connection.seen_bytes:
                    connection.seen_bytes = total
                    connection.route.last_activity = now
