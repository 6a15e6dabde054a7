"""Requests over kept connections, as many as will go, by wrk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.process import run_to_end

SCRIPT = Path(__file__).with_name("wrk.lua")
BROWSER = Path(__file__).with_name("browser.txt")
CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class HttpLoad:
    """What wrk saw. Latencies in seconds, of a proxy at full load: they say little."""

    requests: int
    seconds: float
    p50: float
    p99: float


def read_headers(file: Path) -> dict[str, str]:
    """The headers of a file of header lines."""
    lines = file.read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def request(url: str, *, headers: Path | None, seconds: int, core: int, body_bytes: int) -> HttpLoad:
    """Ask for `url` for so many seconds. Raises BenchError when an answer was not 200 or had no body of that size."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), url]
    output = await run_to_end([*command, "--", *([str(headers)] if headers else [])], core=core)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    if found["broken"] or found["refused"] or not found["requests"]:
        raise BenchError(f"{url}: wrong answers or broken connections: {found}")
    if found["bytes"] < found["requests"] * body_bytes:
        raise BenchError(f"{url}: the answers were too short: {found}")
    return HttpLoad(found["requests"], found["microseconds"] / 1e6, found["p50"] / 1e6, found["p99"] / 1e6)
