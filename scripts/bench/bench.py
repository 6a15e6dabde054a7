"""The benchmark as a whole: how long, with whom, where."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.certificate import tls_listen
from bench.machine import Cores
from bench.peer import Peer, Proxy, free_port, start
from bench.process import running

_BEGAN = time.perf_counter()
ANSWER = "".join(chr(ord("a") + i % 26) for i in range(100))
"""What the backend of the request rows answers: 100 bytes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How thoroughly to measure."""

    name: str
    rounds: int
    seconds: int  # of one measurement; wrk knows no less than one
    warm_up: int  # seconds, of each contender
    downloads: int  # of 100 MB each, in one measurement
    arrivals: float  # seconds of one measurement of latency
    ping_pong: float  # seconds of one measurement of WebSockets
    large_mib: int  # of the bodies under which memory is watched
    changes: int  # of a route, in one round
    starts: int  # of a worker with many routes
    full: bool  # all peers and rows, else those that have a target


QUICK = Plan(
    "quick",
    rounds=3,
    seconds=1,
    warm_up=1,
    downloads=1,
    arrivals=1.0,
    ping_pong=0.4,
    large_mib=256,
    changes=15,
    starts=1,
    full=False,
)
FULL = Plan(
    "full",
    rounds=5,
    seconds=3,
    warm_up=1,
    downloads=10,
    arrivals=5.0,
    ping_pong=3.0,
    large_mib=1024,
    changes=50,
    starts=3,
    full=True,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark. `folder` is temporary."""

    plan: Plan
    cores: Cores
    folder: Path

    def progress(self, text: str) -> None:
        """Tell whoever waits, with the seconds since the beginning."""
        print(f"{time.perf_counter() - _BEGAN:5.0f}  {text}", file=sys.stderr, flush=True)

    @asynccontextmanager
    async def proxies(self, peers: Sequence[Peer], *, backend: int) -> AsyncGenerator[dict[str, Proxy]]:
        """All of them in front of one backend, side by side on the proxies' core; idle ones cost next to nothing."""
        async with AsyncExitStack() as stack:
            started: dict[str, Proxy] = {}
            for peer in peers:
                proxy = start(peer, backend=backend, folder=self.folder, cores=self.cores.proxy)
                started[peer.name] = await stack.enter_async_context(proxy)
            yield started

    @asynccontextmanager
    async def answering_backend(self, *, tls: bool = False, port: int | None = None) -> AsyncGenerator[int]:
        """nginx with a bare answer; its port, which is any free one if none is given."""
        port = port or free_port()
        own = self.folder / f"backend-{port}"
        own.mkdir()
        listen = tls_listen(own, port) if tls else f"listen 127.0.0.1:{port};"
        template = (Path(__file__).parent / "backends/nginx.conf").read_text(encoding="utf-8")
        for name, value in (("folder", str(own)), ("listen", listen), ("answer", ANSWER)):
            template = template.replace(f"@{name}@", value)
        configuration = own / "nginx.conf"
        configuration.write_text(template, encoding="utf-8")
        argv = ["nginx", "-c", str(configuration)]
        async with running(f"backend-{port}", argv, cores=self.cores.load, folder=own, port=port):
            yield port

    @asynccontextmanager
    async def bodies_backend(self) -> AsyncGenerator[int]:
        """The server of large bodies; its port."""
        port = free_port()
        argv = self.module("bench.backends.bodies", str(port))
        async with running(f"backend-{port}", argv, cores=self.cores.load, folder=self.folder, port=port):
            yield port

    def module(self, name: str, *arguments: str) -> list[str]:
        """The command that runs a module of ours."""
        return [sys.executable, "-P", "-m", name, *arguments]
