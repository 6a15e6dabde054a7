"""How long each step of a request may take, and how often it may be tried."""

from __future__ import annotations

from dataclasses import dataclass

from trioproxy.config.schema import Config
from trioproxy.policy.retry import RetryRules
from trioproxy.routing.route import Route

PATIENCE = 1.0  # seconds for the answer, after which the client is watched for leaving, on the long way


@dataclass(frozen=True, slots=True)
class Waits:
    """The waits of one request: the route's where it names them, else the configuration's. Seconds, 0 = for ever."""

    connect: float
    response_head: float
    stall: float
    websocket_idle: float
    close: float
    retry: RetryRules
    patience: float  # for an answer on the short way; never 0

    @classmethod
    def of(cls, config: Config, route: Route) -> Waits:
        """Merge."""
        given, own = config.timeouts, route.timeouts
        retry = RetryRules.of(config.retry, route.retry)
        response_head = given.response_head if own.response_head is None else own.response_head
        return cls(
            connect=given.connect if own.connect is None else own.connect,
            response_head=response_head,
            stall=given.stall if own.stall is None else own.stall,
            websocket_idle=given.websocket_idle if own.websocket_idle is None else own.websocket_idle,
            close=given.close,
            retry=retry,
            patience=min(PATIENCE, response_head or PATIENCE, retry.per_try or PATIENCE),
        )
