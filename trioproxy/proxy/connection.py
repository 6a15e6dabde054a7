"""A client's connection: head after head until it ends. The top of the request path.

read a head ─ match ─ may the client in? ─ exchange ─ record ─ next head
     └───────────────── an error is answered here, once ─────────────────┘
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence

import trio

from trioproxy.config.schema import ListenerConfig
from trioproxy.errors import (
    BadRequest,
    BodyTooLarge,
    ClientGone,
    Draining,
    HeadTimeout,
    HeadTooLarge,
    InternalError,
    ProxyError,
)
from trioproxy.http1.forwarded import find_origin
from trioproxy.http1.framing import Coding, open_body
from trioproxy.http1.head import REQUEST_LINE, HeadBuffer, RequestHead
from trioproxy.http1.parse import parse_request
from trioproxy.http1.reply import error_reply, redirect_reply
from trioproxy.net.clock import deadline_after
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort, is_readable
from trioproxy.observe.access_log import RequestRecord
from trioproxy.observe.metrics import method_label
from trioproxy.policy.access import check_access
from trioproxy.proxy.client import Client
from trioproxy.proxy.exchange import Exchange
from trioproxy.proxy.live import LiveConnection
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.request import Request
from trioproxy.proxy.router import AddSlash, Match

READ_BYTES = 64 * 1024
DRAINING = "this worker is shutting down; connect again"

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}")

log = logging.getLogger("trioproxy.proxy")


class Connection:
    """One client connection. Make it, `serve` it once; the caller owns and closes the stream."""

    def __init__(self, plane: Plane, stream: PrefixedStream, peer: Peer) -> None:
        self._plane = plane
        self._stream = stream
        self._peer = peer
        self._client = Client(stream, peer)
        self._live = LiveConnection(plane.ids.make(), peer)
        self._listener = next((one for one in plane.config.listeners if one.name == peer.listener), None)
        self._unread = False  # the last request leaves bytes behind that came or are still coming

    async def serve(self) -> None:
        """Serve requests until either side is done. Expected failures end it; only bugs and Cancelled leave it."""
        self._plane.live.add(self._live)
        try:
            with self._live.scope:
                while await self._serve_one():
                    pass
                if self._unread:
                    await self._client.linger(self._plane.config.timeouts.close)
        finally:
            self._plane.live.remove(self._live)

    # --- reading a head --------------------------------------------------------------------------------

    async def _serve_one(self) -> bool:
        record = RequestRecord(
            id=self._plane.ids.make(), client=self._peer.host, listener=self._peer.listener, started_at=0.0, began=0.0
        )
        try:
            found = await self._read_head(record)
        except ProxyError as error:
            self._live.record = record
            self._unread = True
            try:
                return await self._fail(error, record, None)
            finally:
                self._finish(record)
        if found is None:
            return False
        raw, rest = found
        self._live.record = record
        self._live.requests += 1
        return await self._serve_head(raw, rest, record)

    async def _read_head(self, record: RequestRecord) -> tuple[bytes, bytes] | None:
        """The raw head and what came after it; None when the connection ends between two requests."""
        config = self._plane.config
        timeouts = config.timeouts
        buffer = HeadBuffer(
            config.limits.head_bytes,
            first_line=REQUEST_LINE,
            too_large=HeadTooLarge,
            malformed=BadRequest,
            empty_line=True,
        )
        idle = timeouts.keep_alive if self._live.requests else timeouts.head
        raw: bytes | None = None
        scope = trio.CancelScope(deadline=deadline_after(idle))
        self._plane.drain.interrupts(scope)
        try:
            with scope:
                while raw is None:
                    data = bytes(await self._stream.receive_some(READ_BYTES))
                    if not data:
                        return None  # also inside a head: nobody is there to be told
                    begins = not buffer.started
                    if begins:
                        record.started_at = time.time()
                        record.began = trio.current_time()
                    raw = buffer.feed(data)
                    if raw is None and begins and buffer.started:
                        # From here on the client may count on an answer: a drain waits for it.
                        self._plane.drain.spare(scope)
                        scope.deadline = deadline_after(timeouts.head)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        finally:
            self._plane.drain.spare(scope)
        if raw is not None:
            return raw, buffer.rest
        if not buffer.started:
            return None
        if trio.current_time() < scope.deadline:  # a drain began in the instant in which the first byte came
            raise Draining(DRAINING, retry_after=1)
        raise HeadTimeout(f"the request head was not complete within {timeouts.head:g} s")

    # --- one request -----------------------------------------------------------------------------------

    async def _serve_head(self, raw: bytes, rest: bytes, record: RequestRecord) -> bool:
        request: Request | None = None
        ended = False
        try:
            try:
                head = parse_request(raw, header_count=self._plane.config.limits.header_count)
                request = self._open(head, record)
                self._begin_body(request, rest)
                keep = await self._forward(request)
            except ProxyError as error:
                keep = await self._fail(error, record, request)
            except Exception:
                log.exception("a request met a bug", extra={"request_id": record.id})
                keep = await self._fail(InternalError("trioproxy met a bug; its log says more"), record, request)
            ended = True
            if keep and not self._plane.drain.active:
                return True
            self._unread = request is None or not request.body.done or is_readable(self._stream)
            return False
        finally:
            if not ended:
                record.error = record.error or self._live.end_error or "aborted"
            self._finish(record)
            if not ended and request is not None and request.response_begun and record.kind == "http":
                # Cut from outside in mid-response: the client must not take what it has for the whole.
                with trio.move_on_after(self._plane.config.timeouts.close, shield=True):
                    await abort(self._stream)

    def _open(self, head: RequestHead, record: RequestRecord) -> Request:
        record.method = head.method.decode("ascii")
        record.path = head.path.decode("ascii")
        record.host = head.authority.decode("ascii")
        given = head.special.get(b"x-request-id", [b""])[0]
        if given and _REQUEST_ID.fullmatch(given):
            record.id = given.decode("ascii")
        origin = find_origin(
            self._peer.host,
            head.special,
            tls=self._peer.tls,
            authority=head.authority,
            trusted=self._plane.config.access.networks,
            local_peer=self._peer.address == "unix",
        )
        record.client = origin.client
        return Request(head, origin, open_body(head.framing), b"", record)

    def _begin_body(self, request: Request, rest: bytes) -> None:
        """Take what came of the body together with the head. Raises BadRequest, BodyTooLarge."""
        limit = self._plane.config.limits.body_bytes
        framing = request.head.framing
        if limit and framing.coding is Coding.LENGTH and framing.length > limit:
            raise BodyTooLarge(f"the request body is larger than {limit} bytes")
        request.take(self._stream, rest, limit=limit, early=True)

    # --- its way ---------------------------------------------------------------------------------------

    async def _forward(self, request: Request) -> bool:
        plane, head, record = self._plane, request.head, request.record
        if self._listener is not None and self._listener.redirect_to_https:
            return await self._redirect(request, self._https_url(head))
        found = plane.router.match(head)
        record.session_id, record.service = found.route.key
        check_access(found.route.access, request.origin)
        if isinstance(found, AddSlash):
            return await self._redirect(request, request.origin.prefix + found.location)
        if head.upgrade and plane.drain.active:
            raise Draining(DRAINING, retry_after=1)
        return await self._exchange(request, found)

    async def _exchange(self, request: Request, match: Match) -> bool:
        record = request.record
        stats = self._plane.balancer.enter(match.route)
        stats.last_activity = record.started_at
        self._live.route = stats
        try:
            outcome = await Exchange(self._plane, self._client, request, match, stats, self._live).run()
            return outcome.keep_client
        finally:
            self._live.route = None
            stats.bytes += record.bytes_in + record.bytes_out
            stats.last_activity = time.time()
            self._plane.balancer.leave(stats)

    def _https_url(self, head: RequestHead) -> bytes:
        if not head.authority:
            raise BadRequest("a Host is needed to be sent on to https")
        path = head.path if head.path != b"*" else b""  # RFC 9112 §3.2.4: "OPTIONS *" as a URL
        return b"https://" + https_authority(head.authority, self._plane.config.listeners) + path + head.query

    async def _redirect(self, request: Request, location: bytes) -> bool:
        close = not (request.head.keep_alive and request.body.done)
        request.record.status = 308
        reply = redirect_reply(location, request.head, request_id=request.record.id.encode("ascii"), close=close)
        await self._answer(reply, request)
        return not close

    # --- its end ---------------------------------------------------------------------------------------

    async def _fail(self, error: ProxyError, record: RequestRecord, request: Request | None) -> bool:
        """Answer an error, or cut the connection when it is too late for an answer. Whether it may go on."""
        record.error = error.code
        record.detail = error.detail
        self._plane.metrics.errors[error.code] += 1
        if request is not None and request.response_begun:
            await abort(self._stream)
            return False
        record.status = error.status
        if not error.answered:
            return False
        whole = request is not None and request.body.done
        close = error.close or request is None or not whole or not request.head.keep_alive
        head = request.head if request is not None else None
        reply = error_reply(error, head, request_id=record.id.encode("ascii"), close=close)
        try:
            await self._answer(reply, request)
        except ClientGone:
            return False
        return not close

    async def _answer(self, reply: bytes, request: Request | None) -> None:
        """Send a reply of our own. Raises ClientGone."""
        if request is not None:
            request.response_begun = True
        with trio.CancelScope(deadline=deadline_after(self._plane.config.timeouts.stall)) as scope:
            await self._client.send(reply)
        if scope.cancelled_caught:
            raise ClientGone("the client did not take its answer")

    def _finish(self, record: RequestRecord) -> None:
        record.total_seconds = trio.current_time() - record.began
        counters = self._plane.metrics.service(record.service or "")
        counters.requests[method_label(record.method), record.status] += 1
        counters.bytes_in += record.bytes_in
        counters.bytes_out += record.bytes_out
        if record.kind == "http":  # the hours of a WebSocket would say nothing about requests
            counters.seconds.observe(record.total_seconds)
        if record.upstream_head_seconds is not None:
            counters.upstream_head_seconds.observe(record.upstream_head_seconds)
        self._live.bytes_in += record.bytes_in
        self._live.bytes_out += record.bytes_out
        self._live.record = None
        if self._plane.access_log is not None:
            self._plane.access_log.write(record)


def https_authority(authority: bytes, listeners: Sequence[ListenerConfig]) -> bytes:
    """Where https is served for someone who came to this authority: its host, the first TLS listener's port."""
    host = re.sub(rb":[0-9]*\Z", b"", authority)
    for listener in listeners:
        if listener.tls != "off" and not listener.bind.startswith(("unix:", "fd:")):
            port = listener.bind.rpartition(":")[2]
            return host if port in ("443", "0") else host + b":" + port.encode("ascii")
    return host
