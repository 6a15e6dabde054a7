"""What carries traffic in one forwarder: the data plane, and what it needs of the process it runs in."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from trioproxy.config.schema import Config, ListenerConfig
from trioproxy.control.messages import (
    Answer,
    Command,
    Done,
    DropPrepared,
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
from trioproxy.process.doors import Doors
from trioproxy.proxy.drain import Drain
from trioproxy.proxy.proxy import Proxy

_LOG = logging.getLogger("trioproxy.process.traffic")


class Arriving(Protocol):
    """Sockets that come with a command, by handle."""

    def take(self, handle: int) -> socket.socket | None:
        """The socket, the caller's from now on; None when it did not come."""
        ...

    def clear(self) -> None:
        """Close what nobody took."""
        ...


@dataclass(frozen=True, slots=True)
class _Prepared:
    settings: SetConfig
    shelf: Shelf
    fresh: Mapping[int, socket.socket]

    def drop(self) -> None:
        for sock in self.fresh.values():
            sock.close()


@dataclass(frozen=True, slots=True)
class Crew:
    """The forwarders of a worker, as one of them knows them: how many there are, and where they tell their load."""

    size: int = 1
    loads: Loads | None = None
    index: int = 0  # which of them this one is

    def share(self, limit: int) -> int:
        """This forwarder's part of a bound on the whole worker."""
        return -(-limit // self.size)


class Traffic:
    """One forwarder, but for the control channel. Its listening sockets come by `arrivals`.

    `applied` is called with each new configuration, for what takes
    it over in this process and is none of the forwarder's business.
    """

    def __init__(
        self,
        settings: SetConfig,
        arrivals: Arriving,
        *,
        certificates: CertificateStore,
        crew: Crew,
        applied: Callable[[Config], None],
    ) -> None:
        self._config = config = settings.config
        self._arrivals = arrivals
        self._certificates = certificates
        self._crew = crew
        self._applied = applied
        self._prepared: _Prepared | None = None
        self._metrics = metrics = Metrics()
        limits = config.limits
        self._limiter = ConnectionLimiter(
            crew.share(limits.connections),
            limits.connections_per_client,
            tell=crew.loads.tell if crew.loads is not None else None,
        )
        self._access_log = None if config.log.access == "off" else AccessLog(config.log.access, metrics)
        self._proxy = Proxy(config, access_log=self._access_log, metrics=metrics, index=crew.index)
        self.doors = Doors(self._open_door)
        fresh, missing = self._take_fresh(settings)
        for problem in missing:
            _LOG.error(problem)
        self.doors.set(_by_handle(settings), fresh)

    def _open_door(self, config: ListenerConfig, sock: socket.socket) -> Listener:
        return Listener(
            config,
            sock,
            handler=self._proxy.serve_connection,
            certificates=self._certificates,
            limiter=self._limiter,
            metrics=self._metrics,
            timeouts=lambda: self._config.timeouts,
            trusted=lambda: self._config.access.networks,
            loads=self._crew.loads,
        )

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
            case PrepareConfig(config, handles):
                return await self._prepare(SetConfig(config, handles))
            case DropPrepared():
                self._drop_prepared()
                return Done()
            case SetConfig():
                return await self._set_config(command)
            case StartAccepting():
                if loads is not None:
                    loads.tell(0)
                return Done()
            case StartDrain() if loads is not None:
                loads.leave()
            case _:
                pass
        return self._proxy.execute(command)

    async def _prepare(self, settings: SetConfig) -> Answer:
        self._drop_prepared()
        fresh, missing = self._take_fresh(settings)
        prepared = None
        try:
            shelf = await trio.to_thread.run_sync(partial(self._read_certificates, settings.config))
            if missing:
                return Refused(tuple(missing))
            prepared = self._prepared = _Prepared(settings, shelf, fresh)
        except ConfigError as error:
            return Refused(tuple(error.problems))
        finally:
            if prepared is None:
                for sock in fresh.values():
                    sock.close()
        return Done()

    def _drop_prepared(self) -> None:
        if self._prepared is not None:
            self._prepared.drop()
            self._prepared = None

    def _read_certificates(self, config: Config) -> Shelf:
        return self._certificates.load(config.tls, wanted=wants_certificates(config))

    def _take_fresh(self, settings: SetConfig) -> tuple[dict[int, socket.socket], list[str]]:
        """The sockets of listeners that are not open yet; and what is to be said of those that did not come."""
        fresh: dict[int, socket.socket] = {}
        missing: list[str] = []
        for handle, config in _by_handle(settings).items():
            if handle in self.doors:
                continue
            sock = self._arrivals.take(handle)
            if sock is None:
                missing.append(f"listener {config.name!r}: a forwarder did not get its socket; is it out of files?")
            else:
                fresh[handle] = sock
        self._arrivals.clear()
        return fresh, missing

    async def _set_config(self, settings: SetConfig) -> Answer:
        await trio.lowlevel.checkpoint()
        if self._prepared is None or self._prepared.settings != settings:
            answer = await self._prepare(settings)
            if isinstance(answer, Refused):
                return answer
        assert self._prepared is not None
        prepared, self._prepared = self._prepared, None
        self._arrivals.clear()
        config = settings.config
        self._certificates.use(prepared.shelf, config.tls)
        self._config = config
        self._limiter.set_limits(self._crew.share(config.limits.connections), config.limits.connections_per_client)
        if self._access_log is not None:
            self._access_log.reopen()
        self._applied(config)
        answer = self._proxy.execute(settings)
        self.doors.set(_by_handle(settings), prepared.fresh)
        return answer


def wants_certificates(config: Config) -> bool:
    """Whether any listener has TLS."""
    return any(listener.tls != "off" for listener in config.listeners)


def _by_handle(settings: SetConfig) -> dict[int, ListenerConfig]:
    return dict(zip(settings.listeners, settings.config.listeners, strict=True))
