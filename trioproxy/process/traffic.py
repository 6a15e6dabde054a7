"""What carries traffic in one forwarder: the data plane, and what it needs of the process it runs in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from trioproxy.config.schema import Config, ListenerConfig
from trioproxy.control.messages import (
    Answer,
    Command,
    Done,
    PrepareConfig,
    Refused,
    SetConfig,
    StartAccepting,
    StartDrain,
)
from trioproxy.errors import ConfigError
from trioproxy.net.certificates import CertificateStore, Shelf
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.listener import Listener
from trioproxy.net.loads import Loads
from trioproxy.observe.access_log import AccessLog
from trioproxy.observe.metrics import Metrics
from trioproxy.proxy.drain import Drain
from trioproxy.proxy.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Crew:
    """The forwarders of a worker, as one of them knows them: how many there are, and where they tell their load."""

    size: int = 1
    loads: Loads | None = None

    def share(self, limit: int) -> int:
        """This forwarder's part of a bound on the whole worker."""
        return -(-limit // self.size)


class Traffic:
    """One forwarder, but for the control channel.

    `certificates` is None when no listener has TLS. `applied` is called with each new configuration, for what takes
    it over in this process and is none of the forwarder's business.
    """

    def __init__(
        self,
        config: Config,
        sockets: Sequence[tuple[ListenerConfig, socket.socket]],
        *,
        certificates: CertificateStore | None,
        crew: Crew,
        applied: Callable[[Config], None],
    ) -> None:
        self._config = config
        self._certificates = certificates
        self._crew = crew
        self._applied = applied
        self._prepared: tuple[Config, Shelf | None] | None = None
        metrics = Metrics()
        limits = config.limits
        self._limiter = ConnectionLimiter(
            crew.share(limits.connections),
            limits.connections_per_client,
            tell=crew.loads.tell if crew.loads is not None else None,
        )
        self._access_log = None if config.log.access == "off" else AccessLog(config.log.access, metrics)
        self._proxy = Proxy(config, access_log=self._access_log, metrics=metrics)
        self.listeners = [
            Listener(
                item,
                sock,
                handler=self._proxy.serve_connection,
                certificates=certificates if item.tls != "off" else None,
                limiter=self._limiter,
                metrics=metrics,
                timeouts=lambda: self._config.timeouts,
                trusted=lambda: self._config.access.networks,
                loads=crew.loads,
            )
            for item, sock in sockets
        ]

    @property
    def drain(self) -> Drain:
        """Its drain."""
        return self._proxy.drain

    @property
    def grace(self) -> float:
        """Seconds for what runs when the supervisor is gone."""
        return self._config.worker.drain_timeout

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep house until cancelled, and write the access log. Raises OSError when that cannot be opened."""
        async with trio.open_nursery() as nursery:
            if self._access_log is not None:
                await nursery.start(self._access_log.run)
            await nursery.start(self._proxy.run)
            task_status.started()

    async def execute(self, command: Command) -> Answer:
        """Execute one command of the supervisor; it has taken effect when this returns."""
        loads = self._crew.loads
        await trio.lowlevel.checkpoint()
        match command:
            case PrepareConfig(config):
                return await self._prepare(config)
            case SetConfig(config):
                return await self._set_config(config)
            case StartAccepting():
                if loads is not None:
                    loads.tell(0)
                return Done()
            case StartDrain() if loads is not None:
                loads.leave()
            case _:
                pass
        return self._proxy.execute(command)

    async def _prepare(self, config: Config) -> Answer:
        await trio.lowlevel.checkpoint()
        shelf = None
        if self._certificates is not None:
            try:
                shelf = await trio.to_thread.run_sync(self._certificates.load, config.tls)
            except ConfigError as error:
                return Refused(tuple(error.problems))
        self._prepared = (config, shelf)
        return Done()

    async def _set_config(self, config: Config) -> Answer:
        await trio.lowlevel.checkpoint()
        if self._prepared is None or self._prepared[0] != config:
            answer = await self._prepare(config)
            if isinstance(answer, Refused):
                return answer
        assert self._prepared is not None
        _, shelf = self._prepared
        self._prepared = None
        if self._certificates is not None and shelf is not None:
            self._certificates.use(shelf, config.tls)
        self._config = config
        self._limiter.set_limits(self._crew.share(config.limits.connections), config.limits.connections_per_client)
        if self._access_log is not None:
            self._access_log.reopen()
        self._applied(config)
        return self._proxy.execute(SetConfig(config))
