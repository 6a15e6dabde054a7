"""One request while it is served: what every station of the path needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from trioproxy.config.schema import TimeoutsConfig
from trioproxy.errors import BadRequest, BodyTooLarge
from trioproxy.http1.forward import trailers
from trioproxy.http1.forwarded import Origin
from trioproxy.http1.framing import Body, Coding, MalformedBody, chunk, last_chunk
from trioproxy.http1.head import RequestHead
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.access_log import RequestRecord
from trioproxy.routing.route import Route


@dataclass(slots=True)
class Request:
    """A request whose head is in."""

    head: RequestHead
    origin: Origin
    body: Body  # receives what is left of the body
    early: bytes  # payload that came with the head
    record: RequestRecord
    consumed: bool = False  # more of the body was taken from the client: it cannot be sent a second time
    response_begun: bool = False  # a byte of a final response went to the client

    def take(self, stream: PrefixedStream, data: bytes, *, limit: int, early: bool = False) -> bytes:
        """Take received bytes as body; the payload among them. What follows the body goes back to the stream.

        Raises BadRequest when they are malformed, BodyTooLarge beyond `limit` bytes (0 = none).
        """
        try:
            payload = self.body.feed(data)
        except MalformedBody as exc:
            raise BadRequest(f"malformed body: {exc}") from None
        if early:
            self.early = payload
        else:
            self.consumed = True
        self.record.bytes_in += len(payload)
        if limit and self.record.bytes_in > limit:
            raise BodyTooLarge(f"the request body is larger than {limit} bytes")
        if self.body.done:
            stream.unread(self.body.rest)
        return payload

    def early_bytes(self) -> bytes:
        """The payload that came with the head, framed for the backend; with the body's end when it is complete."""
        if self.head.framing.coding is not Coding.CHUNKED:
            return self.early
        framed = chunk(self.early) if self.early else b""
        return framed + last_chunk(trailers(self.body.trailers, self.head)) if self.body.done else framed


@dataclass(frozen=True, slots=True)
class Waits:
    """The waits of one request: the route's where it names them, else the configuration's. Seconds, 0 = for ever."""

    connect: float
    response_head: float
    stall: float
    websocket_idle: float
    close: float

    @classmethod
    def of(cls, config: TimeoutsConfig, route: Route) -> Waits:
        """Merge."""
        own = route.timeouts
        return cls(
            connect=config.connect if own.connect is None else own.connect,
            response_head=config.response_head if own.response_head is None else own.response_head,
            stall=config.stall if own.stall is None else own.stall,
            websocket_idle=config.websocket_idle if own.websocket_idle is None else own.websocket_idle,
            close=config.close,
        )
