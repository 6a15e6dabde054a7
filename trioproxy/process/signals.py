"""Signals, turned into calls."""

from __future__ import annotations

import logging
import signal
from typing import Protocol

import trio

_LOG = logging.getLogger("trioproxy.process.signals")


class Signalled(Protocol):
    """What signals ask for. Each call returns at once."""

    def start_drain(self) -> None:
        """SIGTERM or SIGINT, the first time."""
        ...

    def stop_now(self) -> None:
        """SIGTERM or SIGINT, again."""
        ...

    def request_reload(self) -> None:
        """SIGHUP."""
        ...

    def request_upgrade(self) -> None:
        """SIGUSR2."""
        ...


async def watch_signals(target: Signalled, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Pass signals on until cancelled."""
    asked_to_stop = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2) as received:
        task_status.started()
        async for number in received:
            _LOG.info("signal", extra={"signal": signal.Signals(number).name})
            if number == signal.SIGHUP:
                target.request_reload()
            elif number == signal.SIGUSR2:
                target.request_upgrade()
            elif asked_to_stop:
                target.stop_now()
            else:
                asked_to_stop = True
                target.start_drain()
