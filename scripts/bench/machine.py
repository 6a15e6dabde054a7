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
    "haproxy": ("haproxy", "-v"),
    "caddy": ("caddy", "version"),
    "node": ("node", "--version"),
}
_PACKAGES = ("trioproxy", "trio", "h11", "trio-websocket", "wsproto", "aiohttp", "uvloop")
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True)
class Cores:
    """Numbers of the two cores in use: the proxies run on one, load generators and backends on the other."""

    proxy: int
    load: int


def pick_cores() -> Cores:
    """The first two cores this process may use. Raises BenchError when there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed: one for the proxies, one for load generators and backends")
    return Cores(cores[0], cores[1])


def raise_open_files() -> None:
    """Allow this process and all it starts to hold many sockets. Raises BenchError when that is not allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise BenchError(f"{OPEN_FILES} open files are needed, the limit here is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def core_busy_seconds(core: int) -> float:
    """How long the core was not idle since boot, whoever used it."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, fields)
            return (user + nice + system + irq + softirq) * TICK
    raise BenchError(f"/proc/stat does not know core {core}")


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
