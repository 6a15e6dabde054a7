"""WebSocket messages to and fro."""

from __future__ import annotations

import json

from bench.bench import Bench
from bench.contenders import AIOHTTP, AIOHTTP_UVLOOP, CHP, NGINX, TRIOPROXY
from bench.measure import CPU, SHARE, Measurement, Meter, interleave, note_limits
from bench.peer import Proxy, free_port, path
from bench.process import run_to_end
from bench.result import Metric, Result, Sample, Target

RATE = "per_second"
PER_CPU = "per_cpu_second"
DIRECT = "no proxy"
RELAY = "trioproxy relay"
MESSAGE = "trioproxy message"
CONNECTIONS = 16
METRICS = (
    Metric(RATE, "round trips/s"),
    Metric(PER_CPU, "round trips/CPU s"),
    Metric(SHARE, "share of its core", compared=False),
)
TARGETS = (
    Target(RELAY, AIOHTTP.name, PER_CPU, 1.0, 1.2),
    Target(MESSAGE, AIOHTTP.name, PER_CPU, 0.18, 0.5),
)


async def ping_pong(bench: Bench) -> Result:
    """Each connection sends a message when the last one is back."""
    echo = free_port()
    peers = [TRIOPROXY, AIOHTTP] + ([AIOHTTP_UVLOOP, NGINX, CHP] if bench.plan.full else [])
    async with bench.proxies(peers, backend=echo) as proxies:
        ours = proxies.pop(TRIOPROXY.name)
        contenders: dict[str, Measurement] = {
            DIRECT: _measurement(bench, None, "direct", echo),
            RELAY: _measurement(bench, ours, "relay", echo),
            MESSAGE: _measurement(bench, ours, "message", echo),
            **{name: _measurement(bench, one, "http", echo) for name, one in proxies.items()},
        }
        samples = await interleave(contenders, rounds=bench.plan.rounds, progress=bench.progress)
    result = Result(
        "websocket-ping-pong",
        f"WebSocket echo, {CONNECTIONS} connections in ping-pong, 64-byte messages",
        (RELAY, MESSAGE),
        METRICS,
        samples,
        targets=TARGETS,
        uncompared=frozenset({DIRECT}),
    )
    note_limits(result, metric=RATE, direct=DIRECT)
    return result


def _measurement(bench: Bench, proxy: Proxy | None, service: str, echo: int) -> Measurement:
    command = bench.module(
        "bench.load.websocket",
        *("ping-pong", "--connect", str(proxy.port if proxy else echo), "--path", path(service)),
        *("--echo", str(echo), "--connections", str(CONNECTIONS), "--seconds", str(bench.plan.ping_pong)),
    )

    async def measure() -> Sample:
        meter = Meter(proxy.process if proxy else None, bench.cores)
        found: dict[str, float] = json.loads(await run_to_end(command, cores=bench.cores.load))
        sample = meter.read() | {RATE: found["round_trips"] / found["seconds"]}
        if proxy is not None:
            sample[PER_CPU] = found["total"] / sample[CPU]
            # Without the time in which the load generator started: nothing moved then.
            sample[SHARE] = sample[RATE] / sample[PER_CPU]
        return sample

    return measure
