"""Counters of one forwarder: plain integers, incremented in place, read as a snapshot.

Nothing here knows Prometheus; `exposition.py` turns (sums of) snapshots into its text format. Labels are
bounded: services beyond `MAX_SERVICES` and unknown methods fold into "other"; a status has three digits, of which the
exposition folds what is above 599.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
MAX_SERVICES = 200
OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


@dataclass(slots=True)
class Histogram:
    """Counts per bucket (the last one is +Inf, not cumulative) and the sum, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.total += seconds

    def merge(self, other: Histogram) -> None:
        """Add another histogram's observations to this one."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


@dataclass(slots=True)
class ServiceCounters:
    """What is counted per service label. Looked up once per request."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])  # (method, status)
    seconds: Histogram = field(default_factory=Histogram)
    upstream_head_seconds: Histogram = field(default_factory=Histogram)
    bytes_in: int = 0  # from clients: request bodies and WebSocket or tunnel payload
    bytes_out: int = 0  # to clients
    websockets: int = 0  # open now
    tunnels: int = 0  # open now
    retries: Counter[str] = field(default_factory=Counter[str])  # by reason (error code)
    retries_denied: int = 0  # for which the budget was exhausted

    def merge(self, other: ServiceCounters) -> None:
        """Add another forwarder's figures to these."""
        self.requests.update(other.requests)
        self.seconds.merge(other.seconds)
        self.upstream_head_seconds.merge(other.upstream_head_seconds)
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.websockets += other.websockets
        self.tunnels += other.tunnels
        self.retries.update(other.retries)
        self.retries_denied += other.retries_denied


@dataclass(slots=True)
class Metrics:
    """All counters of one forwarder, or the sum over several."""

    services: dict[str, ServiceCounters] = field(default_factory=dict[str, ServiceCounters])
    errors: Counter[str] = field(default_factory=Counter[str])  # by error code
    connections: Counter[str] = field(default_factory=Counter[str])  # open now, by listener
    tls_handshakes: Counter[str] = field(default_factory=Counter[str])  # "ok", "failed", "timeout"
    accept_pauses: int = 0  # times accepting paused for want of files or memory, or at limits.connections
    pool: Counter[str] = field(default_factory=Counter[str])  # now: "idle", "active", "dialing", "waiting"
    access_log_dropped: int = 0

    def service(self, name: str) -> ServiceCounters:
        """The counters of a service label ("" = no route), made on first use; beyond the bound, "other"."""
        found = self.services.get(name)
        if found is None:
            if len(self.services) >= MAX_SERVICES:
                name = OTHER
            found = self.services.setdefault(name, ServiceCounters())
        return found

    def forget_gauges(self) -> None:
        """Keep only what counts on: nothing is open any more in a forwarder that is gone."""
        self.connections.clear()
        self.pool.clear()
        for counters in self.services.values():
            counters.websockets = counters.tunnels = 0

    def merge(self, other: Metrics) -> None:
        """Add another forwarder's figures to these."""
        for name, counters in other.services.items():
            self.service(name).merge(counters)
        self.errors.update(other.errors)
        self.connections.update(other.connections)
        self.tls_handshakes.update(other.tls_handshakes)
        self.accept_pauses += other.accept_pauses
        self.pool.update(other.pool)
        self.access_log_dropped += other.access_log_dropped


def method_label(method: str) -> str:
    """The method as a bounded label."""
    return method if method in METHODS else OTHER
