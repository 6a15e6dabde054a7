"""Large downloads: bytes per second, and what a gigabyte costs."""

from __future__ import annotations

import json

from bench.backends.bodies import BLOCK_BYTES
from bench.bench import Bench
from bench.contenders import AIOHTTP, CADDY, HAPROXY, NGINX, TRIOPROXY
from bench.measure import CPU, SHARE, Measurement, Meter, interleave, note_limits
from bench.peer import Proxy, path
from bench.process import run_to_end
from bench.result import Metric, Result, Sample, Target

RATE = "bytes_per_second"
COST = "cpu_seconds_per_gb"
DIRECT = "no proxy"
BODY_BYTES = 96 * BLOCK_BYTES  # 100.7 MB
METRICS = (
    Metric(RATE, "bytes/s"),
    Metric(COST, "CPU s/GB"),
    Metric(SHARE, "share of its core", compared=False),
)
TARGETS = (Target(TRIOPROXY.name, NGINX.name, COST, 0.9, 0.65, below=True),)


async def known_length(bench: Bench) -> Result:
    """With Content-Length."""
    return await _measure(bench, "length")


async def chunked(bench: Bench) -> Result:
    """With chunked coding, 64 KiB a chunk."""
    return await _measure(bench, "chunked")


async def _measure(bench: Bench, coding: str) -> Result:
    peers = [TRIOPROXY, NGINX] + ([AIOHTTP, HAPROXY, CADDY] if bench.plan.full else [])
    async with bench.bodies_backend() as backend, bench.proxies(peers, backend=backend) as proxies:
        for name, proxy in proxies.items():
            bench.progress(f"check: {name}")
            await _download(bench, proxy.port, coding, "--verify")
        contenders = {
            DIRECT: _measurement(bench, backend, None, coding),
            **{name: _measurement(bench, one.port, one, coding) for name, one in proxies.items()},
        }
        samples = await interleave(contenders, rounds=bench.plan.rounds, progress=bench.progress)
    result = Result(
        f"body-{coding}",
        f"download of {BODY_BYTES / 1e6:.0f} MB, {'chunked' if coding == 'chunked' else 'known length'}",
        (TRIOPROXY.name,),
        METRICS,
        samples,
        targets=TARGETS,
        uncompared=frozenset({DIRECT}),
    )
    note_limits(result, metric=RATE, direct=DIRECT)
    return result


def _measurement(bench: Bench, port: int, proxy: Proxy | None, coding: str) -> Measurement:
    async def measure() -> Sample:
        meter = Meter(proxy.process if proxy else None, bench.cores)
        found = await _download(bench, port, coding, "--times", str(bench.plan.downloads))
        sample = meter.read() | {RATE: found["bytes"] / found["seconds"]}
        if proxy is not None:
            sample[COST] = sample[CPU] / (found["bytes"] / 1e9)
            sample[SHARE] = sample[CPU] / found["seconds"]
        return sample

    return measure


async def _download(bench: Bench, port: int, coding: str, *options: str) -> dict[str, float]:
    command = bench.module(
        "bench.load.body",
        *("download", "--connect", str(port), "--path", f"{path('http')}/{coding}/{BODY_BYTES}"),
        *("--bytes", str(BODY_BYTES), *options),
    )
    return json.loads(await run_to_end(command, cores=bench.cores.load))
