"""Requests per second on one core, small answers, kept connections."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Mapping
from pathlib import Path

import trio

from bench.bench import ANSWER, Bench
from bench.errors import BenchError
from bench.load import wrk
from bench.measure import CPU, SHARE, Measurement, Meter, interleave, note_limits
from bench.peer import AIOHTTP_UVLOOP, CADDY, CADDY_QUIET, CHP, FURTHER, NEAREST, NGINX, TRIOPROXY, Proxy, path
from bench.process import Running
from bench.result import Metric, Result, Sample, Target

RATE = "per_second"
PER_CPU = "per_cpu_second"
DIRECT = "no proxy"
SERVICE = "http"
METRICS = (
    Metric(RATE, "requests/s"),
    Metric(PER_CPU, "requests/CPU s"),
    Metric(SHARE, "share of its core", compared=False),
)


def _target(peer: str, must: float, stretch: float) -> Target:
    return Target(TRIOPROXY.name, peer, PER_CPU, must, stretch)


TARGETS = (
    _target(CADDY.name, 1.2, 1.7),
    _target(CADDY_QUIET.name, 0.9, 1.2),
    _target(CHP.name, 2.0, 3.0),
    _target(AIOHTTP_UVLOOP.name, 2.2, 3.0),
    _target(NGINX.name, 0.16, 0.25),
)


async def browser_requests(bench: Bench) -> Result:
    """As a browser sends them."""
    title = f"requests with {len(wrk.read_headers(wrk.BROWSER))} browser headers, 100-byte answers, one core"
    return await _measure(bench, "requests-browser", title, wrk.BROWSER, TARGETS)


async def bare_requests(bench: Bench) -> Result:
    """As a load generator sends them by itself: nothing but Host."""
    return await _measure(bench, "requests-bare", "bare requests, 100-byte answers, one core", None, ())


async def _measure(bench: Bench, key: str, title: str, headers: Path | None, targets: tuple[Target, ...]) -> Result:
    peers = [*NEAREST, *(FURTHER if bench.plan.full else ())]
    async with bench.answering_backend() as backend, bench.proxies(peers, backend=backend) as proxies:
        sent = wrk.read_headers(headers) if headers else {}
        contenders = {
            DIRECT: _measurement(bench, f"http://127.0.0.1:{backend}{path(SERVICE)}", None, headers),
            **{name: _measurement(bench, one.url(SERVICE), one.process, headers) for name, one in proxies.items()},
        }
        await _check(proxies, sent)
        for name, proxy in proxies.items():
            bench.progress(f"warm-up: {name}")
            await _load(bench, proxy.url(SERVICE), headers, bench.plan.warm_up)
        samples = await interleave(contenders, rounds=bench.plan.rounds, progress=bench.progress)
        await _check(proxies, sent)
    result = Result(key, title, (TRIOPROXY.name,), METRICS, samples, targets=targets, uncompared=frozenset({DIRECT}))
    note_limits(result, metric=RATE, direct=DIRECT)
    return result


def _measurement(bench: Bench, url: str, process: Running | None, headers: Path | None) -> Measurement:
    async def measure() -> Sample:
        meter = Meter(process, bench.cores)
        load = await _load(bench, url, headers, bench.plan.seconds)
        sample = meter.read() | {RATE: load.requests / load.seconds}
        if process is not None:
            sample[PER_CPU] = load.requests / sample[CPU]
        return sample

    return measure


async def _load(bench: Bench, url: str, headers: Path | None, seconds: int) -> wrk.HttpLoad:
    return await wrk.request(url, headers=headers, seconds=seconds, core=bench.cores.load, body_bytes=len(ANSWER))


async def _check(proxies: Mapping[str, Proxy], headers: dict[str, str]) -> None:
    """wrk counts; here an answer is looked at."""
    for name, proxy in proxies.items():
        await trio.to_thread.run_sync(_check_one, name, proxy.port, headers)


def _check_one(name: str, port: int, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", path(SERVICE), headers=headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200 or hashlib.sha256(body).digest() != hashlib.sha256(ANSWER.encode()).digest():
        raise BenchError(f"{name} answered {response.status}, {len(body)} bytes: {body[:200]!r}")
