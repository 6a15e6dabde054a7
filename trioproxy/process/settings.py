"""The configuration in force, and how a reload replaces it: all of it or nothing."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import trio

from trioproxy.config.loader import Loaded
from trioproxy.config.schema import Config, ListenerConfig, TlsConfig
from trioproxy.control.messages import Answer, DropPrepared, PrepareConfig, Refused, SetConfig
from trioproxy.errors import ConfigError, ProviderError, StartError
from trioproxy.net.certificates import CertificateInfo, Shelf
from trioproxy.process.events import EventLog
from trioproxy.process.fleet import Fleet
from trioproxy.process.publisher import Publisher
from trioproxy.process.reload import live_part, needs_restart
from trioproxy.process.sockets import Bound, Plan
from trioproxy.process.sources import Sources
from trioproxy.process.traffic import wants_certificates
from trioproxy.providers.routes_file import read_routes

DROP_SECONDS = 1.0
"""How long forwarders are told that a reload is off, when whoever asked for it has gone."""

_LOG = logging.getLogger("trioproxy.process.settings")


class Certificates(Protocol):
    """The certificates of the listeners."""

    def load(self, config: TlsConfig, *, wanted: bool) -> Shelf:
        """Read them, in a thread; none when they are not wanted. Raises ConfigError."""
        ...

    def use(self, shelf: Shelf, config: TlsConfig) -> None:
        """Use what `load` has read from now on."""
        ...

    def certificates(self) -> list[CertificateInfo]:
        """Those in use."""
        ...


class Listening(Protocol):
    """The listening sockets, see process.sockets."""

    @property
    def listeners(self) -> tuple[Bound, ...]:
        """Those that are there."""
        ...

    @property
    def handles(self) -> tuple[int, ...]:
        """Their handles."""
        ...

    def plan(self, wanted: tuple[ListenerConfig, ...]) -> Plan:
        """Bind what is not there yet, in a thread. Raises StartError."""
        ...

    def adopt(self, plan: Plan) -> list[Bound]:
        """Have these from now on; returns those that go."""
        ...

    def drop(self, plan: Plan) -> None:
        """Let go of what was bound for a plan that comes to nothing."""
        ...


class Settings:
    """Owner of the configuration in force.

    `reread` reads it again as it was read at the start. `applied` is called with each new configuration, for what
    takes it over in this process (limits, logs).
    """

    def __init__(
        self,
        config: Config,
        *,
        reread: Callable[[], Loaded],
        certificates: Certificates,
        sockets: Listening,
        sources: Sources,
        fleet: Fleet,
        publisher: Publisher,
        events: EventLog,
        applied: Callable[[Config], None],
    ) -> None:
        self._config = config
        self._reread = reread
        self._certificates = certificates
        self._sockets = sockets
        self._sources = sources
        self._fleet = fleet
        self._publisher = publisher
        self._events = events
        self._applied = applied
        self._lock = trio.Lock()
        self._frozen = False

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    @property
    def summary(self) -> str:
        """What this worker does, for the service manager."""
        return f"serving on {len(self._config.listeners)} listeners"

    def certificates(self) -> list[CertificateInfo]:
        """The certificates in use."""
        return self._certificates.certificates()

    def in_force(self) -> SetConfig:
        """What brings a forwarder up to date."""
        return SetConfig(self._config, self._sockets.handles)

    @asynccontextmanager
    async def frozen(self) -> AsyncGenerator[None]:
        """Let nobody reload while the block runs; one that runs already is waited for."""
        async with self._lock:
            self._frozen = True
            try:
                yield
            finally:
                self._frozen = False

    async def reload(self) -> tuple[str, ...]:
        """Read configuration, certificates and route files again, and use them; open and close listeners.

        Returns the keys that differ from what is in force and need a restart.

        Raises:
            ConfigError: something is wrong with them, and nothing was changed.
        """
        if self._frozen:
            raise ConfigError(["an upgrade is running: reload when it is over"])
        async with self._lock:
            try:
                loaded = await trio.to_thread.run_sync(self._reread)
            except StartError as error:
                raise ConfigError([str(error)]) from None
            config = live_part(self._config, loaded.config)
            pinned = needs_restart(self._config, loaded.config)
            await self._check_routes_file(config)
            wanted = wants_certificates(config)
            shelf = await trio.to_thread.run_sync(partial(self._certificates.load, config.tls, wanted=wanted))
            try:
                plan = await trio.to_thread.run_sync(self._sockets.plan, config.listeners)
            except StartError as error:
                raise ConfigError([str(error)]) from None
            try:
                await self._prepare_forwarders(config, plan)
                await self._update_sources(config)
            except BaseException:
                self._sockets.drop(plan)
                with trio.move_on_after(DROP_SECONDS, shield=True):
                    await self._fleet.ask(DropPrepared())
                raise
            answers = await self._put_in_force(config, plan, shelf)
            for answer in answers:
                if isinstance(answer, Refused):
                    _LOG.error("a forwarder refused what it had prepared", extra={"problems": list(answer.problems)})
            if not await self._publisher.publish():  # the routes of the files: done means served
                _LOG.warning("not every forwarder serves the reloaded routes yet")
        _LOG.info("reloaded", extra={"file": str(loaded.path), "needs_restart": list(pinned)})
        for warning in loaded.warnings:
            _LOG.warning(warning)
        if pinned:
            _LOG.warning("some changes need a restart", extra={"keys": list(pinned)})
        return pinned

    async def _check_routes_file(self, config: Config) -> None:
        file = config.providers.file
        if file is not None and file != self._config.providers.file:
            try:
                await trio.to_thread.run_sync(read_routes, file.path)
            except ProviderError as error:
                raise ConfigError(str(error).splitlines()) from None

    async def _prepare_forwarders(self, config: Config, plan: Plan) -> None:
        # Each of them reads the certificates itself. One that does not answer in time is about to be replaced, and
        # its successor starts with the configuration that is in force then.
        command = PrepareConfig(config, tuple(bound.handle for bound in plan.listeners))
        refused = [answer for answer in await self._fleet.ask(command) if isinstance(answer, Refused)]
        if refused:
            raise ConfigError(list(refused[0].problems))

    async def _update_sources(self, config: Config) -> None:
        try:
            await self._sources.update(config.routes, config.providers.file)
        except ProviderError as error:
            raise ConfigError(str(error).splitlines()) from None

    async def _put_in_force(self, config: Config, plan: Plan, shelf: Shelf) -> list[Answer]:
        """From here on nothing can fail for a reason of its own."""
        self._certificates.use(shelf, config.tls)
        if shown := self.certificates():
            self._events.add("certificate", names=[info.names for info in shown])
        before = {bound.handle: bound for bound in self._sockets.listeners}
        # Closed here before forwarders look for the last connections on them: nobody comes in after that look.
        gone = self._sockets.adopt(plan)
        self._config = config
        self._applied(config)
        answers = await self._fleet.ask(self.in_force())
        self._tell_of_listeners(before, plan.listeners, gone)
        return answers

    def _tell_of_listeners(self, before: dict[int, Bound], now: tuple[Bound, ...], gone: list[Bound]) -> None:
        for bound in gone:
            self._tell_of_listener("removed", bound)
        for bound in now:
            old = before.get(bound.handle)
            if old is None:
                self._tell_of_listener("added", bound)
            elif old.config != bound.config:
                self._tell_of_listener("changed", bound)

    def _tell_of_listener(self, state: str, bound: Bound) -> None:
        self._events.add("listener", name=bound.config.name, bind=bound.config.bind, state=state)
        _LOG.info("listener", extra={"listener": bound.config.name, "bind": bound.config.bind, "state": state})
