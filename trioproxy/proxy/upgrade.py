"""After a 101: check that it is the one that was asked for, then carry messages or bytes until the stream ends.

The handshake itself is an ordinary exchange on the request path, so a backend's refusal reaches the client as the
HTTP answer it was.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode

from trioproxy.errors import UpstreamProtocol
from trioproxy.http1.fields import first
from trioproxy.http1.forward import switching_head
from trioproxy.http1.head import RequestHead, ResponseHead
from trioproxy.observe.metrics import ServiceCounters
from trioproxy.proxy.client import Client
from trioproxy.proxy.closer import Closer, Ended
from trioproxy.proxy.live import LiveConnection
from trioproxy.proxy.outcome import Outcome, Switched
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.request import Request
from trioproxy.proxy.tunnel import forward_bytes
from trioproxy.proxy.upstream import Upstream
from trioproxy.proxy.waits import Waits
from trioproxy.proxy.websocket import WebSocketSettings, forward_messages
from trioproxy.routing.route import Route

WEBSOCKET = b"websocket"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


def asks_websocket(head: RequestHead) -> bool:
    """Whether the request is a WebSocket handshake (RFC 6455 §4.1)."""
    return WEBSOCKET in head.upgrade and head.method == b"GET"


def keeps_extensions(plane: Plane, route: Route) -> bool:
    """Whether Sec-WebSocket-Extensions may be negotiated end to end: only where frames pass as they are."""
    return (route.websocket or plane.config.websocket.mode) == "relay"


def check_switch(request: RequestHead, response: ResponseHead, *, extensions: bool) -> None:
    """Raise UpstreamProtocol unless this 101 answers the request."""
    if response.upgrade not in request.upgrade:
        raise UpstreamProtocol("the backend switched to a protocol that was not asked for")
    if response.upgrade != WEBSOCKET:
        return
    key = first(request.fields, b"sec-websocket-key") or b""
    expected = b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    if first(response.fields, b"sec-websocket-accept") != expected:
        raise UpstreamProtocol("the backend's Sec-WebSocket-Accept does not fit the key")
    if not extensions and first(response.fields, b"sec-websocket-extensions"):
        raise UpstreamProtocol("the backend chose a WebSocket extension that was not offered")


class Upgrade:
    """Carries on one exchange after its 101."""

    __slots__ = (
        "_client",
        "_extensions",
        "_live",
        "_plane",
        "_request",
        "_route",
        "_upstream",
    )

    def __init__(
        self, plane: Plane, client: Client, request: Request, upstream: Upstream, live: LiveConnection, route: Route
    ) -> None:
        self._plane = plane
        self._client = client
        self._request = request
        self._upstream = upstream
        self._live = live
        self._route = route
        self._extensions = keeps_extensions(plane, route)

    async def switch(self, switched: Switched, cookie: bytes) -> Outcome:
        """Answer the client with the 101 and forward until the end. Raises UpstreamProtocol, ClientGone.

        `cookie` is to be set with the answer; empty = none.
        """
        upgrade = await self._answer(switched, cookie)
        del switched
        record = self._request.record
        counters = self._plane.metrics.service(self._route.service)
        self._live.closer = Closer()
        try:
            ended = await self._forward(counters, websocket=upgrade == WEBSOCKET)
        finally:
            self._live.closer = None
        record.error = ended.error
        record.detail = f"ended by {ended.by}" + (f": {ended.reason}" if ended.reason else "")
        record.close_code = ended.code
        return Outcome(keep_client=False, keep_upstream=False)

    async def _answer(self, switched: Switched, cookie: bytes) -> bytes:
        """Pass the 101 on; the protocol that it switches to."""
        head, record = switched.head, self._request.record
        check_switch(self._request.head, head, extensions=self._extensions)
        upgrade = head.upgrade or b""
        record.status = 101
        record.kind = "websocket" if upgrade == WEBSOCKET else "tunnel"
        self._request.response_begun = True
        request_id = record.id.encode("ascii")
        await self._client.send(switching_head(head, upgrade=upgrade, request_id=request_id, cookie=cookie))
        self._upstream.stream.unread(switched.rest)
        return upgrade

    async def _forward(self, counters: ServiceCounters, *, websocket: bool) -> Ended:
        config = self._plane.config
        waits = Waits.of(config, self._route)
        closer = self._live.closer
        assert closer is not None
        client, backend, record = self._client.stream, self._upstream.stream, self._request.record
        if websocket:
            counters.websockets += 1
        else:
            counters.tunnels += 1
        try:
            if websocket and not self._extensions:
                settings = WebSocketSettings(
                    max_message=config.websocket.max_message,
                    ping_interval=config.websocket.ping_interval,
                    ping_timeout=config.websocket.ping_timeout,
                    idle=waits.websocket_idle,
                    close=waits.close,
                )
                return await forward_messages(client, backend, settings, record, closer=closer)
            return await forward_bytes(
                client,
                backend,
                idle=waits.websocket_idle,
                close=waits.close,
                traffic=record,
                closer=closer,
                websocket=websocket,
            )
        finally:
            if websocket:
                counters.websockets -= 1
            else:
                counters.tunnels -= 1
