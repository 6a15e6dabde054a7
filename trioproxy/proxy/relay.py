"""One try of a request on one backend connection: the request goes up, the response comes down.

A request whose body is already here (most have none) opens no nursery. A body that is still coming is uploaded
beside the download, so that an early answer is relayed at once. One cancel scope holds the deadline of whatever is
being waited for; it moves with the phase and with every piece.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial

import trio

from trioproxy.config.schema import LimitsConfig
from trioproxy.errors import (
    BodyTimeout,
    BodyTruncated,
    ClientGone,
    ProxyError,
    ResponseTimeout,
    TryTimeout,
    UpstreamClosed,
    UpstreamProtocol,
)
from trioproxy.http1.forward import informational_head, mapped_response_head, trailers
from trioproxy.http1.framing import Body, Coding, MalformedBody, Piece, chunked, last_chunk, open_body
from trioproxy.http1.head import STATUS_LINE, HeadBuffer, ResponseHead
from trioproxy.http1.parse import parse_response
from trioproxy.http1.rewrite import Mapping
from trioproxy.net.clock import deadline_after
from trioproxy.net.lent import LARGE
from trioproxy.proxy.client import Client
from trioproxy.proxy.outcome import Declined, Outcome, Result, Switched
from trioproxy.proxy.request import Request
from trioproxy.proxy.upstream import Upstream
from trioproxy.proxy.waits import Waits

READ_SMALL = 64 * 1024  # bytes
READ_LARGE = LARGE  # for bodies that have filled a small read
WATCH_AFTER = 1.0  # seconds of silence from the backend after which the client is watched for leaving
MAX_INFORMATIONAL = 1000  # 1xx responses before a final one


class _Awaited(Enum):
    """Who is to blame when the deadline passes."""

    CLIENT_BODY = "the client stopped sending the request body"
    BACKEND_TAKES = "the backend stopped taking the request body"
    BACKEND_HEAD = "the backend did not answer"
    BACKEND_BODY = "the backend stopped sending the response body"
    CLIENT_TAKES = "the client stopped taking the response body"


class Relay:
    """One try. Make it, `run` it once."""

    def __init__(
        self,
        client: Client,
        request: Request,
        upstream: Upstream,
        *,
        waits: Waits,
        limits: LimitsConfig,
        mapping: Mapping | None,
        draining: Callable[[], bool],
        answered: Callable[[int, float], None],
        decline: Callable[[ResponseHead], ProxyError | None],
        cookie: bytes,
        per_try: float = 0.0,
    ) -> None:
        """`answered` is told the status and the seconds that it took. `cookie`: to be set with the answer, or empty.

        `decline` is asked about an answer of status 5xx: the error, if another backend is tried instead. `per_try` is
        a bound in seconds on the wait for the answer, less than `waits.response_head`: a TryTimeout.
        """
        self._client = client
        self._request = request
        self._upstream = upstream
        self._waits = waits
        self._limits = limits
        self._mapping = mapping
        self._draining = draining
        self._answered = answered
        self._decline = decline
        self._cookie = cookie
        self._hurried = per_try > 0 and (per_try < waits.response_head or not waits.response_head)
        self._answer_seconds = per_try if self._hurried else waits.response_head
        self._clock = trio.CancelScope(deadline=deadline_after(self._answer_seconds))
        self._awaited = _Awaited.BACKEND_HEAD
        self._sent_at = 0.0
        self._request_sent = False
        self._head_came = False
        self._continued = False  # a 100 came: a client that waited for it sends its body now
        self._upload_awaits: _Awaited | None = None  # beside what the download waits for
        self._uploads = False  # a task of its own reads from the client
        self._watch_after = WATCH_AFTER

    async def run(self, raw_head: bytes) -> Result:
        """Send the request with this head, relay the response. Raises ProxyError.

        Once `request.response_begun` is set the client has part of the answer, and an error can only cut it short.
        """
        return await self._in_time(partial(self._send, raw_head))

    async def resume(self, sent_at: float, received: bytes) -> Result:
        """Relay the response to a request that was sent before, and may have begun to come. Raises as `run`."""
        self._request_sent, self._sent_at = True, sent_at
        if not received:  # it has been silent for long enough
            self._watch_after = 0.0
        if self._answer_seconds:
            self._clock.deadline = sent_at + self._answer_seconds
        return await self._in_time(partial(self._download, received))

    async def _send(self, raw_head: bytes) -> Result | None:
        if not self._request.body.done:
            return await self._duplex(raw_head)
        # What came in one piece goes out in one: it needs no deadline of its own before the answer's.
        self._request_is_sent()
        await self._upstream.send(raw_head + self._request.early_bytes())
        return await self._download()

    async def _in_time(self, work: Callable[[], Awaitable[Result | None]]) -> Result:
        outcome = None
        with self._clock:
            outcome = await work()
        if outcome is None:
            raise self._timed_out()
        return outcome

    # --- time ------------------------------------------------------------------------------------------

    def _expect(self, awaited: _Awaited, seconds: float) -> None:
        self._awaited = awaited
        self._push(seconds)

    def _push(self, seconds: float) -> None:
        # Moving a deadline costs trio more than a small send does, so a move by less than 1/64 is left out.
        deadline = deadline_after(seconds)
        if not abs(deadline - self._clock.deadline) <= seconds / 64:  # inf - inf is nan: both never
            self._clock.deadline = deadline

    def _timed_out(self) -> ProxyError:
        awaited = self._awaited
        if awaited is _Awaited.BACKEND_BODY and not self._request_sent and self._upload_awaits is _Awaited.CLIENT_BODY:
            awaited = _Awaited.CLIENT_BODY  # a backend may wait for the rest of a request before it goes on
        what = f"{awaited.value} for too long"
        if awaited is _Awaited.CLIENT_TAKES:
            return ClientGone(what)
        if awaited is _Awaited.CLIENT_BODY:
            return BodyTimeout(what)
        if self._request.response_begun:
            return BodyTruncated(what)
        if awaited is _Awaited.BACKEND_HEAD and self._hurried:
            return TryTimeout(what)
        return ResponseTimeout(what)

    def _request_is_sent(self) -> None:
        self._request_sent = True
        self._sent_at = trio.current_time()
        if not self._head_came:
            self._expect(_Awaited.BACKEND_HEAD, self._answer_seconds)

    # --- up --------------------------------------------------------------------------------------------

    async def _duplex(self, raw_head: bytes) -> Result | None:
        # Expected failures are values inside the nursery; the first one ends both directions and is raised here.
        failures: list[ProxyError] = []
        outcome: Result | None = None
        self._uploads = True
        async with trio.open_nursery() as nursery:

            async def upload() -> None:
                try:
                    if await self._upload(raw_head):
                        await trio.sleep(WATCH_AFTER)
                        await self._client.wait_gone()
                        raise ClientGone("the client left before its answer was complete")
                except ProxyError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(upload)
            try:
                outcome = await self._download()
            except ProxyError as error:
                failures.append(error)
            nursery.cancel_scope.cancel()
        if outcome is None and failures:
            raise failures[0]
        return outcome

    async def _upload(self, raw_head: bytes) -> bool:
        """Send head and body; False when the backend stopped taking them."""
        request, body = self._request, self._request.body
        in_chunks = request.head.framing.coding is Coding.CHUNKED
        size = READ_SMALL
        try:
            await self._send_up([raw_head + request.early_bytes()])
            while not body.done:
                self._expect_for_upload(_Awaited.CLIENT_BODY)
                data = await self._client.receive_lent(size)
                if not data:
                    raise ClientGone("the client left inside its request body")
                if len(data) == size:
                    size = READ_LARGE
                payload = request.take(self._client.stream, data, limit=self._limits.body_bytes)
                if in_chunks:
                    payload = chunked(payload)
                    if body.done:
                        payload.append(last_chunk(trailers(body.trailers, request.head)))
                if payload:
                    await self._send_up(payload)
        except UpstreamClosed:
            # Not yet a failure: a backend may answer early and close, say with 413. The download finds out.
            return False
        self._request_is_sent()
        return True

    async def _send_up(self, pieces: list[Piece]) -> None:
        self._expect_for_upload(_Awaited.BACKEND_TAKES)
        await self._upstream.send_pieces(pieces)

    def _expect_for_upload(self, awaited: _Awaited) -> None:
        self._upload_awaits = awaited
        if self._head_came:
            self._push(self._waits.stall)  # what is waited for is the download's to say
        else:
            self._expect_for_request(awaited)

    def _expect_for_request(self, awaited: _Awaited) -> None:
        request = self._request
        promised = request.head.expect_continue and not (self._continued or request.early or request.consumed)
        if promised and awaited is _Awaited.CLIENT_BODY:  # it is the backend who has to speak (RFC 9110 §10.1.1)
            self._expect(_Awaited.BACKEND_HEAD, self._answer_seconds)
        else:
            self._expect(awaited, self._waits.stall)

    # --- down ------------------------------------------------------------------------------------------

    async def _download(self, received: bytes = b"") -> Result:
        request = self._request
        head, rest = await self._read_head(received)
        self._head_came = True
        seconds = request.record.upstream_head_seconds = (
            trio.current_time() - self._sent_at if self._request_sent else 0.0
        )
        self._answered(head.status, seconds)
        if head.status == 101:
            return Switched(head, rest)
        body = open_body(head.framing)
        try:
            payload = body.split(rest)
        except MalformedBody as exc:
            raise UpstreamProtocol(f"the backend's response body is malformed: {exc}") from None
        if head.status >= 500 and (error := self._decline(head)) is not None:
            return Declined(error, head.status, keep_upstream=body.done and self._reusable(head, body))
        in_chunks = request.head.http11 and head.framing.coding in (Coding.CHUNKED, Coding.CLOSE)
        # A final answer before the request's end: the rest of the body would be taken for the next request.
        close = not request.head.keep_alive or not request.body.done or self._draining()
        begin = mapped_response_head(
            head,
            self._mapping,
            chunked=in_chunks,
            close=close,
            request_id=request.record.id.encode("ascii"),
            cookie=self._cookie,
        )
        request.record.status = head.status
        request.response_begun = True
        if request.body.done:
            request.early = b""  # it will not be sent again, and this may go on for long
        await self._send_down([begin], payload, head, body, in_chunks=in_chunks)
        if not body.done:
            await self._relay_body(head, body, in_chunks=in_chunks)
        return Outcome(
            keep_client=not close and request.body.done,
            keep_upstream=self._reusable(head, body),
        )

    async def _read_head(self, rest: bytes) -> tuple[ResponseHead, bytes]:
        for _ in range(MAX_INFORMATIONAL):
            head, rest = await self._read_one_head(rest)
            if not head.informational:
                return head, rest
            self._continued = self._continued or head.status == 100
            if self._request.head.http11:
                self._expect(_Awaited.CLIENT_TAKES, self._waits.stall)
                await self._client.send(informational_head(head))
            if self._request_sent or self._upload_awaits is None:
                self._expect(_Awaited.BACKEND_HEAD, self._answer_seconds)
            else:
                self._expect_for_request(self._upload_awaits)
        raise UpstreamProtocol("the backend sent too many informational responses")

    async def _read_one_head(self, data: bytes) -> tuple[ResponseHead, bytes]:
        buffer = HeadBuffer(
            self._limits.head_bytes, first_line=STATUS_LINE, too_large=UpstreamProtocol, malformed=UpstreamProtocol
        )
        raw = buffer.feed(data) if data else None
        while raw is None:
            data = bytes(await self._receive(READ_SMALL))
            if not data:
                if buffer.started:
                    raise UpstreamClosed("the backend closed the connection inside its response head")
                raise self._upstream.closed_early()
            raw = buffer.feed(data)
        head = parse_response(raw, method=self._request.head.method, header_count=self._limits.header_count)
        return head, buffer.rest

    async def _relay_body(self, head: ResponseHead, body: Body, *, in_chunks: bool) -> None:
        size = READ_SMALL
        try:
            while not body.done:
                self._expect(_Awaited.BACKEND_BODY, self._waits.stall)
                data = await self._receive(size)
                if len(data) == size:
                    size = READ_LARGE
                payload: list[Piece] = []
                if data:
                    payload = body.split(data)
                else:
                    body.end_of_stream()
                await self._send_down([], payload, head, body, in_chunks=in_chunks)
        except (MalformedBody, UpstreamClosed) as exc:
            raise BodyTruncated(f"the response body broke off: {exc}") from None

    async def _send_down(
        self, begin: list[Piece], payload: list[Piece], head: ResponseHead, body: Body, *, in_chunks: bool
    ) -> None:
        self._request.record.bytes_out += sum(map(len, payload))
        if in_chunks:
            payload = chunked(payload)
            if body.done:
                payload.append(last_chunk(trailers(body.trailers, head)))
        pieces = begin + payload
        if pieces:
            self._expect(_Awaited.CLIENT_TAKES, self._waits.stall)
            await self._client.send_pieces(pieces)

    def _reusable(self, head: ResponseHead, body: Body) -> bool:
        if not (head.keep_alive and self._request_sent and not body.rest and head.framing.coding is not Coding.CLOSE):
            return False
        self._upstream.heed(head)
        return True

    # --- the client that leaves while its answer is awaited ----------------------------------------------

    async def _receive(self, size: int) -> bytes | memoryview:
        """The backend's next bytes, of use until the next checkpoint."""
        data = self._upstream.receive_now(size)
        if data is not None:
            return data
        if self._uploads:
            return await self._upstream.receive_lent(size)  # the upload's task sees the client leave
        patience, self._watch_after = self._watch_after, WATCH_AFTER
        if patience:
            with trio.move_on_after(patience):
                return await self._upstream.receive_lent(size)
        return await self._receive_watching(size)

    async def _receive_watching(self, size: int) -> bytes:
        data: bytes | None = None
        failure: UpstreamClosed | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._client.wait_gone()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                data = await self._upstream.receive(size)
            except UpstreamClosed as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if data is None:
            raise ClientGone("the client left before its answer was complete")
        return data
