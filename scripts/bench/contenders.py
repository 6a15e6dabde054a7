"""All proxies that are compared. Their configurations and those written for this comparison lie in `peers/`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.certificate import key_pair, tls_listen
from bench.peer import Peer, Place

CONFIGURATIONS = Path(__file__).with_name("peers")
CHP_FOLDER = Path(__file__).parents[2] / ".venv-bench-chp"
"""Where scripts/bench/run installs configurable-http-proxy."""

Command = Callable[[Place], list[str]]


def _trioproxy(*, processes: int = 1, tls: str = "off") -> Command:
    def command(place: Place) -> list[str]:
        values = {"processes": str(processes), "tls": tls}
        return trioproxy_command(place.fill_in(CONFIGURATIONS / "trioproxy.toml", values))

    return command


def trioproxy_command(configuration: Path) -> list[str]:
    """The command line that runs trioproxy with this configuration file."""
    return [sys.executable, "-P", "-m", "trioproxy", "run", "-c", str(configuration)]


def _python(script: str, *arguments: str) -> Command:
    def command(place: Place) -> list[str]:
        return [sys.executable, str(CONFIGURATIONS / script), str(place.port), str(place.backend), *arguments]

    return command


def _configured(template: str, *argv: str) -> Command:
    """The command, and the configuration file as its last argument."""
    return lambda place: [*argv, str(place.fill_in(CONFIGURATIONS / template))]


def _nginx(*, tls: bool) -> Command:
    def command(place: Place) -> list[str]:
        listen = tls_listen(place.folder, place.port) if tls else f"listen 127.0.0.1:{place.port};"
        return ["nginx", "-c", str(place.fill_in(CONFIGURATIONS / "nginx.conf", {"listen": listen}))]

    return command


_CADDY = ("caddy", "run", "--adapter", "caddyfile", "--config")
_ONE_CORE = {"GOMAXPROCS": "1"}


def _caddy_tls(place: Place) -> list[str]:
    cert, key = key_pair(place.folder)
    return [*_CADDY, str(place.fill_in(CONFIGURATIONS / "Caddyfile-tls", {"cert": str(cert), "key": str(key)}))]


def _chp(place: Place) -> list[str]:
    return [
        str(CHP_FOLDER / "node_modules/.bin/configurable-http-proxy"),
        *("--ip", "127.0.0.1", "--port", str(place.port)),
        *("--api-ip", "127.0.0.1", "--api-port", str(place.management)),
        *("--default-target", f"http://127.0.0.1:{place.backend}"),
    ]


_READY = b"trioproxy ready:"
TRIOPROXY = Peer("trioproxy", "processes = 1, access log in a file, metrics", _trioproxy(), ready=_READY)
TRIOPROXY_TWO = Peer("trioproxy 2", "the same, processes = 2", _trioproxy(processes=2), ready=_READY)
TRIOPROXY_TLS = Peer("trioproxy TLS", "as trioproxy, with TLS", _trioproxy(tls="auto"), ready=_READY, tls=True)
TRIO_FLOOR = Peer(
    "trio floor", "read, write, read, write on trio.socket: no parsing, no proxy", _python("trio_floor.py")
)
TRIO_H11 = Peer("trio h11", "straightforward, h11 on both sides, no log", _python("trio_h11_proxy.py"))
AIOHTTP = Peer("aiohttp", "server and client session on asyncio, no log", _python("aiohttp_proxy.py"))
AIOHTTP_UVLOOP = Peer("aiohttp uvloop", "the same on uvloop", _python("aiohttp_proxy.py", "uvloop"))
NGINX = Peer("nginx", "one process, access log in a file", _nginx(tls=False))
NGINX_TLS = Peer("nginx TLS", "the same with TLS", _nginx(tls=True), tls=True)
HAPROXY = Peer("haproxy", "one thread, no log", _configured("haproxy.cfg", "haproxy", "-db", "-f"))
CADDY = Peer("caddy", "access log in a file", _configured("Caddyfile", *_CADDY), environment=_ONE_CORE)
CADDY_QUIET = Peer("caddy quiet", "no access log", _configured("Caddyfile-quiet", *_CADDY), environment=_ONE_CORE)
CADDY_TLS = Peer("caddy TLS", "as caddy, with TLS", _caddy_tls, environment=_ONE_CORE, tls=True)
CHP = Peer("chp", "configurable-http-proxy, no access log", _chp, environment={"CONFIGPROXY_AUTH_TOKEN": "benchmark"})

ALL = (
    *(TRIOPROXY, TRIOPROXY_TWO, TRIOPROXY_TLS, TRIO_FLOOR, TRIO_H11, AIOHTTP, AIOHTTP_UVLOOP, CHP),
    *(CADDY, CADDY_QUIET, CADDY_TLS, NGINX, NGINX_TLS, HAPROXY),
)
