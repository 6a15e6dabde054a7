"""A place for a forwarder, as the supervisor sees it: how to reach it, how it fares, and how it ended."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Literal, Protocol

import trio

from trioproxy.control.channel import ControlClient, ForwarderEnd, memory_control
from trioproxy.control.messages import Answer, Applied, Command, SetTable
from trioproxy.control.worker import ForwarderInfo
from trioproxy.errors import ControlError
from trioproxy.routing.table import Table

_LOG = logging.getLogger("trioproxy.process.slot")


class Forward(Protocol):
    """Runs a forwarder on its end of the control channel until it has drained."""

    async def __call__(self, end: ForwarderEnd, *, task_status: trio.TaskStatus[None]) -> None:
        """Started when the listeners accept."""
        ...


class Slot:
    """One forwarder. In this version it runs in the supervisor's own process, so it is never started again.

    `clock` tells seconds since the epoch. `ended` is set when the forwarder is gone; `crashed` says whether a
    bug was the reason.
    """

    def __init__(self, forward: Forward, *, index: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._forward = forward
        self._index = index
        self._clock = clock
        self._end, self._forwarder_end = memory_control()
        self._client = ControlClient(self._end)
        self._scope = trio.CancelScope()
        self._state: Literal["starting", "ready", "draining", "dead"] = "starting"
        self._started_at = clock()
        self._table_version = 0
        self.ended = trio.Event()
        self.crashed = False

    @property
    def live(self) -> bool:
        """Whether the forwarder takes commands."""
        return self._state in ("ready", "draining")

    @property
    def serves(self) -> bool:
        """Whether the forwarder lives and has a table of routes."""
        return self.live and self._table_version > 0

    def info(self) -> ForwarderInfo:
        """How the forwarder fares."""
        return ForwarderInfo(self._index, os.getpid(), self._state, self._table_version, self._started_at)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the forwarder to its end. A bug in it is logged and ends here."""
        self._started_at = self._clock()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._client.run)
                    await nursery.start(self._forward, self._forwarder_end)
                    self._state = "ready"
                    task_status.started()
        except* Exception:  # noqa: BLE001 - a crash stays in its slot
            self.crashed = True
            _LOG.exception("the forwarder crashed", extra={"forwarder": self._index})
        finally:
            self._state = "dead"
            self.ended.set()

    async def ask(self, command: Command) -> Answer:
        """Send a command and wait for the answer. Raises ControlError when the forwarder is gone."""
        return await self._client.ask(command)

    async def set_table(self, table: Table) -> bool:
        """Hand over a table; whether it, or a newer one, is in force now."""
        try:
            answer = await self._client.ask(SetTable(table))
        except ControlError:
            return False
        assert isinstance(answer, Applied)
        self._table_version = answer.version
        return answer.version >= table.version

    def drains(self) -> None:
        """Take note that the forwarder was told to drain."""
        if self._state == "ready":
            self._state = "draining"

    def cut(self) -> None:
        """End the forwarder and its connections now."""
        self._scope.cancel()
