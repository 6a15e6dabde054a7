"""A proxy that is measured: what starts it, and where it runs. `contenders` has all of them."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.process import Running, running


@dataclass(frozen=True, slots=True)
class Place:
    """Where one proxy runs: a folder of its own, loopback ports, the port of its backend."""

    folder: Path
    port: int
    management: int
    backend: int

    def fill_in(self, template: Path, values: Mapping[str, str] | None = None) -> Path:
        """Copy a configuration into the folder, with these and the place's values for their @names@; the copy."""
        own = {"folder": self.folder, "port": self.port, "management": self.management, "backend": self.backend}
        text = template.read_text(encoding="utf-8")
        for name, value in {**own, **(values or {})}.items():
            text = text.replace(f"@{name}@", str(value))
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
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Proxy:
    """A peer that runs."""

    peer: Peer
    process: Running
    place: Place

    @property
    def port(self) -> int:
        """Where it takes requests."""
        return self.place.port

    def url(self, service: str) -> str:
        """The address of the backend through this proxy. trioproxy routes by the service, the others ignore it."""
        return url(self.port, service, tls=self.peer.tls)


def url(port: int, service: str, *, tls: bool = False) -> str:
    """The address of a service at a port."""
    return f"{'https' if tls else 'http'}://127.0.0.1:{port}{path(service)}"


def path(service: str) -> str:
    """A path as Jupyter has them, behind trioproxy's prefix."""
    return f"/bench/{service}/api/contents/notebooks"


_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody has at this moment, and another one at each call.

    For haproxy and Caddy listen with SO_REUSEPORT: two that got the same port would share it without a word.
    """
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


@asynccontextmanager
async def start(peer: Peer, *, backend: int, folder: Path, cores: Sequence[int]) -> AsyncGenerator[Proxy]:
    """Run the peer in front of the backend while inside. Raises BenchError."""
    own = folder / f"{peer.name.replace(' ', '-')}-{backend}"
    own.mkdir()
    place = Place(own, free_port(), free_port(), backend)
    argv = peer.command(place)
    environment = {"HOME": str(own), "XDG_CONFIG_HOME": str(own), "XDG_DATA_HOME": str(own), **peer.environment}
    async with running(
        peer.name, argv, cores=cores, folder=own, port=place.port, ready=peer.ready, environment=environment
    ) as process:
        yield Proxy(peer, process, place)
