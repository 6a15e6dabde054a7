"""Every failure trioproxy names, with what it means for the client, the backend and a retry.

An error of the request path says four things: whose fault it was (`side`), what the client is told
(`status` and `code`), whether the same request may go to another backend (`retry`), and whether the
client's connection can serve another request afterwards (`close`). Reading those attributes is the job
of exactly two places: `http1/reply.py` (answers) and `policy/retry.py` (retries).
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class TrioproxyError(Exception):
    """Base of every error trioproxy raises on purpose; anything else that escapes is a bug."""


class ConfigError(TrioproxyError):
    """A configuration mistake. Each problem names file, key, value and what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StartError(TrioproxyError):
    """The worker cannot start here: an address is taken, a directory not usable … One sentence for the operator."""


class ControlError(TrioproxyError):
    """The supervisor and a forwarder did not understand or reach each other."""


class ProviderError(TrioproxyError):
    """A source of routes handed in something that cannot be used, or cannot be written to."""


class Side(Enum):
    """Who caused an error. Only `UPSTREAM` counts against a backend."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    PROXY = "proxy"


class Retry(Enum):
    """When the request that met this error may be tried again, safest first."""

    UNSENT = "unsent"  # no byte of the request reached a backend: always safe
    REUSED = "reused"  # a kept connection closed before a byte came back: safe once
    IDEMPOTENT = "idempotent"  # the backend may have acted: only for idempotent methods
    NEVER = "never"


class ProxyError(TrioproxyError):
    """An error of one request. `detail` is shown to the client: never put a secret into it.

    `retry_after` is in seconds and becomes a Retry-After header. `headers` are sent with the answer.
    """

    code: ClassVar[str]
    status: int
    side: ClassVar[Side]
    retry: ClassVar[Retry] = Retry.NEVER
    close: ClassVar[bool] = False
    answered: ClassVar[bool] = True  # False: the client gets no response, its connection just ends

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.headers = headers
        if status is not None:
            self.status = status


class ClientError(ProxyError):
    """The client's message or behaviour is at fault."""

    side = Side.CLIENT
    close = True  # what follows on the connection cannot be trusted to be a request


class BadRequest(ClientError):
    """Malformed, ambiguous or refused by rule (RFC 9112); `status` may be 405, 417 or 501."""

    code = "bad_request"
    status = 400


class HeadTimeout(ClientError):
    """The request head was not complete within `timeouts.head`."""

    code = "head_timeout"
    status = 408


class BodyTimeout(ClientError):
    """The client stopped sending the request body for `timeouts.stall`."""

    code = "body_timeout"
    status = 408


class BodyTooLarge(ClientError):
    """The request body is larger than `limits.body_bytes`."""

    code = "body_too_large"
    status = 413


class HeadTooLarge(ClientError):
    """The request head is larger than `limits.head_bytes` or has more than `limits.header_count` fields."""

    code = "head_too_large"
    status = 431


class ClientGone(ClientError):
    """The client left before its answer was complete. 499 is for the log; nobody is there to read it."""

    code = "client_gone"
    status = 499
    answered = False


class RouteError(ProxyError):
    """The request is sound, and this worker will not or cannot forward it."""

    side = Side.PROXY


class NoRoute(RouteError):
    """No route has this address."""

    code = "no_route"
    status = 404


class NotSynced(RouteError):
    """No provider has delivered a table yet, so whether the route exists is not known."""

    code = "not_synced"
    status = 503


class Unauthorized(RouteError):
    """The route wants a permit and none came."""

    code = "unauthorized"
    status = 401


class Forbidden(RouteError):
    """The route does not admit this client."""

    code = "forbidden"
    status = 403


class NoBackend(RouteError):
    """The route has no backend that may be used now."""

    code = "no_backend"
    status = 503


class Overloaded(RouteError):
    """A bound was reached: the pool's queue is full or its deadline passed, or no file is left for a connection."""

    code = "overloaded"
    status = 503
    retry = Retry.UNSENT


class Draining(RouteError):
    """This worker is shutting down."""

    code = "draining"
    status = 503
    close = True


class InternalError(ProxyError):
    """A bug in trioproxy, answered as 500 and logged with its traceback."""

    code = "internal_error"
    status = 500
    side = Side.PROXY
    close = True


class UpstreamError(ProxyError):
    """The backend is at fault."""

    side = Side.UPSTREAM


class ConnectFailed(UpstreamError):
    """The backend refused the connection, or its name or TLS failed."""

    code = "connect_failed"
    status = 502
    retry = Retry.UNSENT


class RefusedBefore(ConnectFailed):
    """Not dialled, because the backend refused a moment ago (`pool.refused_for`): no new evidence against it."""


class ConnectTimeout(UpstreamError):
    """The backend did not accept a connection within `timeouts.connect`."""

    code = "connect_timeout"
    status = 504
    retry = Retry.UNSENT


class UpstreamClosed(UpstreamError):
    """The backend closed or reset the connection before a response head."""

    code = "upstream_closed"
    status = 502
    retry = Retry.IDEMPOTENT


class StaleConnection(UpstreamClosed):
    """A *kept* connection closed before a byte came back: most likely it idled out as we wrote."""

    retry = Retry.REUSED


class UpstreamProtocol(UpstreamError):
    """What the backend sent is not a response that may be passed on."""

    code = "upstream_protocol"
    status = 502


class ResponseTimeout(UpstreamError):
    """No response head within `timeouts.response_head`, or the backend stopped taking the body."""

    code = "response_timeout"
    status = 504


class TryTimeout(ResponseTimeout):
    """No response head within `retry.per_try`, when another backend could be tried."""

    retry = Retry.IDEMPOTENT


class AnswerRefused(UpstreamError):
    """The backend answered with one of `retry.statuses`, and another one is asked instead."""

    code = "upstream_status"
    status = 502
    retry = Retry.IDEMPOTENT


class BodyTruncated(UpstreamError):
    """The backend died or stalled inside a body. The client's connection is aborted, never ended cleanly."""

    code = "body_truncated"
    status = 502
    answered = False
    close = True
