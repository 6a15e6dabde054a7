"""Requests per second on one core, small answers, kept connections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import contenders as by
from bench.answers import check_all
from bench.bench import ANSWER, Bench
from bench.load import wrk
from bench.measure import CPU, SHARE, Measurement, Meter, interleave, note_limits
from bench.peer import Peer, url
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
BROWSER_FIELDS = len(wrk.read_headers(wrk.BROWSER))


def _target(peer: Peer, must: float, stretch: float) -> Target:
    return Target(by.TRIOPROXY.name, peer.name, PER_CPU, must, stretch)


async def browser_requests(bench: Bench) -> Result:
    """As a browser sends them."""
    peers = [by.TRIOPROXY, by.TRIO_FLOOR, by.AIOHTTP_UVLOOP, by.CHP, by.CADDY, by.CADDY_QUIET, by.NGINX]
    targets = (
        _target(by.CADDY, 1.2, 1.7),
        _target(by.CADDY_QUIET, 0.9, 1.2),
        _target(by.CHP, 2.0, 3.0),
        _target(by.AIOHTTP_UVLOOP, 2.2, 3.0),
        _target(by.NGINX, 0.16, 0.25),
        _target(by.TRIO_FLOOR, 0.40, 0.60),
    )
    title = f"requests with {BROWSER_FIELDS} browser headers, 100-byte answers, one core"
    return await _measure(bench, "requests-browser", title, peers + _further(bench), wrk.BROWSER, targets)


async def bare_requests(bench: Bench) -> Result:
    """As a load generator sends them by itself: nothing but Host."""
    peers = [by.TRIOPROXY, by.TRIO_FLOOR, by.AIOHTTP_UVLOOP, by.CHP, by.CADDY, by.CADDY_QUIET, by.NGINX]
    title = "bare requests, 100-byte answers, one core"
    return await _measure(bench, "requests-bare", title, peers + _further(bench), None, ())


async def tls_requests(bench: Bench) -> Result:
    """As a browser sends them, over TLS connections that are kept."""
    peers = [by.TRIOPROXY_TLS, by.CADDY_TLS] + ([by.NGINX_TLS] if bench.plan.full else [])
    targets = (Target(by.TRIOPROXY_TLS.name, by.CADDY_TLS.name, PER_CPU, 0.7, 1.0),)
    title = f"requests over TLS with {BROWSER_FIELDS} browser headers, 100-byte answers, one core"
    return await _measure(bench, "requests-tls", title, peers, wrk.BROWSER, targets)


def _further(bench: Bench) -> list[Peer]:
    return [by.AIOHTTP, by.TRIO_H11, by.HAPROXY] if bench.plan.full else []


async def _measure(
    bench: Bench, key: str, title: str, peers: Sequence[Peer], headers: Path | None, targets: tuple[Target, ...]
) -> Result:
    """The first of the peers is ours."""
    tls = peers[0].tls
    async with (
        bench.answering_backend() as backend,
        bench.answering_backend(tls=tls) as direct,
        bench.proxies(peers, backend=backend) as proxies,
    ):
        sent = wrk.read_headers(headers) if headers else {}
        contenders = {
            DIRECT: measurement(bench, url(direct, SERVICE, tls=tls), None, headers),
            **{name: measurement(bench, one.url(SERVICE), one.process, headers) for name, one in proxies.items()},
        }
        ciphers = await check_all(proxies, SERVICE, sent)
        bench.progress("warm-up")
        for proxy in proxies.values():  # one by one: of ten at a time on one core some would starve
            await load_requests(bench, proxy.url(SERVICE), headers, bench.plan.warm_up)
        samples = await interleave(contenders, rounds=bench.plan.rounds, progress=bench.progress)
    result = Result(key, title, (peers[0].name,), METRICS, samples, targets, frozenset({DIRECT}))
    result.notes.extend(f"{name}: {cipher}" for name, cipher in ciphers.items() if cipher)
    note_limits(result, metric=RATE, direct=DIRECT)
    return result


def measurement(bench: Bench, address: str, process: Running | None, headers: Path | None) -> Measurement:
    """What is measured of one contender in one round."""

    async def measure() -> Sample:
        meter = Meter(process, bench.cores)
        load = await load_requests(bench, address, headers, bench.plan.seconds)
        sample = meter.read() | {RATE: load.requests / load.seconds}
        if process is not None:
            sample[PER_CPU] = load.requests / sample[CPU]
        return sample

    return measure


async def load_requests(bench: Bench, address: str, headers: Path | None, seconds: int) -> wrk.HttpLoad:
    """Ask for this address as the plan says. Raises BenchError."""
    return await wrk.request(address, headers=headers, body=ANSWER, seconds=seconds, cores=bench.cores.load)
