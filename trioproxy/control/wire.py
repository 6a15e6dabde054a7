"""The control channel between processes: the channels of `channel.py` over a connected pair of stream sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import cast, get_args

import trio

from trioproxy.config.schema import Config
from trioproxy.control.channel import ForwarderEnd, Pulse, SupervisorEnd
from trioproxy.control.codec import decode, encode
from trioproxy.control.collector import let_go_slowly
from trioproxy.control.descriptors import Arrivals, DescriptorFrames
from trioproxy.control.messages import (
    Answer,
    Applied,
    Command,
    Descriptor,
    Done,
    News,
    PrepareConfig,
    Refused,
    Report,
    SetConfig,
    SetTable,
    Start,
)
from trioproxy.control.tables import TableAssembler, TableEncoder, TablePart
from trioproxy.errors import ControlError
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table

Copy = Callable[[int], socket.socket | None]
"""A copy of the listening socket of that handle, the caller's to close; None when there is none (any more)."""

_ANSWERS = (Applied, Done, Refused, Report, News)
_COMMANDS = tuple(kind for kind in get_args(Command) if kind is not SetTable)
"""Those that travel as they are: tables come in parts."""


def control_sockets() -> tuple[DescriptorFrames, socket.socket]:
    """The supervisor's end of a new connection, and the forwarder's as its process will inherit it. Raises OSError."""
    ours, theirs = socket.socketpair()
    return adopt_control(ours), theirs


def adopt_control(sock: socket.socket) -> DescriptorFrames:
    """Frames over one end of the pair."""
    return DescriptorFrames(sock)


def supervisor_end(
    frames: DescriptorFrames, tables: TableEncoder, copy: Copy = lambda _: None, known: Table | None = None
) -> SupervisorEnd:
    """What the supervisor uses after the Hello. `tables` may be shared by all forwarders of one catalog.

    `known` is a table of it that the forwarder has already.
    """
    pulse = Pulse()
    return SupervisorEnd(_CommandSender(frames, tables, pulse, copy, known), _AnswerReceiver(frames), pulse)


def forwarder_end(
    frames: DescriptorFrames, arrivals: Arrivals | None = None, known: Table | None = None
) -> ForwarderEnd:
    """What the forwarder uses after its Hello. Sockets that come with a command are in `arrivals` before it is.

    `known` is the table that it has already, if the supervisor counts on that.
    """
    return ForwarderEnd(_CommandReceiver(frames, arrivals or Arrivals(), known), _AnswerSender(frames))


async def send_start(frames: DescriptorFrames, start: Start, copy: Copy) -> None:
    """Tell a new forwarder how to start. Raises BrokenResourceError when it is gone."""
    await _send_descriptors(frames, start.listeners, copy)
    await frames.send(encode(start))


async def receive_start(frames: DescriptorFrames, arrivals: Arrivals) -> Start | None:
    """What the supervisor said; None when it is gone. Raises ControlError when it makes no sense."""
    while (frame := await frames.receive()) is not None:
        record = decode(frame, object)
        if isinstance(record, Start):
            return record
        if not isinstance(record, Descriptor):
            raise ControlError(f"the supervisor began with a {type(record).__name__}")
        arrivals.put(record.handle, frames.take())
    return None


async def _send_descriptors(frames: DescriptorFrames, handles: Iterable[int], copy: Copy) -> None:
    for handle in handles:
        sock = copy(handle)
        if sock is not None:
            with sock:
                await frames.send_with(encode(Descriptor(handle)), sock.fileno())


def lean(config: Config) -> Config:
    """The part of the configuration that forwarders need: no routes, which travel as a table, and no secrets."""
    management = config.management.model_copy(update={"token": None})
    return config.model_copy(update={"routes": (), "management": management})


class _CommandSender(trio.abc.SendChannel[Command]):
    def __init__(
        self, frames: DescriptorFrames, tables: TableEncoder, pulse: Pulse, copy: Copy, sent: Table | None
    ) -> None:
        self._frames = frames
        self._copy = copy
        self._tables = tables
        self._pulse = pulse
        self._sent = sent

    async def send(self, value: Command) -> None:
        match value:
            case SetTable(table):
                await self._send_table(table)
            case SetConfig(config, handles) | PrepareConfig(config, handles):
                # Always all of them: what it has already it closes, and nobody need keep account of that.
                await _send_descriptors(self._frames, handles, self._copy)
                await self._frames.send(encode(type(value)(lean(config), handles)))
            case _:
                await self._frames.send(encode(value))

    async def _send_table(self, table: Table) -> None:
        if self._sent is not None and table.version < self._sent.version:
            table = self._sent  # nothing to tell; the answer names the version that is in force
        before, base = self._sent, self._sent.version if self._sent is not None else None
        for part in self._tables.encode(table, base):
            await self._frames.send(part)
            self._pulse.beat()  # the socket holds a few parts at most, so those before have been read
        self._sent = table
        if before is not None and table.changes_since(before.version) is None:
            gone = list(before.routes.values())
            before = None
            await let_go_slowly(gone)

    async def aclose(self) -> None:
        await self._frames.aclose()


class _AnswerReceiver(trio.abc.ReceiveChannel[Answer]):
    def __init__(self, frames: DescriptorFrames) -> None:
        self._frames = frames

    async def receive(self) -> Answer:
        frame = await self._frames.receive()
        if frame is None:
            raise trio.EndOfChannel
        answer = decode(frame, object)
        if not isinstance(answer, _ANSWERS):
            raise ControlError(f"the forwarder answered with a {type(answer).__name__}")
        return answer

    async def aclose(self) -> None:
        await self._frames.aclose()


class _CommandReceiver(trio.abc.ReceiveChannel[Command]):
    def __init__(self, frames: DescriptorFrames, arrivals: Arrivals, known: Table | None) -> None:
        self._frames = frames
        self._arrivals = arrivals
        self._tables = TableAssembler(known)
        self._gone: list[Route] = []
        """Routes of the table before, once all of them were sent anew: the last to refer to them is this list."""

    async def receive(self) -> Command:
        await let_go_slowly(self._gone)
        while (frame := await self._frames.receive()) is not None:
            record = decode(frame, object)
            if isinstance(record, Descriptor):
                self._arrivals.put(record.handle, self._frames.take())
                continue
            if isinstance(record, _COMMANDS):
                return cast(Command, record)
            if not isinstance(record, TablePart):
                raise ControlError(f"the supervisor commands with a {type(record).__name__}")
            before = self._tables.table
            table = self._tables.add(record)
            if table is not None:
                if record.base is None:
                    self._gone = list(before.routes.values())
                return SetTable(table)
        raise trio.EndOfChannel

    async def aclose(self) -> None:
        await self._frames.aclose()


class _AnswerSender(trio.abc.SendChannel[Answer]):
    def __init__(self, frames: DescriptorFrames) -> None:
        self._frames = frames

    async def send(self, value: Answer) -> None:
        try:
            await self._frames.send(encode(value))
        except ControlError as error:
            await self._frames.send(encode(Refused((str(error),))))

    async def aclose(self) -> None:
        await self._frames.aclose()
