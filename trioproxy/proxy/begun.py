"""A request that was taken up the short way, and may have to go on the long one."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from trioproxy.errors import ClientGone, InternalError, ProxyError, ResponseTimeout
from trioproxy.observe.access_log import RequestRecord
from trioproxy.proxy.balancer import Lease, RouteStats, Wish
from trioproxy.proxy.pool import CLOSE_SECONDS, Pool
from trioproxy.proxy.request import Request
from trioproxy.proxy.router import Match
from trioproxy.proxy.upstream import Upstream
from trioproxy.proxy.waits import Waits

log = logging.getLogger("trioproxy.proxy")


def note_bug(bug: Exception, record: RequestRecord) -> InternalError:
    """Log a bug that a request met; what the request gets for it."""
    log.error("a request met a bug", exc_info=bug, extra={"request_id": record.id})
    return InternalError("trioproxy met a bug; its log says more")


@dataclass(slots=True, eq=False)
class Begun:
    """A request on its way. It counts as running on its route; what it holds of a backend has to be given back."""

    request: Request
    match: Match
    stats: RouteStats
    waits: Waits
    wish: Wish | None = None  # about the choice of a backend
    lease: Lease | None = None
    upstream: Upstream | None = None
    sent_at: float | None = None  # when the whole request was sent, on trio's clock
    received: bytes = b""  # of the answer
    failure: ProxyError | None = None

    @property
    def holds(self) -> bool:
        """Whether it has a connection to a backend."""
        return self.upstream is not None

    def expire(self) -> None:
        """What it waited for took too long: a failure, unless it is the answer, which the long way can wait for."""
        if self.request.response_begun:
            self.failure = ClientGone("the client stopped taking the response body for too long")
        elif self.sent_at is None:
            self.failure = ResponseTimeout("the backend stopped taking the request for too long")

    async def give_back(self, pool: Pool) -> None:
        """Give back what it holds of a backend; the connection may not serve again."""
        lease, upstream = self.lease, self.upstream
        self.lease = self.upstream = None
        if lease is not None:
            lease.release()
        if upstream is not None:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await pool.discard(upstream)
