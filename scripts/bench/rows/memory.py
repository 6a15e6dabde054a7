"""Resident memory: of idle connections, and while much passes through."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from bench.backends.bodies import BLOCK_BYTES
from bench.bench import ANSWER, Bench
from bench.contenders import AIOHTTP, CADDY, CHP, NGINX, TRIOPROXY
from bench.errors import BenchError
from bench.peer import Proxy, free_port, path, start
from bench.process import holding, run_to_end
from bench.result import Metric, Result, Sample, Target

CONNECTIONS = 1000
PER_CONNECTION = "kib_per_connection"
GROWTH = "mib"
METRICS = (Metric(PER_CONNECTION, "KiB each"),)
RELAY = "trioproxy relay"
MESSAGE = "trioproxy message"
_REQUEST = f"GET {path('http')} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


async def idle_connections(bench: Bench) -> Result:
    """Client connections that wait for their next request, over what the proxy had with one of them."""
    peers = [TRIOPROXY] + ([AIOHTTP, NGINX, CADDY, CHP] if bench.plan.full else [])
    samples: dict[str, list[Sample]] = {}
    async with bench.answering_backend() as backend:
        for peer in peers:
            bench.progress(peer.name)
            async with bench.proxies([peer], backend=backend) as proxies:
                proxy = proxies[peer.name]
                async with _kept_connections(proxy, 1):
                    before = proxy.process.memory()
                    async with _kept_connections(proxy, CONNECTIONS):
                        samples[peer.name] = [_per_connection(proxy, before)]
    title = f"memory per idle kept connection, {CONNECTIONS} of them"
    targets = (Target(TRIOPROXY.name, None, PER_CONNECTION, 14, 8, below=True),)
    return Result("memory-idle-http", title, (TRIOPROXY.name,), METRICS, samples, targets)


@asynccontextmanager
async def _kept_connections(proxy: Proxy, count: int) -> AsyncGenerator[None]:
    streams: list[trio.SocketStream] = []
    try:
        for _ in range(count):
            stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
            streams.append(stream)
            await stream.send_all(_REQUEST)
            received = b""
            while not received.endswith(ANSWER.encode()):
                data = await stream.receive_some()
                if not data:
                    raise BenchError(f"{proxy.peer.name} ended a connection after {received!r}")
                received += data
        yield
    finally:
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def idle_websockets(bench: Bench) -> Result:
    """WebSockets that have carried one message and now nothing, each with its connection to the backend."""
    contenders = {RELAY: (TRIOPROXY, "relay")}
    if bench.plan.full:
        contenders |= {MESSAGE: (TRIOPROXY, "message")}
        contenders |= {peer.name: (peer, "http") for peer in (AIOHTTP, NGINX, CADDY, CHP)}
    samples: dict[str, list[Sample]] = {}
    for name, (peer, service) in contenders.items():
        bench.progress(name)
        echo = free_port()
        async with start(peer, backend=echo, folder=bench.folder, cores=bench.cores.proxy) as proxy:
            async with holding(_hold(bench, proxy, service, echo, 1), cores=bench.cores.load):
                before = proxy.process.memory()
            async with holding(_hold(bench, proxy, service, echo, CONNECTIONS), cores=bench.cores.load):
                samples[name] = [_per_connection(proxy, before)]
    title = f"memory per idle WebSocket, {CONNECTIONS} of them"
    subjects = (RELAY, MESSAGE) if bench.plan.full else (RELAY,)
    targets = (Target(RELAY, None, PER_CONNECTION, 24, 16, below=True),)
    return Result("memory-idle-websocket", title, subjects, METRICS, samples, targets)


def _hold(bench: Bench, proxy: Proxy, service: str, echo: int, count: int) -> list[str]:
    return bench.module(
        "bench.load.websocket",
        *("hold", "--connect", str(proxy.port), "--path", path(service)),
        *("--echo", str(echo), "--connections", str(count)),
    )


def _per_connection(proxy: Proxy, before: int) -> Sample:
    return {PER_CONNECTION: (proxy.process.memory() - before) / 1024 / CONNECTIONS}


async def growth(bench: Bench) -> Result:
    """The most that a proxy takes in addition while a body passes; every byte of it is checked."""
    samples: dict[str, list[Sample]] = {}
    async with bench.bodies_backend() as backend:
        for peer in [TRIOPROXY] + ([AIOHTTP] if bench.plan.full else []):
            async with bench.proxies([peer], backend=backend) as proxies:
                proxy = proxies[peer.name]
                await _carry(bench, proxy, "download", BLOCK_BYTES)
                samples[f"{peer.name} download"] = [await _grow(bench, proxy, "download")]
                samples[f"{peer.name} upload"] = [await _grow(bench, proxy, "upload")]
    return Result(
        "memory-growth",
        f"growth of memory while {bench.plan.large_mib} MiB pass",
        (),
        (Metric(GROWTH, "MiB", compared=False),),
        samples,
        tuple(Target(f"{TRIOPROXY.name} {what}", None, GROWTH, 32, 8, below=True) for what in ("download", "upload")),
    )


async def _grow(bench: Bench, proxy: Proxy, what: str) -> Sample:
    bench.progress(f"{proxy.peer.name}: {what}")
    before = proxy.process.memory()
    proxy.process.forget_peak()
    await _carry(bench, proxy, what, bench.plan.large_mib * BLOCK_BYTES)
    return {GROWTH: (proxy.process.peak_memory() - before) / 2**20}


async def _carry(bench: Bench, proxy: Proxy, what: str, size: int) -> None:
    command = bench.module(
        "bench.load.body",
        *(what, "--connect", str(proxy.port), "--path", f"{path('http')}/length/{size}"),
        *("--bytes", str(size), "--verify"),
    )
    await run_to_end(command, cores=bench.cores.load)
