"""What all connections of one forwarder share."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field

from trioproxy.config.schema import Config
from trioproxy.observe.access_log import AccessLog
from trioproxy.observe.metrics import Metrics
from trioproxy.proxy.balancer import Balancer
from trioproxy.proxy.drain import Drain
from trioproxy.proxy.live import LiveConnections
from trioproxy.proxy.pool import Pool
from trioproxy.proxy.router import Router


class Ids:
    """Names for connections and requests: unique among all workers, cheap, and nothing to guess secrets from."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def make(self) -> str:
        """The next one: 12 random hexadecimal digits of this process, a dash, a number."""
        return f"{self._prefix}-{next(self._numbers):x}"


@dataclass(slots=True)
class Plane:
    """References to the owners of a forwarder's state. `config` is replaced at a reload."""

    config: Config
    router: Router
    balancer: Balancer
    pool: Pool
    metrics: Metrics
    access_log: AccessLog | None
    drain: Drain
    live: LiveConnections
    ids: Ids = field(default_factory=Ids)
