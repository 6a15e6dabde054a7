"""What all connections of one forwarder share."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from trioproxy.config.schema import Config
from trioproxy.observe.access_log import AccessLog, RequestRecord
from trioproxy.observe.metrics import Metrics, method_label
from trioproxy.proxy.balancer import Balancer, RouteStats
from trioproxy.proxy.drain import Drain
from trioproxy.proxy.live import LiveConnection, LiveConnections
from trioproxy.proxy.pool import Pool
from trioproxy.proxy.router import Router
from trioproxy.proxy.watch import Watch
from trioproxy.routing.route import Route


class Ids:
    """Names for connections and requests: unique among all workers, cheap, and nothing to guess secrets from."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def make(self) -> str:
        """The next one: 12 random hexadecimal digits of this process, a dash, a number."""
        return f"{self._prefix}-{next(self._numbers):x}"


@dataclass(slots=True)
class Plane:
    """References to the owners of a forwarder's state. `config` is replaced at a reload."""

    config: Config
    router: Router
    balancer: Balancer
    pool: Pool
    metrics: Metrics
    access_log: AccessLog | None
    drain: Drain
    live: LiveConnections
    watch: Watch
    ids: Ids = field(default_factory=Ids)
    rng: Callable[[], float] = random.random  # from 0 to 1: what keeps retries from coming together

    def enter(self, live: LiveConnection, route: Route, record: RequestRecord) -> RouteStats:
        """A request of this connection begins on its route. `leave` when it has ended."""
        stats = live.route = self.balancer.enter(route)
        if record.began >= stats.budget.turns_at:
            stats.budget.turn(record.began, stats.requests - 1)
        stats.last_activity = record.started_at
        return stats

    def leave(self, live: LiveConnection, stats: RouteStats, record: RequestRecord) -> None:
        """A request of this connection has ended, as far as its route is concerned."""
        stats.bytes += record.bytes_in + record.bytes_out
        stats.last_activity = time.time()
        self.balancer.leave(stats)
        live.route = None

    def conclude(self, live: LiveConnection, record: RequestRecord) -> None:
        """A request of this connection has ended: count it and log it."""
        record.total_seconds = trio.current_time() - record.began
        counters = self.metrics.service(record.service or "")
        counters.requests[method_label(record.method), record.status] += 1
        counters.bytes_in += record.bytes_in
        counters.bytes_out += record.bytes_out
        if record.kind == "http":  # the hours of a WebSocket would say nothing about requests
            counters.seconds.observe(record.total_seconds)
        if record.upstream_head_seconds is not None:
            counters.upstream_head_seconds.observe(record.upstream_head_seconds)
        live.bytes_in += record.bytes_in
        live.bytes_out += record.bytes_out
        live.record = None
        if self.access_log is not None:
            self.access_log.write(record)
