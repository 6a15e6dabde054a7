"""A real worker process for a test: started with listeners on free ports, asked, and ended."""

from __future__ import annotations

import json
import re
import ssl
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from processes import Program, running

from trioproxy.config.toml import to_toml

DRAIN_SECONDS = 5.0
"""`worker.drain_timeout` unless a test says otherwise."""
READY = re.compile(r"trioproxy ready: (?P<urls>.*) \(management (?P<management>\S+)\)")

Tables = Mapping[str, Any]


def write_config(path: Path, tables: Tables) -> None:
    """Write a configuration file: every top-level key on a line."""
    path.write_text("".join(f"{key} = {to_toml(value)}\n" for key, value in tables.items()), encoding="utf-8")


def base_config(folder: Path) -> dict[str, Any]:
    """Listeners `tls` and `plain` and the management API on free ports, state in `folder`/state."""
    return {
        "worker": {"state_dir": folder / "state", "drain_timeout": DRAIN_SECONDS},
        "management": {"bind": "127.0.0.1:0"},
        "listeners": [
            {"name": "tls", "bind": "127.0.0.1:0"},
            {"name": "plain", "bind": "127.0.0.1:0", "tls": "off"},
        ],
    }


class Worker:
    """A worker that is ready. `https` and `http` are the addresses of its first listener of each kind."""

    def __init__(self, program: Program, announced: re.Match[str], folder: Path, config: Path) -> None:
        self.program = program
        self.folder = folder
        self.config = config
        self.urls: list[str] = announced["urls"].split()
        self.management = announced["management"]
        self.token = (folder / "state" / "management.token").read_text(encoding="ascii").strip()
        self.trusted = folder / "state" / "tls" / "self-signed.crt"
        """What clients trust; a test that gives the worker certificates says who has signed them."""

    @property
    def https(self) -> str:
        return next(url for url in self.urls if url.startswith("https:"))

    @property
    def http(self) -> str:
        return next(url for url in self.urls if url.startswith("http:"))

    def port(self, url: str) -> int:
        return httpx.URL(url).port or 0

    def trust(self) -> ssl.SSLContext:
        """For clients that trust the worker's certificate and nothing else."""
        return ssl.create_default_context(cafile=self.trusted)

    def client(self, **how: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self.trust(), trust_env=False, timeout=20, **how)

    # --- management ------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        """One call of the management API on a connection of its own."""
        headers = {"Authorization": f"Bearer {self.token}", **how.pop("headers", {})}
        async with httpx.AsyncClient(base_url=self.management, trust_env=False, timeout=20) as client:
            return await client.request(method, path, headers=headers, **how)

    async def route(self, session_id: str, service: str, *ports: int, **fields: Any) -> None:
        """Set a route to these ports of the loopback address over the API."""
        fields.setdefault("backends", [{"host": "127.0.0.1", "port": port} for port in ports])
        answer = await self.call("PUT", f"/v1/routes/{session_id}/{service}", json=fields)
        assert answer.status_code in (200, 201), answer.text

    async def ready(self) -> bool:
        return (await self.call("GET", "/readyz")).status_code == 200

    # --- logs ------------------------------------------------------------------------------------------

    async def record(self, *, after: int = 0, **wanted: Any) -> dict[str, Any]:
        """The access-log line, from number `after` on, whose fields are these."""

        def fits(line: str) -> bool:
            return wanted.items() <= json.loads(line).items()

        return json.loads(await self.program.stdout.line(fits, after=after))

    async def logged(self, text: str, *, after: int = 0) -> str:
        """The line of the program's log, from number `after` on, that contains `text`."""
        return await self.program.stderr.line(lambda line: text in line, after=after)

    @property
    def log_lines(self) -> int:
        """How many lines there are so far: where to look `after`."""
        return len(self.program.stderr.lines)

    # --- /proc -----------------------------------------------------------------------------------------

    def forwarders(self) -> list[int]:
        """Process ids of its forwarders; none where the supervisor forwards itself."""
        tasks = Path(f"/proc/{self.program.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text(encoding="ascii").split()]

    def pids(self) -> list[int]:
        """The supervisor and its forwarders."""
        return [self.program.pid, *self.forwarders()]

    def open_files(self) -> list[str]:
        """What the file descriptors of its processes point at, sorted."""
        return sorted(file for pid in self.pids() for file in files_of(pid))

    def memory(self, key: str = "VmRSS") -> int:
        """Resident bytes of its processes together; with "VmHWM" the most that each had since `forget_peak`."""
        return sum(memory_of(pid, key) for pid in self.pids())

    def forget_peak(self) -> None:
        """Let the peak of resident memory be what is resident now (proc(5), clear_refs)."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")

    # --- its end ---------------------------------------------------------------------------------------

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return await self.program.terminate(seconds=60)

    def bug_lines(self) -> list[str]:
        """Lines of the log that tell of a bug."""
        return [line for line in self.program.stderr.lines if '"exception"' in line or line.startswith("Traceback")]


def files_of(pid: int) -> list[str]:
    """What the file descriptors of a process point at."""
    found: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:  # closed since it was listed
            continue
    return found


def memory_of(pid: int, key: str) -> int:
    """A figure of /proc/PID/status, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024


def _prepare(folder: Path, config: Tables) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "trioproxy.toml"
    tables = base_config(folder)
    for key, value in config.items():
        tables[key] = {**tables.get(key, {}), **value} if isinstance(value, dict) else value
    write_config(path, tables)
    return path


@asynccontextmanager
async def running_worker(
    folder: Path,
    config: Tables | None = None,
    *,
    arguments: Sequence[str] = (),
    command: Sequence[str | Path] = (sys.executable, "-m", "trioproxy", "run"),
    environ: Mapping[str, str] | None = None,
    trusted: Path | None = None,
    descriptors: Sequence[int] = (),
    start_seconds: float = 60.0,
    seconds: float = 90.0,
) -> AsyncGenerator[Worker]:
    """Run a worker while the block runs, which has `seconds` at most.

    `config` is laid over `base_config` section by section. When the block ends well, so must the worker: with
    exit code 0 (unless the test has ended it) and without a traceback in its log.
    """
    path = _prepare(folder, config or {})
    with trio.fail_after(seconds):
        async with running(
            [*command, *arguments, "-c", path], environ=environ, grace=10, descriptors=descriptors
        ) as program:
            line = await program.stderr.line(lambda line: READY.match(line) is not None, seconds=start_seconds)
            announced = READY.match(line)
            assert announced is not None
            worker = Worker(program, announced, folder, path)
            worker.trusted = trusted or worker.trusted
            yield worker
            if program.code is None:
                assert await worker.stop() == 0
            assert worker.bug_lines() == []
