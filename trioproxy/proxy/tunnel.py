"""An upgraded stream as bytes: WebSockets in mode "relay", with their extensions, and every other upgrade."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import Protocol, TypeGuard

import trio

from trioproxy.net.plain import Piece
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort
from trioproxy.proxy.closer import (
    ABORT_SECONDS,
    BACKEND_LOST,
    GOING_AWAY,
    SERVICE_RESTART,
    Closer,
    Ended,
    EndedBy,
    Traffic,
)
from trioproxy.proxy.framed_sink import FramedSink
from trioproxy.proxy.verdict import Verdict

RELAY_BUFFER = 64 * 1024
"""Bytes read at a time, and so the most that is held each way; nothing while nothing moves."""

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
_CLOSE = 0x88  # first byte of a close frame, which most often comes in a piece of its own
_OTHER: dict[EndedBy, EndedBy] = {"client": "backend", "backend": "client"}


async def forward_bytes(
    client: PrefixedStream,
    backend: PrefixedStream,
    *,
    idle: float,
    close: float,
    traffic: Traffic,
    closer: Closer,
    websocket: bool = False,
) -> Ended:
    """Copy bytes both ways until both sides have ended, one fails, or `idle` seconds pass without a byte (0 = never).

    The end of one side is passed on as an end of sending, and the other way goes on. Where the receiver can
    not half-close (TLS), that is the end of all. A side that fails makes the other one fail visibly.

    With `websocket`, an end that the proxy makes (`closer`, idle) is told to the client by a close frame
    between two frames of the backend; the client's answer travels on, and closes the backend as well. A backend
    that breaks, or ends without a close frame, is lost: behind all that it has said the client gets the close
    frame 1012; if that ended inside a frame, its connection breaks as well. `close` bounds these in seconds, and
    also what remains of a WebSocket after one side has ended. Both streams are closed when this returns or is
    cancelled.
    """
    verdict = Verdict(closer, idle)
    tunnel = _Tunnel(client, backend, traffic, verdict, websocket=websocket)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tunnel.pump, "client")
            nursery.start_soon(tunnel.pump, "backend")
            ended = await verdict.reached()
            with trio.move_on_after(close):
                await tunnel.part(ended)
            nursery.cancel_scope.cancel()
        return ended
    finally:
        # A stream that was closed does not mind. One that was not has missed its closing handshake: show that.
        with trio.move_on_after(ABORT_SECONDS, shield=True):
            await abort(client)
            await abort(backend)


class _Sink(Protocol):
    def send_now(self, data: Piece) -> int: ...

    def send_lent(self, data: Piece) -> Awaitable[None]: ...


class _Tunnel:
    """The two directions, and what they know of each other."""

    __slots__ = (
        "_backend",
        "_client",
        "_client_closes",
        "_ended_first",
        "_finished",
        "_framed",
        "_lost",
        "_mute",
        "_parting",
        "_traffic",
        "_verdict",
    )

    def __init__(
        self,
        client: PrefixedStream,
        backend: PrefixedStream,
        traffic: Traffic,
        verdict: Verdict,
        *,
        websocket: bool,
    ) -> None:
        self._client = client
        self._backend = backend
        self._traffic = traffic
        self._verdict = verdict
        self._framed = FramedSink(client) if websocket else None
        self._ended_first: EndedBy | None = None
        self._client_closes = False  # as far as can be seen without following its frames
        self._mute = False  # nothing more can be said to the backend
        self._lost = False  # the backend, without a close frame: nothing more will come from it
        self._finished = False  # nothing more will pass
        self._parting: trio.Event | None = None  # waits for that; made late, for idle tunnels are many

    async def pump(self, side: EndedBy) -> None:
        """Copy what `side` says to the other one, until it has ended or one of them fails."""
        verdict, traffic, inward = self._verdict, self._traffic, side == "client"
        source, target = (self._client, self._backend) if inward else (self._backend, self._client)
        sink: _Sink = target if inward or self._framed is None else self._framed
        receive, send_now = source.receive_lent, sink.send_now
        data: Piece | None = None
        while True:
            try:
                # Small messages come one by one, and asking before waiting would find nothing.
                data = source.receive_now(RELAY_BUFFER) if data is not None and len(data) == RELAY_BUFFER else None
                if data is None:
                    data = await receive(RELAY_BUFFER)
            except _BROKEN:
                return self._failed(side)
            if not data:
                return await self._source_ended(side, target)
            if inward and self._framed is not None and data[0] == _CLOSE:
                self._client_closes = True
                if self._lost:
                    return self._finish()
            if inward and self._mute:
                continue
            verdict.moved = trio.current_time()
            try:
                sent = send_now(data)
                if sent < len(data):
                    await sink.send_lent(data[sent:])
            except _BROKEN:
                if not inward or self._framed is None:
                    return self._failed(_OTHER[side])
                # What the backend has said before may still be on its way, its close frame among it.
                self._mute = True
                continue
            if inward:
                traffic.bytes_in += len(data)
            else:
                traffic.bytes_out += len(data)

    async def part(self, ended: Ended) -> None:
        """Take leave in the way the end allows; what is not closed afterwards has to be cut."""
        if self._lost and ended.by == "backend":
            with suppress(*_BROKEN):
                await self._tell_of_loss()
            return
        if ended.error is not None and (self._framed is None or ended.by != "proxy"):
            return
        with suppress(*_BROKEN):
            if self._framed is not None and ended.by == "proxy":
                await self._framed.close(ended.code or GOING_AWAY, ended.reason)
            await self._until_finished()
            await self._client.aclose()
            await self._backend.aclose()

    async def _tell_of_loss(self) -> None:
        assert self._framed is not None
        if not self._framed.between:
            return  # the client must not take for whole what it has
        await self._framed.close(SERVICE_RESTART, BACKEND_LOST)
        if _can_half_close(self._client):
            await self._client.send_eof()
        await self._until_finished()  # closing before the client's answer has come would be a reset
        await self._client.aclose()

    async def _until_finished(self) -> None:
        if not self._finished:
            self._parting = trio.Event()
            await self._parting.wait()

    async def _source_ended(self, side: EndedBy, target: trio.abc.Stream) -> None:
        if side == "backend" and self._loses_backend():
            return
        first = self._ended_first is None
        self._ended_first = self._ended_first or side
        half_open = False
        if first and _can_half_close(target):
            half_open = True
            try:
                await target.send_eof()
            except _BROKEN:
                self._failed(_OTHER[side])
        else:
            self._finish()
        if self._framed is not None or not half_open:
            self._verdict.settle(Ended(None, "", self._ended_first, None))

    def _finish(self) -> None:
        self._finished = True
        if self._parting is not None:
            self._parting.set()

    def _loses_backend(self) -> bool:
        """The backend has ended or broken; whether that is a loss, which is settled then."""
        if self._framed is None or self._framed.closing or self._ended_first is not None or self._parting is not None:
            return False
        self._lost = self._mute = True
        self._ended_first = "backend"
        error = None if self._client_closes else "upstream_closed"
        self._verdict.settle(Ended(None, BACKEND_LOST, "backend", error))
        return True

    def _failed(self, side: EndedBy) -> None:
        if side == "backend" and self._loses_backend():
            return
        self._finish()
        if self._framed is not None and self._framed.closing:
            self._verdict.settle(Ended(None, "", self._ended_first or side, None))
        else:
            self._verdict.settle(Ended(None, "", side, "client_gone" if side == "client" else "upstream_closed"))


def _can_half_close(stream: trio.abc.Stream) -> TypeGuard[trio.abc.HalfCloseableStream]:
    """Whether `send_eof` does something. TLS streams have none, and under pushed-back bytes it does nothing."""
    inner = stream
    while isinstance(inner, PrefixedStream):
        inner = inner.inner
    return isinstance(stream, trio.abc.HalfCloseableStream) and isinstance(inner, trio.abc.HalfCloseableStream)
