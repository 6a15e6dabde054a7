"""Long JSON lists as responses that are written piece by piece, so that nobody else waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar

import trio
from quart import Response
from quart.wrappers.response import ResponseBody

CHUNK_ITEMS = 256
"""Items looked at between two checkpoints: about a millisecond."""

T = TypeVar("T")


class JsonList(ResponseBody, Generic[T]):
    """`head`, then the items of a JSON list that `dump` writes (None = leave it out), then `tail`."""

    def __init__(self, head: bytes, items: Iterable[T], dump: Callable[[T], bytes | None], tail: bytes) -> None:
        self._pending = head
        self._items = iter(items)
        self._dump = dump
        self._tail = tail
        self._first = True
        self._ended = False

    async def __aenter__(self) -> JsonList[T]:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ended = True

    def __aiter__(self) -> JsonList[T]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            await trio.lowlevel.checkpoint()
            batch = list(islice(self._items, CHUNK_ITEMS))
            written = b",".join(text for item in batch if (text := self._dump(item)) is not None)
            if written:
                self._pending += written if self._first else b"," + written
                self._first = False
            if len(batch) < CHUNK_ITEMS:
                self._ended = True
                return self._pending + self._tail
            if written:
                chunk, self._pending = self._pending, b""
                return chunk
        raise StopAsyncIteration


def stream(body: ResponseBody, content_type: str, headers: dict[str, str] | None = None) -> Response:
    """A 200 response that takes as long as its reader reads."""
    response = Response(body, 200, headers or {}, content_type=content_type)
    response.timeout = None
    return response
