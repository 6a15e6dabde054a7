"""How much later an answer comes because there is a proxy, when that proxy has time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import median

from bench import contenders as by
from bench.answers import check_all
from bench.bench import ANSWER, Bench
from bench.load import wrk
from bench.measure import Measurement, interleave
from bench.peer import Proxy, path
from bench.process import run_to_end
from bench.result import Metric, Result, Sample, Target

LOAD = 0.3
DIRECT = "no proxy"
SERVICE = "http"
TOTAL_P50, TOTAL_P99 = "p50", "p99"
ADDED_P50, ADDED_P99 = "added_p50", "added_p99"
LATE_P50, LATE_P99, WAITED = "late_p50", "late_p99", "waited"
LEAST_ADDED = 1.0
"""Microseconds. A proxy cannot add less than that; where the difference says so, it is noise."""
METRICS = (
    Metric(ADDED_P50, "added p50, µs"),
    Metric(ADDED_P99, "added p99, µs"),
    Metric(TOTAL_P50, "p50, µs", compared=False),
    Metric(TOTAL_P99, "p99, µs", compared=False),
)
TARGETS = (
    Target(by.TRIOPROXY.name, by.CADDY.name, ADDED_P50, 1.0, 0.7, below=True),
    Target(by.TRIOPROXY.name, by.CADDY.name, ADDED_P99, 1.5, 1.0, below=True),
)


async def added_latency(bench: Bench) -> Result:
    """All get the same requests at the same times: 30 % of what the slowest of them can carry."""
    peers = [by.TRIOPROXY, by.CADDY] + ([by.NGINX, by.AIOHTTP_UVLOOP] if bench.plan.full else [])
    async with bench.answering_backend() as backend, bench.proxies(peers, backend=backend) as proxies:
        await check_all(proxies, SERVICE, wrk.read_headers(wrk.BROWSER))
        capacities = await _capacities(bench, proxies)
        rate = LOAD * min(capacities.values())
        contenders = {
            DIRECT: _measurement(bench, backend, rate),
            **{name: _measurement(bench, proxy.port, rate) for name, proxy in proxies.items()},
        }
        samples = await interleave(contenders, rounds=bench.plan.rounds, progress=bench.progress)
    for name in proxies:
        for direct, sample in zip(samples[DIRECT], samples[name], strict=True):
            sample[ADDED_P50] = max(LEAST_ADDED, sample[TOTAL_P50] - direct[TOTAL_P50])
            sample[ADDED_P99] = max(LEAST_ADDED, sample[TOTAL_P99] - direct[TOTAL_P99])
    result = Result(
        "latency",
        f"added latency at {LOAD:.0%} load, 12 browser headers, random arrivals, counted from the arrival",
        (by.TRIOPROXY.name,),
        METRICS,
        samples,
        TARGETS,
        frozenset({DIRECT}),
    )
    _note(result, rate, capacities)
    return result


async def _capacities(bench: Bench, proxies: Mapping[str, Proxy]) -> dict[str, float]:
    """Requests per second that each can carry; that warms them up too."""
    found: dict[str, float] = {}
    for name, proxy in proxies.items():
        bench.progress(f"capacity: {name}")
        load = await wrk.request(
            proxy.url(SERVICE),
            headers=wrk.BROWSER,
            body=ANSWER,
            seconds=bench.plan.seconds,
            cores=bench.cores.load,
        )
        found[name] = load.requests / load.seconds
    return found


def _measurement(bench: Bench, port: int, rate: float) -> Measurement:
    command = bench.module(
        "bench.load.arrivals",
        *("--connect", str(port), "--path", path(SERVICE), "--rate", str(rate)),
        *("--seconds", str(bench.plan.arrivals), "--headers", str(wrk.BROWSER), "--answer", ANSWER),
    )

    async def measure() -> Sample:
        found: dict[str, float] = json.loads(await run_to_end(command, cores=bench.cores.load))
        micro = {key: found[key] * 1e6 for key in (TOTAL_P50, TOTAL_P99, LATE_P50, LATE_P99)}
        return micro | {WAITED: found[WAITED], "requests": found["requests"]}

    return measure


def _note(result: Result, rate: float, capacities: Mapping[str, float]) -> None:
    carried = ", ".join(f"{name} {rate / capacity:.0%}" for name, capacity in capacities.items())
    result.notes.append(f"{rate:.0f} requests/s for all, of what each can carry: {carried}")
    for name in result.samples:
        late_p50, late_p99 = median(result.values(name, LATE_P50)), median(result.values(name, LATE_P99))
        result.notes.append(f"{name}: the load generator was late by {late_p50:.0f} µs (p50), {late_p99:.0f} µs (p99)")
        if waited := sum(result.values(name, WAITED)):
            share = waited / sum(result.values(name, "requests"))
            result.notes.append(f"{name}: {share:.1%} of the requests found all connections busy")
        if LEAST_ADDED in (*result.values(name, ADDED_P50), *result.values(name, ADDED_P99)):
            result.notes.append(f"{name}: what it adds is lost in noise in some rounds, and counts as {LEAST_ADDED} µs")
