"""GET /metrics: a scrape of this worker."""

from __future__ import annotations

import time
from collections import Counter

import trio
from quart import Response

from trioproxy import __version__
from trioproxy.control.messages import Report
from trioproxy.control.worker import Worker
from trioproxy.management.backends import count_states
from trioproxy.management.calls import Answer, Call, ask
from trioproxy.observe.exposition import CONTENT_TYPE, Gauges, ProviderGauge, render


class MetricsCalls:
    """The call /metrics."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._rendering = trio.CapacityLimiter(1)

    async def metrics(self) -> Response:
        """Get all metrics in the Prometheus text format."""
        report = await ask(self._worker.report)
        gauges = gauges_of(self._worker, report, now=time.time())
        text = await trio.to_thread.run_sync(render, report.metrics, gauges, limiter=self._rendering)
        return Response(text, 200, content_type=CONTENT_TYPE)


def gauges_of(worker: Worker, report: Report, *, now: float) -> Gauges:
    """What the worker knows beyond its forwarders' counters. `now` is in seconds since the epoch."""
    table = worker.catalog.table
    forwarders = worker.forwarders()
    health = worker.health_figures()
    certificates: dict[str, float] = {}
    for certificate in worker.certificates():
        for name in certificate.names:
            # Two certificates may bear one name (RSA and ECDSA); the one that expires first is the one to watch.
            certificates[name] = min(certificate.not_after, certificates.get(name, certificate.not_after))
    return Gauges(
        version=__version__,
        routes=len(table.routes),
        table_version=table.version,
        backends=count_states(table, report),
        providers={
            provider.name: ProviderGauge(
                up=provider.up,
                sync_age=None if provider.synced_at is None else max(0.0, now - provider.synced_at),
            )
            for provider in worker.providers()
        },
        certificates=certificates,
        forwarders=Counter(forwarder.state for forwarder in forwarders),
        forwarder_restarts=sum(forwarder.restarts for forwarder in forwarders),
        health_targets=health.targets,
        health_checks=health.checks,
        health_checks_late=health.late,
        backend_changes=health.changes,
        ejections=health.ejections,
    )


def metrics_calls(worker: Worker, *, public: bool) -> tuple[Call, ...]:
    """The call /metrics."""
    return (
        Call(
            "GET",
            "/metrics",
            MetricsCalls(worker).metrics,
            "health",
            {200: Answer("The metrics, in text format 0.0.4.", media="text/plain")},
            {503: "`overloaded`: the worker is too slow."},
            public=public,
        ),
    )
