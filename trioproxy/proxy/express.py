"""The short way for ordinary requests: in one piece to the backend, and the answer in one piece back.

read a head ─ match ─ may the client in? ─ a kept connection ─ send ─ receive ─ send ─ next head

Ordinary is a canonical request that came whole and is answered, within a second, by a canonical response that comes
whole. Most are, and what they cost is what a worker can carry. So here is no nursery, no scope and no object that does
not have to be; time is the watch's. Anything else is handed over to the long way (`connection.py`), as far as it has
come: an error as well.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import trio

from trioproxy.errors import ProxyError
from trioproxy.http1.canonical import RequestLane
from trioproxy.http1.forward import mapped_response_head, request_head
from trioproxy.http1.framing import Coding
from trioproxy.http1.rewrite import MAPPED
from trioproxy.observe.access_log import RequestRecord
from trioproxy.policy.access import check_access
from trioproxy.policy.retry import SAFE
from trioproxy.proxy.begun import Begun, note_bug
from trioproxy.proxy.client import Client
from trioproxy.proxy.live import LiveConnection
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.presence import acquire
from trioproxy.proxy.request import Opener, Request
from trioproxy.proxy.router import Match
from trioproxy.proxy.stickiness import wish_of
from trioproxy.proxy.upstream import Upstream
from trioproxy.proxy.waits import Waits
from trioproxy.routing.route import Backend

_COUNTED = (Coding.LENGTH, Coding.NONE)
READ_BYTES = 64 * 1024  # an answer with its head, or a request with its body, beyond which it is not ordinary

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(slots=True)
class Unread:
    """The first bytes of something that is not ordinary, or that failed at once."""

    data: bytes
    record: RequestRecord
    failure: ProxyError | None = None


class Express:
    """Serves ordinary requests of one connection. `begun` is the one that is on its way, when `serve` is cancelled."""

    def __init__(self, plane: Plane, client: Client, live: LiveConnection, opener: Opener, *, redirects: bool) -> None:
        self._plane = plane
        self._client = client
        self._live = live
        self._opener = opener
        self._lane = RequestLane()
        self._redirects = redirects  # the listener sends everyone on to https
        self.begun: Begun | None = None
        self.closing = False  # the last answer was announced to be the last

    async def serve(self) -> Unread | Begun | None:
        """Serve requests until there is one for the long way; None when the connection comes to its end.

        Runs inside the scope of the live connection. When that is cancelled because it is late, `begun` may go on, on
        the long way.
        """
        plane, live, stream, peer = self._plane, self._live, self._client.stream, self._live.peer
        scope, now = live.scope, trio.current_time()
        while True:
            timeouts = plane.config.timeouts
            plane.watch.expect(live, timeouts.keep_alive if live.requests else timeouts.head, now)
            plane.drain.interrupts(scope)
            try:
                data = await stream.receive_later(READ_BYTES)
            except _BROKEN:
                return None
            finally:
                plane.drain.spare(scope)
            if not data:
                return None
            record = RequestRecord(plane.ids.make(), peer.host, peer.listener, time.time(), trio.current_time())
            try:
                begun = None if scope.cancel_called else self._begin(data, record)
            except Exception as bug:  # noqa: BLE001 - it is logged, and ends this one request
                return Unread(data, record, note_bug(bug, record))
            if begun is None:
                return Unread(data, record)
            self.begun = begun
            try:
                if not await self._exchange(begun):
                    return begun
            except ProxyError as error:
                begun.failure = error
                return begun
            except Exception as bug:  # noqa: BLE001 - it is logged, and ends this one request
                begun.failure = note_bug(bug, record)
                return begun
            now = self._finish(begun)
            if self.closing or scope.cancel_called:
                return None

    def _begin(self, data: bytes, record: RequestRecord) -> Begun | None:
        """Take up a request; None when it is not ordinary, or is refused: nothing has happened then."""
        plane, live = self._plane, self._live
        limits = plane.config.limits
        end = data.find(b"\r\n\r\n") + 4
        if not 4 < end <= limits.head_bytes or self._redirects:
            return None
        head = self._lane.take(data[:end], header_count=limits.header_count)
        if head is None or len(data) - end < head.framing.length:
            return None
        try:
            match = plane.router.match(head)
            if not isinstance(match, Match):
                return None
            request = self._opener.open(head, record, plane.config.access)
            check_access(match.route.access, request.origin)
            request.begin_body(self._client.stream, data[end:], limit=limits.body_bytes)
        except ProxyError:
            return None  # the long way meets it again, and answers it
        live.record = record
        live.requests += 1
        stats = plane.enter(live, match.route, record)
        record.session_id, record.service = match.route.key
        return Begun(request, match, stats, stats.waits(plane.config), wish_of(request, match.route))

    async def _exchange(self, begun: Begun) -> bool:
        """Get the answer and pass it on; False when it is not ordinary. Raises ProxyError."""
        plane, live, request = self._plane, self._live, begun.request
        waits = begun.waits
        lease = begun.lease = plane.balancer.pick(begun.stats, (), begun.wish)
        if lease.pin is not None:
            return False  # the answer has to bring a cookie
        upstream = begun.upstream = await self._upstream(lease.backend, request, waits)
        raw_head = request_head(
            request.head,
            target=begun.match.target,
            backend=b"",
            origin=request.origin,
            request_id=request.record.id.encode("ascii"),
            prefix=begun.match.prefix,
            upgrade=None,
        )
        await self._send_up(upstream, raw_head + request.early, waits)
        now = begun.sent_at = trio.current_time()
        plane.watch.expect(live, waits.patience, now)
        data = begun.received = await upstream.receive_later(READ_BYTES)
        if not data:
            raise upstream.closed_early()
        out = None if live.scope.cancel_called else self._answer(begun, data)
        if out is None:
            return False
        sent = self._client.send_now(out)
        if sent < len(out):
            plane.watch.expect(live, waits.stall, trio.current_time())
            await self._client.send(memoryview(out)[sent:])
        if begun.holds:
            await begun.give_back(plane.pool)
        return True

    async def _send_up(self, upstream: Upstream, data: bytes, waits: Waits) -> None:
        sent = upstream.send_now(data)
        if sent < len(data):
            self._plane.watch.expect(self._live, waits.response_head, trio.current_time())
            await upstream.send(memoryview(data)[sent:])

    async def _upstream(self, backend: Backend, request: Request, waits: Waits) -> Upstream:
        record = request.record
        record.backend, self._live.backend_key = backend.id, backend.key
        record.wait_seconds = 0.0
        pool = self._plane.pool
        again = request.head.method in SAFE and not request.early and waits.retry.attempts > 0
        upstream = pool.take(backend, sure=not again)
        if upstream is None:
            began = trio.current_time()
            self._plane.watch.expect(self._live, 0, began)  # the pool keeps its own time
            try:
                upstream = await acquire(self._client, pool, backend, connect_seconds=waits.connect)
            finally:
                record.wait_seconds = trio.current_time() - began
        return upstream

    def _answer(self, begun: Begun, data: bytes) -> bytes | None:
        """The answer as it goes to the client; None when it is not ordinary. The backend's part is over then."""
        plane, request, upstream, lease = self._plane, begun.request, begun.upstream, begun.lease
        assert upstream is not None
        assert lease is not None
        assert begun.sent_at is not None
        limits, record = plane.config.limits, request.record
        end = data.find(b"\r\n\r\n") + 4
        if not 4 < end <= limits.head_bytes:
            return None
        head = upstream.lane.take(data[:end], method=request.head.method, header_count=limits.header_count)
        if head is None or head.framing.length != len(data) - end or head.framing.coding not in _COUNTED:
            return None
        if head.status >= 500 and head.status in begun.waits.retry.statuses:
            return None  # another backend may have a better one
        self.closing = not request.head.keep_alive or plane.drain.active
        mapping = None
        if not MAPPED.isdisjoint(head.special):
            mapping = begun.match.mapping(request.origin, request.head, lease.backend)
        out = mapped_response_head(
            head,
            mapping,
            chunked=False,
            close=self.closing,
            request_id=record.id.encode("ascii"),
        )
        request.response_begun = True
        record.status = head.status
        record.bytes_out = head.framing.length
        record.upstream_head_seconds = trio.current_time() - begun.sent_at
        lease.served(head.status, record.upstream_head_seconds)
        lease.release()
        begun.lease = None
        if head.keep_alive:
            upstream.heed(head)
            if plane.pool.keep(upstream):
                begun.upstream = None
        return out + data[end:] if end < len(data) else out

    def _finish(self, begun: Begun) -> float:
        """Account for a request that was answered; the time, on trio's clock."""
        self.begun = None
        record = begun.request.record
        self._plane.leave(self._live, begun.stats, record)
        self._plane.conclude(self._live, record)
        return record.began + record.total_seconds
