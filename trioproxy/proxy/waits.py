"""How long each step of a request may take."""

from __future__ import annotations

from dataclasses import dataclass

from trioproxy.config.schema import TimeoutsConfig
from trioproxy.routing.route import Route


@dataclass(frozen=True, slots=True)
class Waits:
    """The waits of one request: the route's where it names them, else the configuration's. Seconds, 0 = for ever."""

    connect: float
    response_head: float
    stall: float
    websocket_idle: float
    close: float

    @classmethod
    def of(cls, config: TimeoutsConfig, route: Route) -> Waits:
        """Merge."""
        own = route.timeouts
        return cls(
            connect=config.connect if own.connect is None else own.connect,
            response_head=config.response_head if own.response_head is None else own.response_head,
            stall=config.stall if own.stall is None else own.stall,
            websocket_idle=config.websocket_idle if own.websocket_idle is None else own.websocket_idle,
            close=config.close,
        )
