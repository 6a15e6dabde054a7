"""A request from match to outcome: choose a backend, get a connection, relay; and again elsewhere if that is safe."""

from __future__ import annotations

import trio

from trioproxy.errors import AnswerRefused, ProxyError, RefusedBefore
from trioproxy.http1.forward import request_head
from trioproxy.proxy import presence
from trioproxy.proxy.balancer import Lease
from trioproxy.proxy.begun import Begun
from trioproxy.proxy.client import Client
from trioproxy.proxy.live import LiveConnection
from trioproxy.proxy.outcome import Declined, Outcome, Result
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.pool import CLOSE_SECONDS
from trioproxy.proxy.relay import Relay
from trioproxy.proxy.stickiness import set_pin
from trioproxy.proxy.tries import Tries
from trioproxy.proxy.upgrade import Upgrade, asks_websocket, keeps_extensions
from trioproxy.proxy.upstream import Upstream
from trioproxy.routing.route import Backend


class Exchange:
    """One request on its way through. Make it, `run` it once.

    `begun` is its first try, as far as that has got; what it holds of a backend belongs to the exchange from now on.
    """

    __slots__ = (
        "_begun",
        "_client",
        "_live",
        "_match",
        "_plane",
        "_request",
        "_tries",
        "_waits",
    )

    def __init__(self, plane: Plane, client: Client, begun: Begun, live: LiveConnection) -> None:
        self._plane = plane
        self._client = client
        self._begun = begun
        self._request = begun.request
        self._match = begun.match
        self._live = live
        self._waits = begun.waits
        self._tries = Tries(plane, begun)

    async def run(self) -> Outcome:
        """Try until there is an outcome, or an error that does not allow another try. Raises ProxyError."""
        begun, tries = self._begun, self._tries
        if begun.lease is None and begun.failure is not None:
            # Too late for another try. Its connection may still be there: one that was not to be kept after the answer.
            await begun.give_back(self._plane.pool)
            raise begun.failure
        first = begun if begun.upstream is not None or begun.failure is not None else None
        lease = begun.lease or self._plane.balancer.pick(begun.stats, (), begun.wish)
        try:
            while True:
                tries.begin(lease)
                try:
                    return await self._lease(lease, first)
                except ProxyError as error:
                    if not tries.another(error):
                        raise
                if tries.pause:
                    await presence.pause(self._client, tries.pause)
                first, lease = None, tries.take()
        finally:
            tries.give_back()

    async def _lease(self, lease: Lease, begun: Begun | None) -> Outcome:
        self._request.record.backend = lease.backend.id
        self._live.backend_key = lease.backend.key
        try:
            outcome = await self._try(lease, begun)
        except ProxyError as failure:
            if not isinstance(failure, RefusedBefore | AnswerRefused):  # nothing that was not known already
                lease.failed(failure)
            raise
        else:
            lease.served(self._request.record.status)
            return outcome
        finally:
            lease.release()

    async def _try(self, lease: Lease, begun: Begun | None) -> Outcome:
        pool = self._plane.pool
        upstream = begun.upstream if begun is not None else await self._connect(lease.backend)
        keep = False
        try:
            if begun is not None and begun.failure is not None:
                raise begun.failure
            assert upstream is not None
            done = await self._relay(upstream, lease, begun)
            if isinstance(done, Declined):
                keep = done.keep_upstream
                lease.served(done.status)
                raise done.error
            if isinstance(done, Outcome):
                keep = done.keep_upstream
                return done
            # Streams are many and long: of the road to here nothing is kept that they do not need.
            switched, done, begun = [done], None, None
            cookie = set_pin(lease, self._match, self._request)
            upgrade = Upgrade(self._plane, self._client, self._request, upstream, self._live, self._match.route)
            return await upgrade.switch(switched.pop(), cookie)
        finally:
            if upstream is not None and not (keep and pool.keep(upstream)):
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await pool.discard(upstream)

    async def _connect(self, backend: Backend) -> Upstream:
        record, pool = self._request.record, self._plane.pool
        fresh = self._tries.fresh
        upstream = None if fresh else pool.take(backend)
        if upstream is not None:
            record.wait_seconds = record.wait_seconds or 0.0
            return upstream
        began = trio.current_time()
        try:
            return await presence.acquire(self._client, pool, backend, connect_seconds=self._waits.connect, fresh=fresh)
        finally:
            record.wait_seconds = (record.wait_seconds or 0.0) + trio.current_time() - began

    async def _relay(self, upstream: Upstream, lease: Lease, begun: Begun | None) -> Result:
        request, match, plane = self._request, self._match, self._plane
        relay = Relay(
            self._client,
            request,
            upstream,
            waits=self._waits,
            limits=plane.config.limits,
            mapping=match.mapping(request.origin, request.head, lease.backend),
            draining=lambda: plane.drain.active,
            answered=lease.answered,
            decline=self._tries.declines,
            cookie=set_pin(lease, match, request),
            per_try=self._tries.per_try,
        )
        if begun is not None:
            assert begun.sent_at is not None, "what was not sent has failed"
            return await relay.resume(begun.sent_at, begun.received)
        raw_head = request_head(
            request.head,
            target=match.target,
            backend=lease.backend.authority.encode("ascii", "replace"),
            origin=request.origin,
            request_id=request.record.id.encode("ascii"),
            prefix=match.prefix,
            upgrade=b", ".join(request.head.upgrade) or None,
            extensions=not asks_websocket(request.head) or keeps_extensions(plane, match.route),
        )
        return await relay.run(raw_head)
