"""One forwarder: the data plane, its listeners, and the supervisor's commands, from start to the end of the drain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from trioproxy.control.channel import ForwarderEnd, serve_commands
from trioproxy.control.messages import Answer, Command, StartAccepting, StartDrain
from trioproxy.errors import ControlError

_LOG = logging.getLogger("trioproxy.process.forwarder")


class Draining(Protocol):
    """Whether the drain has begun."""

    @property
    def started(self) -> trio.Event:
        """Set when it has."""
        ...


class DataPlane(Protocol):
    """What carries the traffic."""

    @property
    def drain(self) -> Draining:
        """Its drain."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Background work, until cancelled."""
        ...

    async def execute(self, command: Command) -> Answer:
        """Execute one command of the supervisor; it has taken effect when this returns."""
        ...


class Accepting(Protocol):
    """A listener."""

    async def serve(self, handler_nursery: trio.Nursery, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept until cancelled; connections become tasks of `handler_nursery`."""
        ...


async def run_forwarder(
    plane: DataPlane,
    listeners: Sequence[Accepting],
    end: ForwarderEnd,
    *,
    grace: Callable[[], float],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until a drain has ended: every connection is done, or its grace is over and the rest was cut.

    Started once it takes commands; it accepts connections from StartAccepting on. `grace` (seconds) counts when the
    supervisor goes away without a word; else StartDrain brings its own.
    """
    go = trio.Event()
    limit = trio.CancelScope()

    async def execute(command: Command) -> Answer:
        answer = await plane.execute(command)
        if isinstance(command, StartDrain):
            limit.deadline = min(limit.deadline, trio.current_time() + command.grace)
        if isinstance(command, StartAccepting | StartDrain):
            go.set()
        return answer

    async def obey(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await serve_commands(execute, end, task_status=task_status)
        except ControlError as error:
            _LOG.error("the supervisor cannot be understood any more", extra={"error": str(error)})
        await execute(StartDrain(grace()))  # nobody is left to tell us routes, or to stop us

    async with trio.open_nursery() as nursery:
        await nursery.start(plane.run)
        await nursery.start(obey)
        task_status.started()
        await go.wait()
        with limit:
            # Of the two, the accepting one ends first.
            async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
                for listener in listeners:
                    await accepting.start(listener.serve, connections)
                await plane.drain.started.wait()
                accepting.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
