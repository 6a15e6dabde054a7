"""GET /v1/events: what happens in the worker, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from types import TracebackType

import trio
from pydantic import TypeAdapter
from quart import Response, request
from quart.wrappers.response import ResponseBody

from trioproxy.control.worker import Event, Worker
from trioproxy.management.calls import Answer, Call
from trioproxy.management.problems import bad_request, overloaded
from trioproxy.management.streaming import stream

HEARTBEAT_SECONDS = 15.0
"""How long a stream is silent at most."""
MAX_STREAMS = 64
RETRY_MS = 3000
"""When browsers connect again after the stream broke."""

_event = TypeAdapter(Event)


class Streams:
    """The open event streams: bounded in number, and ended together when the server stops."""

    def __init__(self) -> None:
        self.ended = False
        self._count = 0
        self._waiting: set[trio.CancelScope] = set()

    @property
    def full(self) -> bool:
        """Whether no more stream may be opened."""
        return self._count >= MAX_STREAMS

    def begin(self) -> None:
        """Let streams run."""
        self.ended = False

    def end(self) -> None:
        """End every stream, cleanly, and those that are opened from now on."""
        self.ended = True
        for scope in self._waiting:
            scope.cancel()

    @contextmanager
    def opened(self) -> Generator[None]:
        """Count a stream while it is open."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    @contextmanager
    def heartbeat(self) -> Generator[None]:
        """Wait in here for at most HEARTBEAT_SECONDS, and not beyond `end`."""
        with trio.move_on_after(HEARTBEAT_SECONDS) as scope:
            if self.ended:
                scope.cancel()
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)


class _EventBody(ResponseBody):
    def __init__(self, streams: Streams, events: AbstractAsyncContextManager[AsyncIterator[Event]]) -> None:
        self._streams = streams
        self._events = events
        self._resources = AsyncExitStack()
        self._iterator: AsyncIterator[Event] | None = None
        self._greeted = False

    async def __aenter__(self) -> _EventBody:
        self._resources.enter_context(self._streams.opened())
        self._iterator = await self._resources.enter_async_context(self._events)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        # No shield: the worker's context manager knows best how to end, and has nothing to send.
        await self._resources.__aexit__(exc_type, exc_value, tb)  # noqa: ASYNC102

    def __aiter__(self) -> _EventBody:
        return self

    async def __anext__(self) -> bytes:
        if not self._greeted:
            self._greeted = True
            return b"retry: %d\n\n" % RETRY_MS
        assert self._iterator is not None
        with self._streams.heartbeat():
            return encode(await anext(self._iterator))
        if self._streams.ended:
            raise StopAsyncIteration
        return b": still here\n\n"


def encode(event: Event) -> bytes:
    """Write an event in the format of the HTML standard, §9.2.6."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), _event.dump_json(event))


class EventCalls:
    """The call /v1/events."""

    def __init__(self, worker: Worker, streams: Streams) -> None:
        self._worker = worker
        self._streams = streams

    async def watch_events(self) -> Response:
        """Follow route, health, forwarder, certificate, listener, upgrade and drain events as they happen.

        A comment comes every 15 s when nothing else does. A reader that is too slow misses the oldest events:
        then the ids have a gap. The stream ends when the worker's management API stops.
        """
        last = request.headers.get("Last-Event-ID", "").strip()
        if last and not (last.isascii() and last.isdigit() and len(last) < 20):
            raise bad_request("Last-Event-ID must be the id of an event: a whole number")
        if self._streams.full:
            raise overloaded(f"{MAX_STREAMS} event streams are open already")
        events = self._worker.events(after=int(last) if last else None)
        return stream(_EventBody(self._streams, events), "text/event-stream")


def event_calls(worker: Worker, streams: Streams) -> tuple[Call, ...]:
    """The call /v1/events."""
    return (
        Call(
            "GET",
            "/v1/events",
            EventCalls(worker, streams).watch_events,
            "worker",
            {200: Answer("Server-sent events; `data` is JSON {id, at, kind, detail}.", media="text/event-stream")},
            {400: "Last-Event-ID is not valid.", 503: "Too many streams are open."},
            headers={"Last-Event-ID": "Begin with the kept events after this one."},
        ),
    )
