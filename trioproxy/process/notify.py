"""Telling the service manager how we are: systemd's sd_notify protocol (sd_notify(3)), without its library."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

import trio

_LOG = logging.getLogger("trioproxy.process.notify")


class Notifier:
    """Sends states to `NOTIFY_SOCKET`; does nothing when it is not set. Never raises: service goes on without it.

    `watchdog` is the number of seconds between signs of life, half of `WATCHDOG_USEC`; None = not asked for.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog: float | None = None
        asked = environ.get("WATCHDOG_USEC", "")
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._address and asked.isdecimal() and int(asked) > 0 and for_us:
            self.watchdog = int(asked) / 2_000_000

    def ready(self, status: str) -> None:
        """Everything that was asked for works now."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload began; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """The end began."""
        self._send("STOPPING=1", f"STATUS={status}")

    def hand_over(self, pid: int, status: str) -> None:
        """Another process is the service from now on, and works; this one has nothing more to say."""
        self._send(f"MAINPID={pid}", "READY=1", f"STATUS={status}")
        self._address, self.watchdog = "", None

    async def run_watchdog(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Give signs of life while the run loop turns."""
        task_status.started()
        while self.watchdog is not None:
            self._send("WATCHDOG=1")
            await trio.sleep(self.watchdog)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _LOG.warning("the service manager cannot be told", extra={"state": lines[0], "error": str(error)})
