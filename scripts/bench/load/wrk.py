"""Requests over kept connections, as many as will go, by wrk."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    """What wrk saw. Its latencies, of a proxy at full load, say little: `arrivals` measures those."""

    requests: int
    seconds: float


def read_headers(file: Path) -> dict[str, str]:
    """The headers of a file of header lines."""
    lines = file.read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def request(url: str, *, headers: Path | None, body: str, seconds: int, cores: Sequence[int]) -> HttpLoad:
    """Ask for `url` for so many seconds. Raises BenchError when one answer was not 200 with exactly that body."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(SCRIPT), url, "--", body]
    output = await run_to_end([*command, *([str(headers)] if headers else [])], cores=cores)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    if found["broken"] or found["wrong"] or not found["requests"]:
        raise BenchError(f"{url}: wrong answers or broken connections: {found}")
    return HttpLoad(found["requests"], found["microseconds"] / 1e6)
