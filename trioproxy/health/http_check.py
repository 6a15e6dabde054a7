"""A GET of a health check, and what is made of its answer. All reading is bounded."""

from __future__ import annotations

import h11
import trio

from trioproxy import __version__
from trioproxy.routing.route import Health, parse_statuses

MAX_HEAD = 64 * 1024
"""Bytes of the answer's head."""
MAX_BODY = 64 * 1024
"""Bytes of the body that are searched for the text."""
MAX_READ = MAX_HEAD + MAX_BODY
"""Bytes of all that is read, framing included: a body in very small chunks would cost the supervisor a second."""
RECEIVE = 16 * 1024

_AGENT = f"trioproxy-health/{__version__}"


class HttpCheck:
    """One request on one connection. `authority` is for the Host field where the check names none."""

    def __init__(self, spec: Health, authority: str) -> None:
        self._spec = spec
        self._host = spec.host or authority
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._read = 0

    async def run(self, stream: trio.abc.Stream) -> str | None:
        """Ask and look at the answer: what is wrong with it, for people, or None. The caller closes the stream."""
        fields = [("Host", self._host), ("User-Agent", _AGENT), ("Accept", "*/*"), ("Connection", "close")]
        request = h11.Request(method="GET", target=self._spec.path, headers=fields)
        try:
            await stream.send_all((self._connection.send(request) or b"") + (self._end() or b""))
            response = await self._response(stream)
            if response is None:
                return f"has sent {MAX_HEAD} bytes and no head of an answer"
            if response.status_code not in parse_statuses(self._spec.statuses):
                return f"answered {response.status_code}"
            if self._spec.body is not None and not await self._has(self._spec.body.encode(), stream):
                return f"answered {response.status_code} without the text it should have in its body"
        except h11.RemoteProtocolError as error:
            return f"has answered what is not HTTP: {error}"
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return "has broken the connection before it answered"
        return None

    def _end(self) -> bytes | None:
        return self._connection.send(h11.EndOfMessage())

    async def _response(self, stream: trio.abc.Stream) -> h11.Response | None:
        while self._read <= MAX_HEAD:
            event = await self._next(stream)
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise trio.BrokenResourceError
        return None

    async def _has(self, text: bytes, stream: trio.abc.Stream) -> bool:
        """Whether the text is in the first bytes of the body."""
        body = bytearray()
        while len(body) < MAX_BODY and self._read <= MAX_READ:
            event = await self._next(stream)
            if not isinstance(event, h11.Data):
                return False
            new = max(0, len(body) - len(text) + 1)  # what is before it has been searched
            body += event.data
            if body.find(text, new, MAX_BODY) >= 0:
                return True
        return False

    async def _next(self, stream: trio.abc.Stream) -> object:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            data = bytes(await stream.receive_some(RECEIVE))
            if not data and not self._read:
                raise trio.BrokenResourceError
            self._read += len(data)
            self._connection.receive_data(data)
        return event
