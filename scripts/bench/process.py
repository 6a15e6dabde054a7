"""Processes under measurement: started on one core, watched, and always ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import trio

from bench.errors import BenchError

START_SECONDS = 30.0
RUN_SECONDS = 120.0  # that a load generator may take
END_SECONDS = 3.0  # between SIGTERM and SIGKILL
GIVE_UP_SECONDS = 2 * END_SECONDS + 1
LOOK_SECONDS = 0.02  # how often a starting process is looked at: other people's programs do not say that they are ready

_MEMORY = re.compile(r"^(VmRSS|VmHWM):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Running:
    """A process and its children, which are all of its session. `start_seconds` is how long it took to be ready."""

    name: str
    pid: int
    log: Path
    start_seconds: float = 0.0

    def cpu_seconds(self) -> dict[int, float]:
        """User and system time so far by process id, with the clock's full resolution. Raises BenchError when dead."""
        return {pid: _cpu_seconds(pid) for pid in self.pids()}

    def memory(self) -> int:
        """Resident bytes now."""
        return sum(_memory(pid, "VmRSS") for pid in self.pids())

    def forget_peak(self) -> None:
        """Let `peak_memory` start anew."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM

    def peak_memory(self) -> int:
        """Most resident bytes since `forget_peak`."""
        return sum(_memory(pid, "VmHWM") for pid in self.pids())

    def pids(self) -> list[int]:
        """Those that run now. Raises BenchError when there are none."""
        found = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and _session(one) == self.pid]
        if not found:
            raise BenchError(f"{self.name} has died:\n{tail(self.log)}")
        return found


def _session(folder: Path) -> int:
    try:
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended
        return -1
    state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
    return -1 if state == "Z" else int(session)


def _cpu_seconds(pid: int) -> float:
    # What clock_getcpuclockid(3) returns for a process. /proc/PID/stat counts the same in steps of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def _memory(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next((int(kilobytes) * 1024 for name, kilobytes in _MEMORY.findall(status) if name == field), 0)


def tail(log: Path) -> str:
    """The last lines of a log file."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def spawn(
    argv: Sequence[str], *, cores: Sequence[int], stdin: int = subprocess.DEVNULL, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a command on these cores, leader of a session of its own.

    The kernel kills it should this program die without ending it. That is tied to the thread that forks, so it is
    done here and not by trio.lowlevel.open_process, which uses a worker thread that ends when it is idle.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", ",".join(map(str, cores)), *argv]
    return subprocess.Popen[bytes](command, stdin=stdin, start_new_session=True, **options)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process; its exit code."""
    if (code := process.poll()) is not None:
        return code
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    return process.wait()


async def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children: politely, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(process, number)
        with trio.move_on_after(END_SECONDS):
            await ended(process)
            break
    _signal(process, signal.SIGKILL)  # a child may have outlived it; while one does, the group's id is not reused


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@asynccontextmanager
async def running(
    name: str,
    argv: Sequence[str],
    *,
    cores: Sequence[int],
    folder: Path,
    port: int,
    ready: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[Running]:
    """Run a server while inside: it accepts on `port`, and has written `ready` to its output. Raises BenchError."""
    log = folder / f"{name}.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        process = spawn(
            argv, cores=cores, stdout=output, stderr=output, cwd=folder, env={**os.environ, **(environment or {})}
        )
    server = Running(name, process.pid, log)
    try:
        await _until_ready(process, server, port, ready)
        try:
            yield replace(server, start_seconds=time.perf_counter() - began)
        except BenchError as error:
            _check_alive(process, server, error)
            raise
        _check_alive(process, server)
    finally:
        with trio.move_on_after(GIVE_UP_SECONDS, shield=True):
            await end(process)


def _check_alive(process: subprocess.Popen[bytes], server: Running, error: BenchError | None = None) -> None:
    if (code := process.poll()) is not None:
        raise BenchError(f"{server.name} has ended with {code}:\n{tail(server.log)}") from error


async def _until_ready(process: subprocess.Popen[bytes], server: Running, port: int, ready: bytes) -> None:
    with trio.move_on_after(START_SECONDS):
        while process.poll() is None:
            with suppress(OSError):
                if ready in server.log.read_bytes():
                    await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", port))
                    return
            await trio.sleep(LOOK_SECONDS)
    raise BenchError(f"{server.name} did not start:\n{tail(server.log)}")


async def run_to_end(argv: Sequence[str], *, cores: Sequence[int]) -> str:
    """Run a load generator to its end; its standard output. Raises BenchError when it fails."""
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = spawn(argv, cores=cores, stdout=output, stderr=errors)
        code: int | str = f"no end within {RUN_SECONDS:g} s"
        try:
            with trio.move_on_after(RUN_SECONDS):
                code = await ended(process)
        finally:
            with trio.move_on_after(GIVE_UP_SECONDS, shield=True):
                await end(process)
        output.seek(0)
        errors.seek(0)
        text = output.read().decode()
        if code:
            raise BenchError(f"{' '.join(argv)} failed: {code}:\n{text}{errors.read().decode()}")
    return text


@asynccontextmanager
async def holding(argv: Sequence[str], *, cores: Sequence[int]) -> AsyncGenerator[None]:
    """Run a load generator that prints a line when it holds what it should, and ends with its standard input."""
    process = spawn(argv, cores=cores, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.move_on_after(RUN_SECONDS) as limit:
            await trio.lowlevel.wait_readable(process.stdout.fileno())
        if limit.cancelled_caught or not process.stdout.readline():
            raise BenchError(f"{' '.join(argv)} failed; its message is above")
        yield
        process.stdin.close()
        with trio.move_on_after(END_SECONDS):
            await ended(process)
    finally:
        process.stdin.close()
        process.stdout.close()
        with trio.move_on_after(GIVE_UP_SECONDS, shield=True):
            await end(process)
