"""The machine under the measurement: its cores, who uses them, and what software is on it."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.errors import BenchError

OPEN_FILES = 16384  # a proxy holds two sockets per WebSocket
TICK = 1 / os.sysconf("SC_CLK_TCK")

_PROGRAMS: dict[str, Sequence[str]] = {
    "nginx": ("nginx", "-v"),
    "wrk": ("wrk", "-v"),
    "openssl": ("openssl", "version"),
    "haproxy": ("haproxy", "-v"),
    "caddy": ("caddy", "version"),
    "node": ("node", "--version"),
}
_PACKAGES = ("trioproxy", "trio", "h11", "trio-websocket", "wsproto", "aiohttp", "uvloop", "py-spy")
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class Cores:
    """Numbers of the cores in use, of proxies and of load generators and backends: one each, or both for all."""

    proxy: tuple[int, ...]
    load: tuple[int, ...]

    def shared(self) -> Cores:
        """For a proxy that needs more than one: everything on all of them."""
        everything = (*self.proxy, *self.load)
        return Cores(everything, everything)


def pick_cores() -> Cores:
    """The first two cores this process may use. Raises BenchError when there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed: one for the proxies, one for load generators and backends")
    return Cores((cores[0],), (cores[1],))


def raise_open_files() -> None:
    """Allow this process and all it starts to hold many sockets. Raises BenchError when that is not allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise BenchError(f"{OPEN_FILES} open files are needed, the limit here is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def busy_seconds(cores: Sequence[int]) -> float:
    """How long the cores were not idle since boot, whoever used them."""
    lines = {name: fields for name, *fields in map(str.split, Path("/proc/stat").read_text("ascii").splitlines())}
    ticks = 0
    for core in cores:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, lines[f"cpu{core}"])
        ticks += user + nice + system + irq + softirq
    return ticks * TICK


def describe() -> dict[str, str]:
    """The machine, for the report."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
    }


def versions(chp: Path) -> dict[str, str]:
    """Of everything that is measured or measures. `chp` is configurable-http-proxy's folder, if it is installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for program, command in _PROGRAMS.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        if match := _VERSION.search(done.stdout + done.stderr):
            found[program] = match[0]
    manifest = chp / "package.json"
    if manifest.exists() and (match := re.search(r'"version": "([^"]+)"', manifest.read_text("utf-8"))):
        found["configurable-http-proxy"] = match[1]
    return found
