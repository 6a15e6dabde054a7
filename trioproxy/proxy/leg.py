"""One side of a forwarded WebSocket: a trio-websocket connection, its pings, and how it ends."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from trioproxy.proxy.closer import Ended
from trioproxy.proxy.frames import close_frame
from trioproxy.proxy.leg_stream import LegStream, Side

RECEIVE_BUFFER = 64 * 1024
QUEUE = 1
"""Messages read ahead: one is read while the one before is being sent on."""

NO_CODE = 1005
ABNORMAL = 1006
MESSAGE_TOO_BIG = 1009
_UNREADABLE = (1002, 1007)  # what wsproto says of bytes it cannot take


class Leg:
    """The WebSocket to the client (we are its server) or to the backend (we are its client).

    Start `run` first; then `socket` may be used, until `close`. `max_message` is in bytes (0 = no limit),
    `ping_interval` and `ping_timeout` in seconds (0 = none). `lost` is called, with the reason, when the peer
    leaves pings unanswered, or does not take the answer to its close frame within `close` seconds.
    """

    def __init__(
        self,
        side: Side,
        stream: trio.abc.Stream,
        *,
        max_message: int,
        ping_interval: float,
        ping_timeout: float,
        close: float,
        lost: Callable[[Ended], None],
    ) -> None:
        self.side: Side = side
        self._stream = LegStream(stream, side, max_message=max_message, refused=self._peer_is_at_fault)
        self._socket: WebSocketConnection | None = None
        self._max_message = max_message
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout or math.inf
        self._close = close
        self._lost = lost
        self._running = trio.CancelScope()
        self._pinging = trio.CancelScope()
        self._closing = trio.CancelScope()
        self._stopped = trio.Event()
        self._deaf = False  # trio-websocket's reader fell over

    @property
    def socket(self) -> WebSocketConnection:
        """The connection, once `run` has started."""
        assert self._socket is not None
        return self._socket

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read and answer pings, and send our own, until the connection is over or `close` is called."""
        try:
            with self._running:
                async with trio.open_nursery() as nursery:
                    self._socket = await self._wrap(nursery)
                    task_status.started()
                    with self._pinging:
                        await self._keep_alive()
        except* LocalProtocolError:
            # The reader answers a ping that comes in after our close frame, which wsproto refuses
            # (python-trio/trio-websocket#184). No answer to the close frame will be seen any more.
            self._deaf = True
            self._closing.cancel()
        finally:
            self._stopped.set()

    def ended(self) -> Ended:
        """What ended the connection, once `socket` has raised ConnectionClosed and `close` was not called."""
        fault = self._fault()
        if fault is not None:
            return fault
        closed = self.socket.closed
        assert closed is not None
        if closed.code == ABNORMAL:
            return Ended(ABNORMAL, "", self.side, "client_gone" if self.side == "client" else "upstream_closed")
        return Ended(int(closed.code), closed.reason or "", self.side, None)

    async def close(self, code: int, reason: str) -> None:
        """Send the close frame that is due, wait for the peer's, close the stream. Once only.

        The code is not sent to a peer that has closed already, or broke the rules and hears that instead.
        Waits for the peer as long as the caller lets it; a peer that is gone is no error. Whatever happens,
        the stream's owner closes it afterwards.
        """
        with self._closing:
            # 1005 means "no code" and must not be sent; wsproto knows it only by identity.
            await self.socket.aclose(CloseReason.NO_STATUS_RCVD if code == NO_CODE else code, reason or None)
        self._stream.stop()
        self._pinging.cancel()
        if self._stream.reading:
            self._running.cancel()  # else it may be about to answer a close frame
        await self._stopped.wait()
        fault = self._fault()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if fault is not None and fault.code is not None:
                key = os.urandom(4) if self.side == "backend" else None
                await self._stream.linger(close_frame(fault.code, fault.reason, key=key))
            elif self._deaf:
                await self._stream.linger()
            else:
                await self._stream.finish()

    def _fault(self) -> Ended | None:
        """What the peer did wrong and was not told yet: trio-websocket drops such a connection without a word."""
        closed = self._socket.closed if self._socket is not None else None
        if closed is None or self._stream.close_sent:
            return None
        if self._stream.too_big:
            reason = f"larger than {self._max_message} bytes"
            return Ended(MESSAGE_TOO_BIG, reason, self.side, "message_too_big")
        if closed.code in _UNREADABLE:
            return Ended(int(closed.code), closed.reason or "", self.side, "protocol_error")
        return None

    def _peer_is_at_fault(self) -> bool:
        return self._fault() is not None

    async def _wrap(self, nursery: trio.Nursery) -> WebSocketConnection:
        if self.side == "client":
            request = await wrap_server_stream(
                nursery, self._stream, QUEUE, max_message_size=sys.maxsize, receive_buffer_size=RECEIVE_BUFFER
            )
            return await request.accept()
        return await wrap_client_stream(
            nursery,
            cast(trio.SocketStream, self._stream),  # documented as "an arbitrary stream"
            "localhost",
            "/",
            message_queue_size=QUEUE,
            max_message_size=sys.maxsize,
            receive_buffer_size=RECEIVE_BUFFER,
        )

    async def _keep_alive(self) -> None:
        while self._ping_interval:
            await trio.sleep(self._ping_interval)
            try:
                with self._stream.expecting_pong(self._ping_timeout) as patience:
                    await self.socket.ping()
            except ConnectionClosed as closed:
                await self._answer_close(closed)
                return
            if patience.cancelled_caught:
                self._lost(Ended(ABNORMAL, "", self.side, "ping_timeout"))
                return

    async def _answer_close(self, closed: ConnectionClosed) -> None:
        """See to it that a peer which has closed, but takes nothing, does not keep everything waiting."""
        await trio.sleep(self._close)
        if closed.reason is not None and closed.reason.code != ABNORMAL and self._stream.busy:
            self._lost(Ended(int(closed.reason.code), closed.reason.reason or "", self.side, None))
