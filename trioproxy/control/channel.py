"""Commands and answers between the supervisor and a forwarder, one at a time and in order.

Where both ends share a process, a pair of memory channels carries the records; `wire.py` offers the same two
channels over a socket pair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from trioproxy.control.collector import let_go_slowly
from trioproxy.control.messages import Answer, Command, SetTable
from trioproxy.errors import ControlError
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table

MAX_WAITING = 256
"""Commands that may wait for their turn. Tables never add to it: only the newest one waits."""


class Pulse:
    """When the other end last gave a sign of life, on trio's clock."""

    def __init__(self) -> None:
        self.at = trio.current_time()

    def beat(self) -> None:
        """There is one now."""
        self.at = trio.current_time()


@dataclass(frozen=True, slots=True)
class SupervisorEnd:
    """The supervisor's end of the channel. `pulse` beats with each answer, and while a long command is taken in."""

    commands: trio.abc.SendChannel[Command]
    answers: trio.abc.ReceiveChannel[Answer]
    pulse: Pulse


@dataclass(frozen=True, slots=True)
class ForwarderEnd:
    """A forwarder's end of the channel."""

    commands: trio.abc.ReceiveChannel[Command]
    answers: trio.abc.SendChannel[Answer]


def memory_control() -> tuple[SupervisorEnd, ForwarderEnd]:
    """A channel inside one process."""
    send_command, receive_command = trio.open_memory_channel[Command](0)
    send_answer, receive_answer = trio.open_memory_channel[Answer](0)
    return SupervisorEnd(send_command, receive_answer, Pulse()), ForwarderEnd(_Commands(receive_command), send_answer)


class _Commands(trio.abc.ReceiveChannel[Command]):
    """Commands of a memory channel; lets go of an old table's routes slowly, once the new one is in force."""

    def __init__(self, channel: trio.MemoryReceiveChannel[Command]) -> None:
        self._channel = channel
        self._table: Table | None = None
        self._gone: list[Route] = []
        """Routes of the table before, when all of them may be gone: the last to refer to them is this list."""

    async def receive(self) -> Command:
        await let_go_slowly(self._gone)
        command = await self._channel.receive()
        if isinstance(command, SetTable):
            before, self._table = self._table, command.table
            if before is not None and command.table.changes_since(before.version) is None:
                self._gone = list(before.routes.values())
        return command

    async def aclose(self) -> None:
        await self._channel.aclose()


@dataclass(slots=True, eq=False)
class _Pending:
    """A command on its way, and everybody who waits for its answer."""

    command: Command
    answer: Answer | None = None
    done: trio.Event = field(default_factory=trio.Event)


class ControlClient:
    """Asks one forwarder. `run` must be running for `ask` to be answered."""

    def __init__(self, end: SupervisorEnd) -> None:
        self._end = end
        self._waiting: deque[_Pending] = deque()
        self._current: _Pending | None = None
        self._more = trio.Event()
        self._gone = False
        self._problem: ControlError | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry commands and answers until the other end is gone; then everybody who waits is told.

        Raises:
            ControlError: what came from the other end makes no sense, or a command is too large for the channel.
        """
        try:
            async with self._end.commands, self._end.answers, trio.open_nursery() as nursery:
                nursery.start_soon(self._send, nursery.cancel_scope)
                task_status.started()
                await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            self._gone = True
            for pending in (self._current, *self._waiting):
                if pending is not None:
                    pending.done.set()
            self._waiting.clear()
        if self._problem is not None:
            raise self._problem

    async def _receive(self) -> None:
        try:
            async for answer in self._end.answers:
                if self._current is None or self._current.done.is_set():
                    self._problem = ControlError("the forwarder answered what nobody asked")
                    return
                self._current.answer = answer
                self._current.done.set()
                self._end.pulse.beat()
        except ControlError as error:
            self._problem = error

    async def _send(self, scope: trio.CancelScope) -> None:
        """Send one command at a time, the next when the last one is answered: only so can tables be conflated."""
        while True:
            while not self._waiting:
                await self._more.wait()
                self._more = trio.Event()
            self._current = self._waiting.popleft()
            try:
                await self._end.commands.send(self._current.command)
            except (trio.BrokenResourceError, ControlError) as error:
                self._problem = error if isinstance(error, ControlError) else None
                scope.cancel()
                return
            await self._current.done.wait()

    async def ask(self, command: Command) -> Answer:
        """Send a command and wait for its answer.

        While a table waits for its turn, a newer one takes its place, and both callers get the newer one's answer.
        A caller that is cancelled stops waiting; the command itself is not taken back.

        Raises:
            ControlError: the forwarder is gone, or too many commands wait.
        """
        if self._gone:
            raise ControlError("the forwarder is gone")
        pending = self._enqueue(command)
        await pending.done.wait()
        if pending.answer is None:
            raise ControlError("the forwarder went away before it answered")
        return pending.answer

    def _enqueue(self, command: Command) -> _Pending:
        if isinstance(command, SetTable):
            for waiting in self._waiting:
                if isinstance(waiting.command, SetTable):
                    if command.table.version >= waiting.command.table.version:
                        waiting.command = command
                    return waiting
        elif len(self._waiting) >= MAX_WAITING:
            raise ControlError("the forwarder does not keep up with its commands")
        pending = _Pending(command)
        self._waiting.append(pending)
        self._more.set()
        return pending


async def serve_commands(
    execute: Callable[[Command], Awaitable[Answer]],
    end: ForwarderEnd,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Execute commands in the order they come, until the supervisor is gone. What `execute` raises is a bug.

    Raises:
        ControlError: what came from the supervisor makes no sense.
    """
    async with end.commands, end.answers:
        task_status.started()
        async for command in end.commands:
            answer = await execute(command)
            try:
                await end.answers.send(answer)
            except trio.BrokenResourceError:
                return
