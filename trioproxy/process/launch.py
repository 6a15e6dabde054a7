"""How a slot starts a forwarder: what it gets, and the way to do it in the supervisor's own process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from trioproxy.control.channel import ForwarderEnd, SupervisorEnd, memory_control
from trioproxy.control.messages import SetConfig
from trioproxy.errors import ControlError

_LOG = logging.getLogger("trioproxy.process.launch")


@dataclass(frozen=True, slots=True)
class Running:
    """A forwarder that takes commands. `settings` are what it was started with; `kill` ends it at once."""

    pid: int
    end: SupervisorEnd
    settings: SetConfig
    kill: Callable[[], None]


class Launch(Protocol):
    """Runs a forwarder from its start to its end."""

    async def __call__(self, index: int, *, task_status: trio.TaskStatus[Running]) -> str | None:
        """Start forwarder number `index`; started when it takes commands. Cancelling kills it.

        Returns how it ended, as a sentence without its subject ("was killed by SIGKILL"); None = in good order.

        Raises:
            ControlError: it did not come to take commands.
        """
        ...


class Forward(Protocol):
    """Runs a forwarder on its end of the control channel until it has drained."""

    async def __call__(self, end: ForwarderEnd, *, task_status: trio.TaskStatus[None]) -> None:
        """Started when it takes commands."""
        ...


class LocalLaunch:
    """Runs a forwarder as a task of this process. A bug in it is logged and ends here."""

    def __init__(self, forward: Forward, settings: Callable[[], SetConfig]) -> None:
        self._forward = forward
        self._settings = settings

    async def __call__(self, index: int, *, task_status: trio.TaskStatus[Running]) -> str | None:
        """See Launch."""
        ours, theirs = memory_control()
        settings = self._settings()
        crashed = started = False
        with trio.CancelScope() as scope:
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._forward, theirs)
                    started = True
                    task_status.started(Running(os.getpid(), ours, settings, scope.cancel))
            except* Exception:  # noqa: BLE001 - a crash stays in its slot
                crashed = True
                _LOG.exception("the forwarder crashed", extra={"forwarder": index})
        if crashed and not started:
            raise ControlError("crashed")
        return "crashed" if crashed else None
