"""Ways to tell a worker's forwarder processes apart, and to do them harm."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from processes import eventually
from worker import Worker

from trioproxy.testing import Wire
from trioproxy.testing.wire import Response

PIDFD_GETFD = 438
"""Number of the system call, the same on all architectures (pidfd_getfd(2))."""


async def dial(worker: Worker) -> Wire:
    """A new connection to the plain listener."""
    return Wire(await trio.open_tcp_stream("127.0.0.1", worker.port(worker.http)))


async def get(wire: Wire, path: str) -> Response:
    """One request on a kept connection."""
    await wire.send(f"GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
    return await wire.read_response()


async def get_fresh(worker: Worker, path: str) -> Response:
    """One request on a connection of its own."""
    wire = await dial(worker)
    try:
        return await get(wire, path)
    finally:
        await wire.aclose()


def server_of(response: Response) -> bytes:
    """Which forwarder answered: all ids that one process gives begin alike."""
    (request_id,) = response.values("x-request-id")
    return request_id.partition(b"-")[0]


@asynccontextmanager
async def connections_to_each(worker: Worker, path: str, count: int) -> AsyncGenerator[dict[bytes, list[Wire]]]:
    """Kept connections that have served one request each, by forwarder: at least `count` to each of two."""
    found: dict[bytes, list[Wire]] = {}
    try:
        while len(found) < 2 or min(map(len, found.values())) < count:
            wire = await dial(worker)
            found.setdefault(server_of(await get(wire, path)), []).append(wire)
        yield found
    finally:
        for wire in (wire for wires in found.values() for wire in wires):
            await trio.aclose_forcefully(wire.stream)


async def forwarders(worker: Worker) -> list[dict[str, Any]]:
    """What the management API says of them."""
    return (await worker.call("GET", "/v1/forwarders")).json()["forwarders"]


async def all_ready(worker: Worker, restarts: int) -> None:
    """Wait until every forwarder carries traffic, and so many were started again."""

    async def are() -> bool:
        found = await forwarders(worker)
        return sum(one["restarts"] for one in found) == restarts and all(one["state"] == "ready" for one in found)

    await eventually(are, seconds=30)


async def metric(worker: Worker, name: str) -> float:
    """The sum of all series of a metric."""
    text = (await worker.call("GET", "/metrics")).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


def is_gone(pid: int) -> bool:
    """Whether no process has this id, not even a dead one that nobody has asked for its exit code."""
    return not Path(f"/proc/{pid}").exists()


def hurt(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


def speak_for(pid: int, data: bytes) -> None:
    """Send data over a forwarder's control channel as if it came from the forwarder. Raises OSError if not allowed."""
    process = os.pidfd_open(pid)
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if link.readlink().name.startswith("socket:"):
                with _copy(process, int(link.name)) as sock:
                    if _is_pair(sock) and _maker(sock) != pid:
                        sock.send(data)
                        return
    finally:
        os.close(process)
    raise LookupError("it has no control channel")


def _copy(process: int, number: int) -> socket.socket:
    """A copy of another process's socket."""
    copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, number, 0)
    if copy < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return socket.socket(fileno=copy)


def _is_pair(sock: socket.socket) -> bool:
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM and not listening


def _maker(sock: socket.socket) -> int:
    """The process that made a pair of sockets (unix(7), SO_PEERCRED)."""
    return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
