"""A WebSocket in mode "message": both legs are terminated, whole messages go from one to the other."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from trio_websocket import ConnectionClosed

from trioproxy.net.stream import abort
from trioproxy.proxy.closer import ABORT_SECONDS, BACKEND_LOST, GOING_AWAY, SERVICE_RESTART, Closer, Ended, Traffic
from trioproxy.proxy.leg import ABNORMAL, Leg
from trioproxy.proxy.leg_stream import Side
from trioproxy.proxy.verdict import Verdict

INTERNAL_ERROR = 1011


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """Bounds of one forwarded WebSocket, in bytes and seconds. 0 is "none", except for `close`."""

    max_message: int
    ping_interval: float
    ping_timeout: float
    idle: float
    close: float


async def forward_messages(
    client: trio.abc.Stream,
    backend: trio.abc.Stream,
    settings: WebSocketSettings,
    traffic: Traffic,
    *,
    closer: Closer,
) -> Ended:
    """Forward messages both ways after the opening handshakes, until a side, a timeout or `closer` ends it.

    Kind and boundaries of messages, and close codes with their reasons, arrive unchanged; codes that wsproto
    does not know (1004, 1014 to 2999) are protocol errors to it. A side that does not take its messages stops
    the other one: at most `leg.QUEUE` + 2 messages are held each way. The closing handshakes have
    `settings.close` seconds. Both streams are closed when this returns or is cancelled.
    """

    def leg(side: Side, stream: trio.abc.Stream) -> Leg:
        return Leg(
            side,
            stream,
            max_message=settings.max_message,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            close=settings.close,
            lost=verdict.settle,
        )

    verdict = Verdict(closer, settings.idle)
    front, back = leg("client", client), leg("backend", backend)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(front.run)
            await nursery.start(back.run)
            nursery.start_soon(_pump, front, back, traffic, verdict)
            nursery.start_soon(_pump, back, front, traffic, verdict)
            ended = await verdict.reached()
            with trio.move_on_after(settings.close):
                async with trio.open_nursery() as partings:
                    partings.start_soon(front.close, *_to_client(ended))
                    partings.start_soon(back.close, *_to_backend(ended))
            nursery.cancel_scope.cancel()
        return ended
    finally:
        # A stream that was closed does not mind. One that was not has missed its closing handshake: show that.
        with trio.move_on_after(ABORT_SECONDS, shield=True):
            await abort(client)
            await abort(backend)


async def _pump(source: Leg, target: Leg, traffic: Traffic, verdict: Verdict) -> None:
    """Carry messages one way until `source` is over; all that came before its close frame are delivered."""
    receive, send = source.socket.get_message, target.socket.send_message
    inward = source.side == "client"
    while True:
        try:
            message = await receive()
        except ConnectionClosed:
            verdict.settle(source.ended())
            return
        try:
            await send(message)
        except ConnectionClosed:
            return  # the other pump tells why
        verdict.moved = trio.current_time()
        if inward:
            traffic.bytes_in += _payload(message)
        else:
            traffic.bytes_out += _payload(message)


def _payload(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


def _to_client(ended: Ended) -> tuple[int, str]:
    """Code and reason for the client. A backend that is lost may soon be back, so clients are told to try: 1012."""
    if ended.by != "backend" or ended.error is None:
        return _to_causer(ended)
    if ended.code == ABNORMAL:
        return SERVICE_RESTART, BACKEND_LOST
    return INTERNAL_ERROR, "the service broke the WebSocket protocol"


def _to_backend(ended: Ended) -> tuple[int, str]:
    if ended.by != "client" or ended.error is None:
        return _to_causer(ended)
    return GOING_AWAY, "the client was lost"


def _to_causer(ended: Ended) -> tuple[int, str]:
    """The agreed end, or the proxy's own; also for a side that is silent, should it still listen."""
    if ended.code is None or ended.code == ABNORMAL:
        return GOING_AWAY, "no answer"
    return ended.code, ended.reason
