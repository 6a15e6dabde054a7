"""One request while it is served: what every station of the path needs to know of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from trioproxy.config.schema import AccessConfig
from trioproxy.errors import BadRequest, BodyTooLarge
from trioproxy.http1.cookies import CookieTaker
from trioproxy.http1.forward import trailers
from trioproxy.http1.forwarded import Origin, find_origin, inside, parse_address
from trioproxy.http1.framing import Body, Coding, MalformedBody, Piece, chunk, last_chunk, open_body
from trioproxy.http1.head import RequestHead
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.observe.access_log import RequestRecord

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}")


@dataclass(slots=True)
class Request:
    """A request whose head is in."""

    head: RequestHead
    origin: Origin
    body: Body  # receives what is left of the body
    early: bytes | bytearray  # payload that came with the head, and what was kept of the rest
    record: RequestRecord
    cookies: CookieTaker = field(default_factory=CookieTaker)  # of its connection
    keeps: int = 0  # bytes of payload up to which what is taken is kept, to be sent a second time
    consumed: bool = False  # more of the body was taken from the client: it cannot be sent a second time
    response_begun: bool = False  # a byte of a final response went to the client

    def begin_body(self, stream: PrefixedStream, rest: bytes, *, limit: int) -> None:
        """Take what came of the body together with the head. Raises as `take`."""
        framing = self.head.framing
        if framing.coding is Coding.NONE:
            stream.unread(rest)
            return
        if limit and framing.coding is Coding.LENGTH and framing.length > limit:
            raise BodyTooLarge(f"the request body is larger than {limit} bytes")
        self.take(stream, rest, limit=limit, early=True)

    def take(self, stream: PrefixedStream, data: Piece, *, limit: int, early: bool = False) -> list[Piece]:
        """Take received bytes as body; the payload among them. What follows the body goes back to the stream.

        Raises BadRequest when they are malformed, BodyTooLarge beyond `limit` bytes (0 = none).
        """
        try:
            payload = self.body.split(data)
        except MalformedBody as exc:
            raise BadRequest(f"malformed body: {exc}") from None
        size = sum(map(len, payload))
        if early:
            self.early = b"".join(payload)
        elif size and not self.consumed:
            self._keep(payload, size)
        self.record.bytes_in += size
        if limit and self.record.bytes_in > limit:
            raise BodyTooLarge(f"the request body is larger than {limit} bytes")
        if self.body.done:
            stream.unread(self.body.rest)
        return payload

    def _keep(self, payload: list[Piece], size: int) -> None:
        if len(self.early) + size > self.keeps:
            self.consumed = True
            self.early = b""
            return
        kept = self.early if isinstance(self.early, bytearray) else bytearray(self.early)
        for piece in payload:
            kept += piece
        self.early = kept

    def is_small(self, limit: int) -> bool:
        """Whether the body, as far as it is known, has no more than so many bytes."""
        framing = self.head.framing
        return len(self.early) <= limit and (framing.coding is not Coding.LENGTH or framing.length <= limit)

    def early_bytes(self) -> bytes:
        """The payload that is at hand, framed for the backend; with the body's end when it is complete."""
        early = bytes(self.early)
        if self.head.framing.coding is not Coding.CHUNKED:
            return early
        framed = chunk(early) if early else b""
        return framed + last_chunk(trailers(self.body.trailers, self.head)) if self.body.done else framed


class Opener:
    """Makes requests of the heads that come on one connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._cookies = CookieTaker()
        self._access: AccessConfig | None = None
        self._believed = True  # the peer may say who connected to it
        self._origin: Origin | None = None  # of the last request, where only Host makes a difference

    def open(self, head: RequestHead, record: RequestRecord, access: AccessConfig) -> Request:
        """A request with this head; notes in the record what the head says."""
        record.method = head.method.decode("ascii")
        record.path = head.path.decode("ascii")
        record.host = head.authority.decode("ascii")
        given = head.special.get(b"x-request-id")
        if given and _REQUEST_ID.fullmatch(given[0]):
            record.id = given[0].decode("ascii")
        origin = self._find_origin(head, access)
        record.client = origin.client
        return Request(head, origin, open_body(head.framing), b"", record, self._cookies)

    def _find_origin(self, head: RequestHead, access: AccessConfig) -> Origin:
        peer = self._peer
        if access is not self._access:
            self._access, self._origin = access, None
            self._believed = peer.address == "unix" or inside(parse_address(peer.host), access.networks)
        origin = self._origin
        if origin is None or origin.host != head.authority:
            origin = find_origin(
                peer.host,
                head.special,
                tls=peer.tls,
                authority=head.authority,
                trusted=access.networks,
                local_peer=peer.address == "unix",
            )
            if not self._believed:
                self._origin = origin
        return origin
