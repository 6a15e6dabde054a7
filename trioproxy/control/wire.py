"""The control channel between processes: the channels of `channel.py` over a connected pair of stream sockets."""

from __future__ import annotations

import socket
from typing import cast

import trio

from trioproxy.config.schema import Config
from trioproxy.control.channel import ForwarderEnd, Pulse, SupervisorEnd
from trioproxy.control.codec import decode, encode
from trioproxy.control.collector import let_go_slowly
from trioproxy.control.frames import FrameStream
from trioproxy.control.messages import (
    Answer,
    Applied,
    Command,
    Done,
    PrepareConfig,
    Refused,
    Report,
    SetConfig,
    SetTable,
)
from trioproxy.control.tables import TableAssembler, TableEncoder, TablePart
from trioproxy.errors import ControlError
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table

_ANSWERS = (Applied, Done, Refused, Report)


def control_sockets() -> tuple[FrameStream, socket.socket]:
    """The supervisor's end of a new connection, and the forwarder's as its process will inherit it. Raises OSError."""
    ours, theirs = socket.socketpair()
    return adopt_control(ours), theirs


def adopt_control(sock: socket.socket) -> FrameStream:
    """Frames over one end of the pair."""
    return FrameStream(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


def supervisor_end(frames: FrameStream, tables: TableEncoder) -> SupervisorEnd:
    """What the supervisor uses after the Hello. `tables` may be shared by all forwarders of one catalog."""
    pulse = Pulse()
    return SupervisorEnd(_CommandSender(frames, tables, pulse), _AnswerReceiver(frames), pulse)


def forwarder_end(frames: FrameStream) -> ForwarderEnd:
    """What the forwarder uses after its Hello."""
    return ForwarderEnd(_CommandReceiver(frames), _AnswerSender(frames))


def lean(config: Config) -> Config:
    """The part of the configuration that forwarders need: no routes, which travel as a table, and no secrets."""
    management = config.management.model_copy(update={"token": None})
    return config.model_copy(update={"routes": (), "management": management})


class _CommandSender(trio.abc.SendChannel[Command]):
    def __init__(self, frames: FrameStream, tables: TableEncoder, pulse: Pulse) -> None:
        self._frames = frames
        self._tables = tables
        self._pulse = pulse
        self._sent: Table | None = None

    async def send(self, value: Command) -> None:
        match value:
            case SetTable(table):
                await self._send_table(table)
            case SetConfig(config) | PrepareConfig(config):
                await self._frames.send(encode(type(value)(lean(config))))
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
    def __init__(self, frames: FrameStream) -> None:
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
    def __init__(self, frames: FrameStream) -> None:
        self._frames = frames
        self._tables = TableAssembler()
        self._gone: list[Route] = []
        """Routes of the table before, once all of them were sent anew: the last to refer to them is this list."""

    async def receive(self) -> Command:
        await let_go_slowly(self._gone)
        while (frame := await self._frames.receive()) is not None:
            record = decode(frame, object)
            if not isinstance(record, TablePart):
                return cast(Command, record)
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
    def __init__(self, frames: FrameStream) -> None:
        self._frames = frames

    async def send(self, value: Answer) -> None:
        try:
            await self._frames.send(encode(value))
        except ControlError as error:
            await self._frames.send(encode(Refused((str(error),))))

    async def aclose(self) -> None:
        await self._frames.aclose()
