"""Backends that are processes of their own: killed, started again, and asked which requests they have seen."""

from __future__ import annotations

import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import counting_backend
import httpx
import trio
from processes import KILL_SECONDS, eventually, listens

TWO: dict[str, Any] = {"worker": {"processes": 2}, "log": {"access": "off"}}
"""Configuration of a worker with two forwarders."""


class Service:
    """One backend at a port that it keeps while it is down."""

    def __init__(self, port: int, file: Path) -> None:
        self.port = port
        self._file = file
        self._process: trio.Process | None = None

    @property
    def id(self) -> str:
        """As the worker names it."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it; it accepts when this returns."""
        command = [sys.executable, counting_backend.__file__, str(self.port), str(self._file)]
        self._process = await trio.lowlevel.open_process(command, stdin=DEVNULL)
        await eventually(lambda: listens(self.port), seconds=30)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by this signal; its connections are gone when this returns."""
        if self._process is not None:
            self._process.send_signal(number)
            await self._process.wait()
            self._process = None

    async def become(self, mode: str) -> None:
        """Change how it behaves, from the next request on."""
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.get(f"http://{self.id}/mode/{mode}")).raise_for_status()

    def seen(self) -> list[str]:
        """The requests it has got so far, as "METHOD ID", those before its last start included."""
        return self._file.read_text(encoding="ascii").splitlines() if self._file.exists() else []


@asynccontextmanager
async def three_services(folder: Path) -> AsyncGenerator[list[Service]]:
    """Three of them, running. They leave files in the folder."""
    with ExitStack() as stack:
        found: list[Service] = []
        for number in range(3):
            held = stack.enter_context(socket.socket())
            # A port that is bound, though nobody listens on it, is given to nobody who asks for any.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            found.append(Service(held.getsockname()[1], folder / f"seen-{number}"))
        try:
            async with trio.open_nursery() as nursery:
                for service in found:
                    nursery.start_soon(service.start)
            yield found
        finally:
            with trio.move_on_after(KILL_SECONDS, shield=True):
                for service in found:
                    await service.end()


def seen_by(services: list[Service], method: str) -> Counter[str]:
    """How often each request with this method reached a backend, by its id."""
    lines = (line.split(" ") for service in services for line in service.seen())
    return Counter(name for verb, name in lines if verb == method)
