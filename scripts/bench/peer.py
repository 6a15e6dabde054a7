"""The proxies that are compared: how each is started, with the configuration that lies in `peers/`."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.process import Running, running

CONFIGURATIONS = Path(__file__).with_name("peers")
CHP_FOLDER = Path(__file__).parents[2] / ".venv-bench-chp"
"""Where scripts/bench/run installs configurable-http-proxy."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one proxy runs: a folder of its own, loopback ports, the port of its backend."""

    folder: Path
    port: int
    management: int
    backend: int

    def fill_in(self, template: Path) -> Path:
        """Copy a configuration into the folder, with the values in place of their @names@; the copy."""
        text = template.read_text(encoding="utf-8")
        for name in ("folder", "port", "management", "backend"):
            text = text.replace(f"@{name}@", str(getattr(self, name)))
        filled = self.folder / template.name
        filled.write_text(text, encoding="utf-8")
        return filled


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to proxy. `says` describes it in the report; `ready` is what it prints when it can be used."""

    name: str
    says: str
    command: Callable[[Place], Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    ready: bytes = b""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A peer that runs."""

    peer: Peer
    process: Running
    port: int

    def url(self, service: str) -> str:
        """The address of the backend through this proxy. trioproxy routes by the service, the others ignore it."""
        return f"http://127.0.0.1:{self.port}{path(service)}"


def path(service: str) -> str:
    """A path as Jupyter has them, behind trioproxy's prefix."""
    return f"/bench/{service}/api/contents/notebooks"


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@asynccontextmanager
async def start(peer: Peer, *, backend: int, folder: Path, core: int) -> AsyncGenerator[Proxy]:
    """Run the peer in front of the backend while inside. Raises BenchError."""
    own = folder / f"{peer.name.replace(' ', '-')}-{backend}"
    own.mkdir()
    place = Place(own, free_port(), free_port(), backend)
    argv = peer.command(place)
    environment = {"HOME": str(own), "XDG_CONFIG_HOME": str(own), "XDG_DATA_HOME": str(own), **peer.environment}
    async with running(
        peer.name, argv, core=core, folder=own, port=place.port, ready=peer.ready, environment=environment
    ) as process:
        yield Proxy(peer, process, place.port)


def _trioproxy(place: Place) -> list[str]:
    return [sys.executable, "-P", "-m", "trioproxy", "run", "-c", str(place.fill_in(CONFIGURATIONS / "trioproxy.toml"))]


def _python(script: str, *arguments: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [sys.executable, str(CONFIGURATIONS / script), str(place.port), str(place.backend), *arguments]

    return command


def _configured(template: str, *argv: str) -> Callable[[Place], list[str]]:
    """The command, and the configuration file as its last argument."""
    return lambda place: [*argv, str(place.fill_in(CONFIGURATIONS / template))]


def _chp(place: Place) -> list[str]:
    return [
        str(CHP_FOLDER / "node_modules/.bin/configurable-http-proxy"),
        *("--ip", "127.0.0.1", "--port", str(place.port)),
        *("--api-ip", "127.0.0.1", "--api-port", str(place.management)),
        *("--default-target", f"http://127.0.0.1:{place.backend}"),
    ]


TRIOPROXY = Peer(
    "trioproxy", "default configuration, access log in a file, metrics", _trioproxy, ready=b"trioproxy ready:"
)
AIOHTTP = Peer("aiohttp", "server and client session on asyncio, no log", _python("aiohttp_proxy.py"))
AIOHTTP_UVLOOP = Peer("aiohttp uvloop", "the same on uvloop", _python("aiohttp_proxy.py", "uvloop"))
TRIO_H11 = Peer("trio h11", "straightforward, h11 on both sides, no log", _python("trio_h11_proxy.py"))
NGINX = Peer("nginx", "one process, access log in a file", _configured("nginx.conf", "nginx", "-c"))
HAPROXY = Peer("haproxy", "one thread, no log", _configured("haproxy.cfg", "haproxy", "-db", "-f"))
CADDY = Peer(
    "caddy",
    "access log in a file",
    _configured("Caddyfile", "caddy", "run", "--adapter", "caddyfile", "--config"),
    environment={"GOMAXPROCS": "1"},
)
CADDY_QUIET = Peer(
    "caddy quiet",
    "no access log",
    _configured("Caddyfile-quiet", "caddy", "run", "--adapter", "caddyfile", "--config"),
    environment={"GOMAXPROCS": "1"},
)
CHP = Peer("chp", "configurable-http-proxy, no access log", _chp, environment={"CONFIGPROXY_AUTH_TOKEN": "benchmark"})

NEAREST = (TRIOPROXY, AIOHTTP, AIOHTTP_UVLOOP, TRIO_H11, NGINX)
FURTHER = (HAPROXY, CADDY, CADDY_QUIET, CHP)
"""Measured by --full only."""
