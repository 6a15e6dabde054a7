"""A request from match to outcome: choose a backend, get a connection, relay; and again elsewhere if that is safe."""

from __future__ import annotations

import trio

from trioproxy.errors import NoBackend, ProxyError, Retry, StaleConnection
from trioproxy.http1.forward import request_head
from trioproxy.http1.rewrite import Mapping
from trioproxy.policy.retry import may_retry
from trioproxy.proxy.balancer import Lease, RouteStats
from trioproxy.proxy.client import Client
from trioproxy.proxy.live import LiveConnection
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.pool import CLOSE_SECONDS
from trioproxy.proxy.relay import Outcome, Relay
from trioproxy.proxy.request import Request, Waits
from trioproxy.proxy.router import Match
from trioproxy.proxy.upgrade import Upgrade, asks_websocket, keeps_extensions
from trioproxy.proxy.upstream import Upstream


class Exchange:
    """One request on its way through. Make it, `run` it once."""

    def __init__(
        self, plane: Plane, client: Client, request: Request, match: Match, stats: RouteStats, live: LiveConnection
    ) -> None:
        self._plane = plane
        self._client = client
        self._request = request
        self._match = match
        self._stats = stats
        self._live = live
        self._waits = Waits.of(plane.config.timeouts, match.route)

    async def run(self) -> Outcome:
        """Try until there is an outcome, or an error that does not allow another try. Raises ProxyError."""
        tried: set[str] = set()
        tries = 0
        error: ProxyError | None = None
        while True:
            try:
                lease = self._plane.balancer.pick(self._stats, tried)
            except NoBackend as none_left:
                raise error or none_left from None
            if error is not None:
                self._request.record.retries += 1
                self._plane.metrics.service(self._match.route.service).retries[error.code] += 1
            tries += 1
            try:
                return await self._lease(lease, fresh=isinstance(error, StaleConnection))
            except ProxyError as failure:
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

    async def _lease(self, lease: Lease, *, fresh: bool) -> Outcome:
        self._request.record.backend = lease.backend.id
        self._live.backend_key = lease.backend.key
        try:
            outcome = await self._try(lease, fresh=fresh)
        except ProxyError as failure:
            lease.failed(failure)
            raise
        else:
            lease.served()
            return outcome
        finally:
            lease.release()

    async def _try(self, lease: Lease, *, fresh: bool) -> Outcome:
        pool, record = self._plane.pool, self._request.record
        began = trio.current_time()
        try:
            upstream = await pool.acquire(lease.backend, connect_seconds=self._waits.connect, fresh=fresh)
        finally:
            record.wait_seconds = (record.wait_seconds or 0.0) + trio.current_time() - began
        outcome: Outcome | None = None
        try:
            outcome = await self._relay(upstream, lease)
            return outcome
        finally:
            if not (outcome is not None and outcome.keep_upstream and pool.keep(upstream)):
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await pool.discard(upstream)

    async def _relay(self, upstream: Upstream, lease: Lease) -> Outcome:
        request, match, plane = self._request, self._match, self._plane
        backend = lease.backend.authority.encode("ascii", "replace")
        upgrade = b", ".join(request.head.upgrade) or None
        raw_head = request_head(
            request.head,
            target=match.target,
            backend=backend,
            origin=request.origin,
            request_id=request.record.id.encode("ascii"),
            prefix=match.prefix,
            upgrade=upgrade,
            extensions=not asks_websocket(request.head) or keeps_extensions(plane, match.route),
        )
        mapping = None
        if match.route.path == "strip":
            mapping = Mapping(request.origin.prefix + match.prefix, request.head.authority or backend, backend)
        relay = Relay(
            self._client,
            request,
            upstream,
            waits=self._waits,
            limits=plane.config.limits,
            mapping=mapping,
            draining=lambda: plane.drain.active,
            switch=Upgrade(plane, self._client, request, upstream, self._live, match.route).switch,
        )
        return await relay.run(raw_head)
