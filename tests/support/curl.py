"""curl, as a person types it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any

import pytest
from processes import run

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@dataclass(frozen=True)
class Curled:
    """How curl ended, and what it printed. `told` are its write-out variables (curl(1), --write-out)."""

    code: int
    body: bytes
    error: str
    told: dict[str, Any]

    @property
    def status(self) -> int:
        return self.told["http_code"]


async def curl(*arguments: str, stdin: bytes = b"", seconds: float = 30.0) -> Curled:
    """Run curl, without its configuration file and without the proxies of the environment."""
    command = [
        "curl",
        "-q",
        "--noproxy",
        "*",
        "--silent",
        "--show-error",
        "--write-out",
        "%{stderr}\n%{json}",
        *arguments,
    ]
    done = await run(command, stdin=stdin, seconds=seconds)
    error, _, told = done.stderr.decode().rpartition("\n")
    return Curled(done.returncode, done.stdout, error, json.loads(told or "{}"))
