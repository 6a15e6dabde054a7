"""A request from match to outcome: choose a backend, get a connection, relay; and again elsewhere if that is safe."""

from __future__ import annotations

import trio

from trioproxy.errors import NoBackend, ProxyError, Retry, StaleConnection
from trioproxy.http1.forward import request_head
from trioproxy.policy.retry import may_retry
from trioproxy.proxy.balancer import Lease
from trioproxy.proxy.begun import Begun
from trioproxy.proxy.client import Client
from trioproxy.proxy.live import LiveConnection
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.pool import CLOSE_SECONDS
from trioproxy.proxy.relay import Outcome, Relay, Switched
from trioproxy.proxy.stickiness import set_pin
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
        "_stats",
        "_waits",
        "_wish",
    )

    def __init__(self, plane: Plane, client: Client, begun: Begun, live: LiveConnection) -> None:
        self._plane = plane
        self._client = client
        self._begun = begun
        self._request = begun.request
        self._match = begun.match
        self._stats = begun.stats
        self._live = live
        self._waits = begun.waits
        self._wish = begun.wish

    async def run(self) -> Outcome:
        """Try until there is an outcome, or an error that does not allow another try. Raises ProxyError."""
        first = self._begun if self._begun.lease is not None else None
        if first is None and self._begun.failure is not None:
            # Too late for another try. Its connection may still be there: one that was not to be kept after the answer.
            await self._begun.give_back(self._plane.pool)
            raise self._begun.failure
        tried: set[str] = set()
        tries = 0
        error: ProxyError | None = None
        while True:
            try:
                lease = (first and first.lease) or self._plane.balancer.pick(self._stats, tried, self._wish)
            except NoBackend as none_left:
                raise error or none_left from None
            if error is not None:
                self._request.record.retries += 1
                self._plane.metrics.service(self._match.route.service).retries[error.code] += 1
            tries += 1
            try:
                return await self._lease(lease, first, fresh=isinstance(error, StaleConnection))
            except ProxyError as failure:
                first = None
                if not self._may_retry(failure, tries):
                    raise
                error = failure
            if not isinstance(error, StaleConnection):  # its backend is fine, only the kept connection was not
                tried.add(lease.backend.id)

    def _may_retry(self, error: ProxyError, tries: int) -> bool:
        config, own = self._plane.config.retry, self._match.route.retry
        replay_bytes = config.replay_bytes if own.replay_bytes is None else own.replay_bytes
        request = self._request
        return not request.response_begun and may_retry(
            error,
            method=request.head.method,
            tries=tries,
            attempts=config.attempts if own.attempts is None else own.attempts,
            body_is_whole=not request.consumed and (error.retry is Retry.UNSENT or len(request.early) <= replay_bytes),
        )

    async def _lease(self, lease: Lease, begun: Begun | None, *, fresh: bool) -> Outcome:
        self._request.record.backend = lease.backend.id
        self._live.backend_key = lease.backend.key
        try:
            outcome = await self._try(lease, begun, fresh=fresh)
        except ProxyError as failure:
            lease.failed(failure)
            raise
        else:
            lease.served(self._request.record.status)
            return outcome
        finally:
            lease.release()

    async def _try(self, lease: Lease, begun: Begun | None, *, fresh: bool) -> Outcome:
        pool = self._plane.pool
        upstream = begun.upstream if begun is not None else await self._connect(lease.backend, fresh=fresh)
        outcome: Outcome | None = None
        try:
            if begun is not None and begun.failure is not None:
                raise begun.failure
            assert upstream is not None
            done = await self._relay(upstream, lease, begun)
            if isinstance(done, Outcome):
                outcome = done
                return outcome
            # Streams are many and long: of the road to here nothing is kept that they do not need.
            switched, done, begun = [done], None, None
            cookie = set_pin(lease, self._match, self._request)
            upgrade = Upgrade(self._plane, self._client, self._request, upstream, self._live, self._match.route)
            return await upgrade.switch(switched.pop(), cookie)
        finally:
            if upstream is not None and not (outcome is not None and outcome.keep_upstream and pool.keep(upstream)):
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await pool.discard(upstream)

    async def _connect(self, backend: Backend, *, fresh: bool) -> Upstream:
        record = self._request.record
        began = trio.current_time()
        try:
            return await self._plane.pool.acquire(backend, connect_seconds=self._waits.connect, fresh=fresh)
        finally:
            record.wait_seconds = (record.wait_seconds or 0.0) + trio.current_time() - began

    async def _relay(self, upstream: Upstream, lease: Lease, begun: Begun | None) -> Outcome | Switched:
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
            cookie=set_pin(lease, match, request),
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
