from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from trioproxy.observe.exposition import Gauges, ProviderGauge, render
from trioproxy.observe.metrics import MAX_SERVICES, OTHER, SECONDS_BUCKETS, Metrics

GAUGES = Gauges(version="1.2.3", routes=5, table_version=7)


def samples(metrics: Metrics, gauges: Gauges = GAUGES) -> Iterator[Sample]:
    for family in text_string_to_metric_families(render(metrics, gauges).decode()):
        yield from family.samples


def value(found: Iterator[Sample], name: str, /, **labels: str) -> float:
    (sample,) = (sample for sample in found if sample.name == name and sample.labels == labels)
    return sample.value


def busy(services: int = 1) -> Metrics:
    metrics = Metrics()
    for number in range(services):
        service = metrics.service(f"service-{number}")
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", OTHER):
            for status in (200, 206, 304, 404, 502):
                service.requests[method, status] += 1
        service.seconds.observe(0.2)
        service.upstream_head_seconds.observe(1000)
        service.retries["connect_failed"] += 2
        service.bytes_in, service.bytes_out, service.websockets, service.tunnels = 1, 2, 3, 4
    metrics.service("").requests["GET", 404] += 1
    metrics.errors["no_route"] += 1
    metrics.connections["web"] += 9
    metrics.tls_handshakes["failed"] += 1
    metrics.pool["idle"] += 6
    metrics.accept_pauses = 1
    metrics.access_log_dropped = 2
    return metrics


FULL = Gauges(
    version="1.2.3",
    routes=5,
    table_version=7,
    backends={"healthy": 3, "draining": 1},
    providers={"store": ProviderGauge(up=True, sync_age=1.5), "file": ProviderGauge(up=False, sync_age=None)},
    certificates={"a.example": 2_000_000_000.0},
    forwarders={"ready": 2},
    forwarder_restarts=4,
    backend_changes={"unhealthy": 6},
    health_targets={"unknown": 8},
    health_checks={"failed": 9},
    health_checks_late=10,
    ejections=11,
)


def test_every_counter_of_a_service_is_told() -> None:
    def told(name: str, /, **labels: str) -> float:
        return value(samples(busy()), name, service="service-0", **labels)

    assert told("trioproxy_requests_total", method="GET", status="404") == 1
    assert told("trioproxy_retries_total", reason="connect_failed") == 2
    assert told("trioproxy_bytes_total", direction="in") == 1
    assert told("trioproxy_bytes_total", direction="out") == 2
    assert told("trioproxy_websockets") == 3
    assert told("trioproxy_tunnels") == 4


def test_requests_without_a_route_have_an_empty_service() -> None:
    assert value(samples(busy()), "trioproxy_requests_total", service="", method="GET", status="404") == 1


def test_counters_of_the_whole_worker_are_told() -> None:
    metrics = busy()
    assert value(samples(metrics), "trioproxy_errors_total", code="no_route") == 1
    assert value(samples(metrics), "trioproxy_connections", listener="web") == 9
    assert value(samples(metrics), "trioproxy_accept_pauses_total") == 1
    assert value(samples(metrics), "trioproxy_access_log_dropped_total") == 2


def test_gauges_are_told() -> None:
    def told(name: str, /, **labels: str) -> float:
        return value(samples(Metrics(), FULL), name, **labels)

    assert told("trioproxy_build_info", version="1.2.3") == 1
    assert told("trioproxy_routes") == 5
    assert told("trioproxy_table_version") == 7
    assert told("trioproxy_provider_up", provider="store") == 1
    assert told("trioproxy_provider_up", provider="file") == 0
    assert told("trioproxy_provider_sync_age_seconds", provider="store") == 1.5
    assert told("trioproxy_certificate_expiry_timestamp_seconds", name="a.example") == 2_000_000_000
    assert told("trioproxy_forwarder_restarts_total") == 4
    assert told("trioproxy_backend_changes_total", state="unhealthy") == 6
    assert told("trioproxy_health_targets", state="unknown") == 8
    assert told("trioproxy_health_checks_total", result="failed") == 9
    assert told("trioproxy_health_checks_late_total") == 10
    assert told("trioproxy_ejections_total") == 11


def test_a_provider_that_was_never_read_has_no_age() -> None:
    names = [s.labels for s in samples(Metrics(), FULL) if s.name == "trioproxy_provider_sync_age_seconds"]
    assert names == [{"provider": "store"}]


def test_every_state_is_there_from_the_start() -> None:
    found = list(samples(Metrics()))
    states = {
        (sample.name, *sample.labels.values()): sample.value
        for sample in found
        if sample.labels.keys() & {"state", "result"}
    }
    assert states == {
        ("trioproxy_backends", "healthy"): 0,
        ("trioproxy_backends", "unhealthy"): 0,
        ("trioproxy_backends", "ejected"): 0,
        ("trioproxy_backends", "draining"): 0,
        ("trioproxy_backends", "disabled"): 0,
        ("trioproxy_backend_changes_total", "healthy"): 0,
        ("trioproxy_backend_changes_total", "unhealthy"): 0,
        ("trioproxy_backend_changes_total", "ejected"): 0,
        ("trioproxy_backend_changes_total", "draining"): 0,
        ("trioproxy_backend_changes_total", "disabled"): 0,
        ("trioproxy_health_targets", "healthy"): 0,
        ("trioproxy_health_targets", "unhealthy"): 0,
        ("trioproxy_health_targets", "unknown"): 0,
        ("trioproxy_health_checks_total", "ok"): 0,
        ("trioproxy_health_checks_total", "failed"): 0,
        ("trioproxy_health_checks_total", "undecided"): 0,
        ("trioproxy_pool_connections", "idle"): 0,
        ("trioproxy_pool_connections", "active"): 0,
        ("trioproxy_pool_connections", "dialing"): 0,
        ("trioproxy_pool_connections", "waiting"): 0,
        ("trioproxy_tls_handshakes_total", "ok"): 0,
        ("trioproxy_tls_handshakes_total", "failed"): 0,
        ("trioproxy_tls_handshakes_total", "timeout"): 0,
        ("trioproxy_forwarders", "starting"): 0,
        ("trioproxy_forwarders", "ready"): 0,
        ("trioproxy_forwarders", "draining"): 0,
        ("trioproxy_forwarders", "dead"): 0,
    }


def test_a_state_that_is_new_is_told_too() -> None:
    metrics = Metrics()
    metrics.pool["parked"] += 1
    assert value(samples(metrics), "trioproxy_pool_connections", state="parked") == 1


@pytest.mark.parametrize("name", ["trioproxy_request_seconds", "trioproxy_upstream_head_seconds"])
def test_histograms_are_cumulative_and_end_with_infinity(name: str) -> None:
    metrics = Metrics()
    service = metrics.service("s")
    histogram = service.seconds if name == "trioproxy_request_seconds" else service.upstream_head_seconds
    for seconds in (0.001, 0.005, 0.2, 0.2, 1000):
        histogram.observe(seconds)
    found = [sample for sample in samples(metrics) if sample.name.startswith(name)]
    buckets = {sample.labels["le"]: sample.value for sample in found if sample.name.endswith("_bucket")}
    assert [float(bound) for bound in buckets] == [*SECONDS_BUCKETS, float("inf")]
    assert (buckets["0.005"], buckets["0.1"], buckets["0.25"], buckets["300.0"], buckets["+Inf"]) == (2, 2, 4, 4, 5)
    assert value(iter(found), f"{name}_count", service="s") == 5
    assert value(iter(found), f"{name}_sum", service="s") == pytest.approx(1000.406)


def test_label_values_are_escaped() -> None:
    odd = 'a"b\\c\nd\u00fc'
    metrics = Metrics()
    metrics.errors[odd] += 1
    assert value(samples(metrics), "trioproxy_errors_total", code=odd) == 1


def test_figures_of_this_process_are_there() -> None:
    names = {sample.name for sample in samples(Metrics())}
    assert names >= {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"}


def test_no_series_is_told_twice() -> None:
    metrics = busy(MAX_SERVICES + 50)
    metrics.merge(busy(3))
    series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples(metrics, FULL)]
    assert len(series) == len(set(series))


@pytest.mark.parametrize(
    ("metrics", "gauges"), [(Metrics(), GAUGES), (busy(3), FULL)], ids=["just started", "all there is"]
)
def test_promtool_finds_nothing_to_say(metrics: Metrics, gauges: Gauges) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "CI has to have promtool (Debian package prometheus)"
        pytest.skip("promtool is not installed (Debian package prometheus)")
    text = render(metrics, gauges)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_status_beyond_all_classes_is_counted_as_other() -> None:
    metrics = Metrics()
    for status in (0, 199, 599, 600, 777, 999):
        metrics.service("s").requests["GET", status] += 1
    found = [one for one in samples(metrics) if one.name == "trioproxy_requests_total"]
    assert {one.labels["status"]: one.value for one in found} == {"0": 1, "199": 1, "599": 1, OTHER: 3}
