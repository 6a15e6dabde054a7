"""Counters and gauges in the Prometheus text format, version 0.0.4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trioproxy.observe.metrics import OTHER, SECONDS_BUCKETS, Histogram, Metrics, ServiceCounters

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""What `render` produces, whatever the scraper would like better; every scraper reads it."""

BACKEND_STATES = ("healthy", "unhealthy", "ejected", "draining", "disabled")
TARGET_STATES = ("healthy", "unhealthy", "unknown")
CHECK_RESULTS = ("ok", "failed", "undecided")
POOL_STATES = ("idle", "active", "dialing", "waiting")
FORWARDER_STATES = ("starting", "ready", "draining", "dead")
LAST_STATUS = 599
HANDSHAKE_RESULTS = ("ok", "failed", "timeout")

_BOUNDS = (*(str(bound) for bound in SECONDS_BUCKETS), "+Inf")
_PROCESS = ProcessCollector(registry=None)


@dataclass(frozen=True, slots=True)
class ProviderGauge:
    """One source of routes. `sync_age` is in seconds since its last good read; None = there was none."""

    up: bool
    sync_age: float | None


@dataclass(frozen=True, slots=True)
class Gauges:
    """What holds now and is no forwarder's counter."""

    version: str
    routes: int
    table_version: int
    backends: Mapping[str, int] = field(default_factory=dict[str, int])  # by state
    providers: Mapping[str, ProviderGauge] = field(default_factory=dict[str, ProviderGauge])  # by name
    certificates: Mapping[str, float] = field(default_factory=dict[str, float])  # name -> expiry, epoch seconds
    forwarders: Mapping[str, int] = field(default_factory=dict[str, int])  # by state
    forwarder_restarts: int = 0
    health_targets: Mapping[str, int] = field(default_factory=dict[str, int])  # by state
    health_checks: Mapping[str, int] = field(default_factory=dict[str, int])  # by result
    health_checks_late: int = 0
    backend_changes: Mapping[str, int] = field(default_factory=dict[str, int])  # by new state
    ejections: int = 0


def render(metrics: Metrics, gauges: Gauges) -> bytes:
    """Write all metrics of `docs/management-api.md`, and `process_*` of this process, as one scrape.

    Takes some 100 ms with 200 busy services: call it in a thread, with figures that nobody else changes.
    """
    return generate_latest(_Scrape(metrics, gauges))


class _Scrape(Collector):
    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from _traffic(self._metrics)
        yield from _plumbing(self._metrics)
        yield from _state(self._gauges)
        yield from _health(self._gauges)
        yield from _PROCESS.collect()


def _traffic(metrics: Metrics) -> Iterator[Metric]:
    services = metrics.services
    requests = CounterMetricFamily(
        "trioproxy_requests",
        "Requests that ended, by service, method and status of the answer.",
        labels=("service", "method", "status"),
    )
    retries = CounterMetricFamily(
        "trioproxy_retries",
        "Second tries of requests, by service and by the error code that led to them.",
        labels=("service", "reason"),
    )
    denied = CounterMetricFamily(
        "trioproxy_retries_denied",
        "Second tries of requests that did not take place because the retry budget was exhausted, by service.",
        labels=("service",),
    )
    moved = CounterMetricFamily(
        "trioproxy_bytes",
        "Bytes of bodies and of WebSocket and tunnel payload; in = from clients, out = to clients.",
        labels=("service", "direction"),
    )
    for name, service in services.items():
        for (method, status), count in _by_status(service.requests).items():
            requests.add_metric((name, method, status), count)
        for reason, count in service.retries.items():
            retries.add_metric((name, reason), count)
        denied.add_metric((name,), service.retries_denied)
        moved.add_metric((name, "in"), service.bytes_in)
        moved.add_metric((name, "out"), service.bytes_out)
    yield requests
    yield _histogram(
        "trioproxy_request_seconds",
        "Time from the first byte of a request to the last byte of its answer.",
        services,
        lambda service: service.seconds,
    )
    yield _histogram(
        "trioproxy_upstream_head_seconds",
        "Time from handing a request to a backend to the head of its response.",
        services,
        lambda service: service.upstream_head_seconds,
    )
    yield moved
    yield _gauge(
        "trioproxy_websockets",
        "WebSocket connections that are open now.",
        "service",
        ((name, service.websockets) for name, service in services.items()),
    )
    yield _gauge(
        "trioproxy_tunnels",
        "Upgraded connections other than WebSockets that are open now.",
        "service",
        ((name, service.tunnels) for name, service in services.items()),
    )
    yield retries
    yield denied
    yield _counter("trioproxy_errors", "Requests that met an error, by its code.", "code", metrics.errors.items())


def _by_status(requests: Mapping[tuple[str, int], int]) -> Counter[tuple[str, str]]:
    """Counts with the status as a label; what no class of RFC 9110 §15 has, backends may say at will, is "other"."""
    found = Counter[tuple[str, str]]()
    for (method, status), count in requests.items():
        found[method, str(status) if status <= LAST_STATUS else OTHER] += count
    return found


def _plumbing(metrics: Metrics) -> Iterator[Metric]:
    yield _gauge(
        "trioproxy_connections", "Client connections that are open now.", "listener", metrics.connections.items()
    )
    yield _gauge(
        "trioproxy_pool_connections",
        "Connections to backends now: idle, active or dialing; waiting = requests that wait for one.",
        "state",
        _all_of(POOL_STATES, metrics.pool),
    )
    yield _counter(
        "trioproxy_tls_handshakes",
        "TLS handshakes with clients, by how they ended.",
        "result",
        _all_of(HANDSHAKE_RESULTS, metrics.tls_handshakes),
    )
    yield CounterMetricFamily(
        "trioproxy_accept_pauses",
        "Times accepting paused: files or memory ran out, or limits.connections was reached.",
        metrics.accept_pauses,
    )
    yield CounterMetricFamily(
        "trioproxy_access_log_dropped",
        "Access log lines that were dropped because the log was written too slowly.",
        metrics.access_log_dropped,
    )


def _state(gauges: Gauges) -> Iterator[Metric]:
    build = GaugeMetricFamily("trioproxy_build_info", "Always 1; the version is a label.", labels=("version",))
    build.add_metric((gauges.version,), 1)
    yield build
    yield GaugeMetricFamily("trioproxy_routes", "Routes in the table.", gauges.routes)
    yield GaugeMetricFamily("trioproxy_table_version", "Version of the routing table.", gauges.table_version)
    yield _gauge(
        "trioproxy_backends", "Backends of all routes, by state.", "state", _all_of(BACKEND_STATES, gauges.backends)
    )
    yield _gauge(
        "trioproxy_provider_up",
        "Whether the last read of this source of routes succeeded (1) or failed (0).",
        "provider",
        ((name, int(provider.up)) for name, provider in gauges.providers.items()),
    )
    yield _gauge(
        "trioproxy_provider_sync_age_seconds",
        "Time since the last good read of this source of routes; absent before the first one.",
        "provider",
        ((name, provider.sync_age) for name, provider in gauges.providers.items() if provider.sync_age is not None),
    )
    yield _gauge(
        "trioproxy_certificate_expiry_timestamp_seconds",
        "When the certificate for this name expires, in seconds since the epoch.",
        "name",
        gauges.certificates.items(),
    )
    yield _gauge("trioproxy_forwarders", "Forwarders, by state.", "state", _all_of(FORWARDER_STATES, gauges.forwarders))
    yield CounterMetricFamily(
        "trioproxy_forwarder_restarts",
        "Times a forwarder was started again after it died.",
        gauges.forwarder_restarts,
    )


def _health(gauges: Gauges) -> Iterator[Metric]:
    yield _counter(
        "trioproxy_backend_changes",
        "Changes of the state of a backend of a route, by what it became.",
        "state",
        _all_of(BACKEND_STATES, gauges.backend_changes),
    )
    yield CounterMetricFamily(
        "trioproxy_ejections", "Ejections of backends by forwarders, for what requests met.", gauges.ejections
    )
    yield _gauge(
        "trioproxy_health_targets",
        "Addresses that are checked, each counted once for all routes that share it and its way of checking.",
        "state",
        _all_of(TARGET_STATES, gauges.health_targets),
    )
    yield _counter(
        "trioproxy_health_checks",
        "Active health checks that ended; undecided = this worker had no files or memory left for it.",
        "result",
        _all_of(CHECK_RESULTS, gauges.health_checks),
    )
    yield CounterMetricFamily(
        "trioproxy_health_checks_late",
        "Active health checks that began more than a second late, because too many were running.",
        gauges.health_checks_late,
    )


def _all_of(states: tuple[str, ...], counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Every known state, so that a series does not come and go with its count; then what else was counted."""
    for state in states:
        yield state, counts.get(state, 0)
    for state, count in counts.items():
        if state not in states:
            yield state, count


def _counter(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in values:
        family.add_metric((value,), count)
    return family


def _gauge(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for value, count in values:
        family.add_metric((value,), count)
    return family


def _histogram(
    name: str,
    text: str,
    services: Mapping[str, ServiceCounters],
    pick: Callable[[ServiceCounters], Histogram],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("service",))
    for service, counters in services.items():
        histogram = pick(counters)
        buckets = [(bound, float(count)) for bound, count in zip(_BOUNDS, accumulate(histogram.counts), strict=True)]
        family.add_metric((service,), buckets, histogram.total)
    return family
