"""How an upgraded stream ends: what ended it, and the handle by which the worker ends it from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

EndedBy = Literal["client", "backend", "proxy"]

GOING_AWAY = 1001
"""Close code of an endpoint that leaves (RFC 6455 §7.4.1)."""
SERVICE_RESTART = 1012
"""Close code that tells clients to connect again: what they meet then is another backend, or the same one anew."""
BACKEND_LOST = "the connection to the service was lost"
"""What clients are told with it."""
ABORT_SECONDS = 1.0
"""For aborting both streams, which does not wait; a bound for a stream that does all the same."""


@dataclass(slots=True)
class Ended:
    """Why an upgraded stream is over.

    `code` and `reason` are those of the WebSocket close (1005: a close without code, 1006: none at all),
    None where bytes were only relayed. `by` is whose doing it was. `error` is None for an end that all
    sides agreed on, else one of:

    - "client_gone", "upstream_closed": that side's connection ended or broke without a word;
    - "protocol_error", "message_too_big": `by` broke the protocol, or `websocket.max_message`;
    - "ping_timeout": `by` did not answer pings;
    - "idle": nothing was sent for `timeouts.websocket_idle`;
    - what `Closer.request` was told.
    """

    code: int | None
    reason: str
    by: EndedBy
    error: str | None


class Traffic(Protocol):
    """Where payload is counted, in bytes: `bytes_in` from the client, `bytes_out` to it."""

    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class CloseRequest:
    """What `Closer.request` was told."""

    code: int
    reason: str
    error: str


class Closer:
    """Ends one upgraded stream politely, from outside. Whoever owns the connection makes it and keeps it."""

    __slots__ = ("_listener", "requested")

    def __init__(self) -> None:
        self.requested: CloseRequest | None = None
        self._listener: Callable[[], None] | None = None

    def request(self, code: int, reason: str, *, error: str) -> None:
        """Ask for the end; returns at once. `code` and `reason` go into the close frames, `error` into the log.

        The first request counts. One made before the stream is forwarded ends it as soon as it is.
        """
        if self.requested is None:
            self.requested = CloseRequest(code, reason, error)
            if self._listener is not None:
                self._listener()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """From now on the first request calls `listener`, from whichever task makes it; at once if it was made."""
        self._listener = listener
        if listener is not None and self.requested is not None:
            listener()
