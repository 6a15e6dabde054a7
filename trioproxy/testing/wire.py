"""A test's own end of a connection: reads and writes raw bytes, and parses no more than a test asks for."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from trioproxy.net.stream import abort
from trioproxy.testing.pipe import PipeEnd


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response as it was on the wire. `head` ends with the empty line; `body` is decoded."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.head.split(b" ", 2)[1])

    def values(self, name: str) -> list[bytes]:
        """All values of a header field, in order."""
        wanted = name.lower().encode("ascii")
        lines = self.head.split(b"\r\n")[1:-2]
        pairs = [line.split(b":", 1) for line in lines]
        return [value.strip() for lower, value in pairs if lower.lower() == wanted]


class Wire:
    """Raw bytes over any stream. Reads raise EOFError when the stream ends before what was asked for."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        """The next piece, of any size; b"" at the end of the stream."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return bytes(await self.stream.receive_some())

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with the mark."""
        while mark not in self._buffer:
            await self._more()
        at = self._buffer.index(mark) + len(mark)
        data, self._buffer = self._buffer[:at], self._buffer[at:]
        return data

    async def read_exactly(self, count: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < count:
            await self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def read_all(self) -> bytes:
        """Everything until the stream ends. Raises trio.BrokenResourceError when it is reset instead."""
        while True:
            try:
                await self._more()
            except EOFError:
                data, self._buffer = self._buffer, b""
                return data

    async def read_head(self) -> bytes:
        """One HTTP head, with its empty line."""
        return await self.read_until(b"\r\n\r\n")

    async def read_response(self, *, method: str = "GET") -> Response:
        """One response to a request with this method, its body by Content-Length, chunked coding or close."""
        head = await self.read_head()
        response = Response(head, b"")
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            return response
        if response.values("transfer-encoding") == [b"chunked"]:
            return Response(head, (await self.read_chunked())[0])
        lengths = response.values("content-length")
        if lengths:
            return Response(head, await self.read_exactly(int(lengths[0])))
        return Response(head, await self.read_all())

    async def read_chunked(self) -> tuple[bytes, bytes]:
        """A chunked body: its payload, and the trailer section as it was on the wire."""
        payload = b""
        while True:
            size = int((await self.read_until(b"\r\n")).split(b";")[0], 16)
            if not size:
                break
            payload += await self.read_exactly(size)
            await self.read_until(b"\r\n")
        trailers = b""
        while (line := await self.read_until(b"\r\n")) != b"\r\n":
            trailers += line
        return payload, trailers

    async def send_eof(self) -> None:
        """End our side."""
        await self.stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection."""
        await self.stream.aclose()

    async def abort(self) -> None:
        """Break the connection, as a TCP reset does."""
        if isinstance(self.stream, PipeEnd):
            self.stream.reset()
            await trio.lowlevel.checkpoint()
        else:
            await abort(self.stream)

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError(f"the stream ended after {self._buffer!r}")
        self._buffer += bytes(data)
