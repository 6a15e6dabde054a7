"""A client's connection: head after head until it ends. The top of the request path.

read a head ─ match ─ may the client in? ─ exchange ─ record ─ next head
     └───────────────── an error is answered here, once ─────────────────┘
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from trioproxy.config.schema import ListenerConfig
from trioproxy.errors import (
    BadRequest,
    ClientGone,
    Draining,
    HeadTimeout,
    HeadTooLarge,
    ProxyError,
)
from trioproxy.http1.head import REQUEST_LINE, HeadBuffer, RequestHead
from trioproxy.http1.parse import parse_request
from trioproxy.http1.reply import error_reply, redirect_reply
from trioproxy.net.clock import deadline_after
from trioproxy.net.peer import Peer
from trioproxy.net.prefixed import PrefixedStream
from trioproxy.net.stream import abort, is_readable
from trioproxy.observe.access_log import RequestRecord
from trioproxy.policy.access import check_access
from trioproxy.proxy.begun import Begun, note_bug
from trioproxy.proxy.client import Client
from trioproxy.proxy.exchange import Exchange
from trioproxy.proxy.express import Express, Unread
from trioproxy.proxy.live import LiveConnection
from trioproxy.proxy.plane import Plane
from trioproxy.proxy.request import Opener, Request
from trioproxy.proxy.router import AddSlash, Match
from trioproxy.proxy.stickiness import wish_of

READ_BYTES = 64 * 1024
DRAINING = "this worker is shutting down; connect again"


class Connection:
    """One client connection. Make it, `serve` it once; the caller owns and closes the stream."""

    def __init__(self, plane: Plane, stream: PrefixedStream, peer: Peer) -> None:
        self._plane = plane
        self._stream = stream
        self._peer = peer
        self._client = Client(stream, peer)
        self._live = LiveConnection(plane.ids.make(), peer)
        listener = next((one for one in plane.config.listeners if one.name == peer.listener), None)
        self._redirects = listener is not None and listener.redirect_to_https
        self._opener = Opener(peer)
        self._express = Express(plane, self._client, self._live, self._opener, redirects=self._redirects)
        self._request: Request | None = None  # the one that is served the long way
        self._unread = False  # the last request leaves bytes behind that came or are still coming

    async def serve(self) -> None:
        """Serve requests until either side is done. Expected failures end it; only bugs and Cancelled leave it."""
        live = self._live
        self._plane.live.add(live)
        try:
            while await self._serve_some():
                pass
            if self._unread:
                with live.open_scope():
                    await self._client.linger(self._plane.config.timeouts.close)
        finally:
            self._plane.live.remove(live)
            if self._express.begun is not None:
                with trio.move_on_after(self._plane.config.timeouts.close, shield=True):
                    await self._cut_short(self._express.begun)

    async def _serve_some(self) -> bool:
        """Serve ordinary requests, then one that is not; whether more may come."""
        live, express = self._live, self._express
        handed_over: Unread | Begun | None = None
        with live.open_scope() as scope:
            handed_over = await express.serve()
        begun = express.begun
        if begun is not None:
            if scope.cancel_called and not live.late:
                return False  # ended from outside; `serve` cuts it short
            if scope.cancelled_caught:
                begun.expire()
                handed_over = begun
            express.begun = None
        if handed_over is None:
            self._unread = (express.closing or self._plane.drain.active) and is_readable(self._stream)
            return False
        with live.open_scope():
            return await self._serve_one(handed_over)
        return False

    async def _serve_one(self, handed_over: Unread | Begun) -> bool:
        """Serve a request the long way; whether more may come."""
        if isinstance(handed_over, Begun):
            self._request = handed_over.request
            return await self._answer_for(self._request.record, partial(self._go_on, handed_over))
        self._request, record = None, handed_over.record
        try:
            if handed_over.failure is not None:
                raise handed_over.failure
            found = await self._read_head(handed_over.data, record)
        except ProxyError as error:
            self._live.record = record
            self._unread = True
            try:
                return await self._fail(error, record)
            finally:
                self._plane.conclude(self._live, record)
        if found is None:
            return False
        self._live.record = record
        self._live.requests += 1
        return await self._answer_for(record, partial(self._serve_head, *found, record))

    # --- reading a head --------------------------------------------------------------------------------

    async def _read_head(self, data: bytes, record: RequestRecord) -> tuple[bytes, bytes] | None:
        """The raw head that begins with `data`, and what came after it; None when the connection ends before."""
        plane = self._plane
        timeouts = plane.config.timeouts
        buffer = HeadBuffer(
            plane.config.limits.head_bytes,
            first_line=REQUEST_LINE,
            too_large=HeadTooLarge,
            malformed=BadRequest,
            empty_line=True,
        )
        raw = buffer.feed(data)
        idle = timeouts.keep_alive if self._live.requests else timeouts.head
        scope = trio.CancelScope(deadline=deadline_after(timeouts.head if buffer.started else idle))
        if raw is None and plane.drain.impatient:  # the drain began in the instant in which the first byte came
            raise Draining(DRAINING, retry_after=1)
        if not buffer.started:
            plane.drain.interrupts(scope)
        try:
            with scope:
                while raw is None:
                    begins = not buffer.started
                    data = await self._stream.receive_some(READ_BYTES)
                    if not data:
                        return None  # also inside a head: nobody is there to be told
                    raw = buffer.feed(data)
                    if begins and buffer.started:
                        # From here on the client may count on an answer: a drain waits for it.
                        plane.drain.spare(scope)
                        record.started_at, record.began = time.time(), trio.current_time()
                        scope.deadline = deadline_after(timeouts.head)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        finally:
            plane.drain.spare(scope)
        if raw is not None:
            return raw, buffer.rest
        if not buffer.started:
            return None
        raise HeadTimeout(f"the request head was not complete within {timeouts.head:g} s")

    # --- one request -----------------------------------------------------------------------------------

    async def _answer_for(self, record: RequestRecord, work: Callable[[], Awaitable[bool]]) -> bool:
        """Do the work for one request, answer its errors, and account for it; whether more may come."""
        ended = False
        try:
            try:
                keep = await work()
            except ProxyError as error:
                keep = await self._fail(error, record)
            except Exception as bug:  # noqa: BLE001 - it is logged, and ends this one request
                keep = await self._fail(note_bug(bug, record), record)
            ended = True
            if keep and not self._plane.drain.impatient:  # one that was not told so may not be closed yet
                return True
            self._unread = self._request is None or not self._request.body.done or is_readable(self._stream)
            return False
        finally:
            if not ended:
                record.error = record.error or self._live.end_error or "aborted"
            self._plane.conclude(self._live, record)
            if not ended:
                with trio.move_on_after(self._plane.config.timeouts.close, shield=True):
                    await self._abort_response()

    async def _cut_short(self, begun: Begun) -> None:
        """A request on the short way was ended from outside."""
        record = begun.request.record
        record.error = self._live.end_error or "aborted"
        self._plane.leave(self._live, begun.stats, record)
        self._plane.conclude(self._live, record)
        await begun.give_back(self._plane.pool)
        self._request = begun.request
        await self._abort_response()

    async def _abort_response(self) -> None:
        """The client must not take for the whole what it has of an answer that was cut."""
        request = self._request
        if request is not None and request.response_begun and request.record.kind == "http":
            await abort(self._stream)
        else:
            await trio.lowlevel.checkpoint()

    async def _serve_head(self, raw: bytes, rest: bytes, record: RequestRecord) -> bool:
        config = self._plane.config
        head = parse_request(raw, header_count=config.limits.header_count)
        request = self._request = self._opener.open(head, record, config.access)
        request.begin_body(self._stream, rest, limit=config.limits.body_bytes)
        return await self._forward(request)

    # --- its way ---------------------------------------------------------------------------------------

    async def _forward(self, request: Request) -> bool:
        plane, head, record = self._plane, request.head, request.record
        if self._redirects:
            return await self._redirect(request, self._https_url(head))
        found = plane.router.match(head)
        record.session_id, record.service = found.route.key
        check_access(found.route.access, request.origin)
        if isinstance(found, AddSlash):
            return await self._redirect(request, request.origin.prefix + found.location)
        if head.upgrade and plane.drain.impatient:
            raise Draining(DRAINING, retry_after=1)
        return await self._exchange(request, found)

    async def _exchange(self, request: Request, match: Match) -> bool:
        stats = self._plane.enter(self._live, match.route, request.record)
        waits = stats.waits(self._plane.config)
        return await self._go_on(Begun(request, match, stats, waits, wish_of(request, match.route)))

    async def _go_on(self, begun: Begun) -> bool:
        exchange = Exchange(self._plane, self._client, begun, self._live)
        try:
            outcome = await exchange.run()
            return outcome.keep_client
        finally:
            self._plane.leave(self._live, begun.stats, begun.request.record)

    def _https_url(self, head: RequestHead) -> bytes:
        if not head.authority:
            raise BadRequest("a Host is needed to be sent on to https")
        path = head.path if head.path != b"*" else b""  # RFC 9112 §3.2.4: "OPTIONS *" as a URL
        return b"https://" + https_authority(head.authority, self._plane.config.listeners) + path + head.query

    async def _redirect(self, request: Request, location: bytes) -> bool:
        close = not (request.head.keep_alive and request.body.done) or self._plane.drain.active
        request.record.status = 308
        reply = redirect_reply(location, request.head, request_id=request.record.id.encode("ascii"), close=close)
        await self._answer(reply, request)
        return not close

    # --- its end ---------------------------------------------------------------------------------------

    async def _fail(self, error: ProxyError, record: RequestRecord) -> bool:
        """Answer an error, or cut the connection when it is too late for an answer. Whether it may go on."""
        request = self._request
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
        close = close or self._plane.drain.active
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


def https_authority(authority: bytes, listeners: Sequence[ListenerConfig]) -> bytes:
    """Where https is served for someone who came to this authority: its host, the first TLS listener's port."""
    host = re.sub(rb":[0-9]*\Z", b"", authority)
    for listener in listeners:
        if listener.tls != "off" and not listener.bind.startswith(("unix:", "fd:")):
            port = listener.bind.rpartition(":")[2]
            return host if port in ("443", "0") else host + b":" + port.encode("ascii")
    return host
