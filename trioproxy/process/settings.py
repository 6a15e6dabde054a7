"""The configuration in force, and how a reload replaces it: all of it or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from trioproxy.config.loader import Loaded
from trioproxy.config.schema import Config, TlsConfig
from trioproxy.control.messages import PrepareConfig, Refused, SetConfig
from trioproxy.errors import ConfigError, ProviderError
from trioproxy.net.certificates import CertificateInfo
from trioproxy.process.events import EventLog
from trioproxy.process.fleet import Fleet
from trioproxy.process.reload import live_part, needs_restart
from trioproxy.process.sources import Sources
from trioproxy.providers.routes_file import read_routes

_LOG = logging.getLogger("trioproxy.process.settings")


class Certificates(Protocol):
    """The certificates of the listeners. The first two calls read files, and run in a thread."""

    def check(self, config: TlsConfig) -> None:
        """Raise ConfigError when `reload` would."""
        ...

    def reload(self, config: TlsConfig) -> None:
        """Use these from now on. Raises ConfigError, and then nothing has changed."""
        ...

    def certificates(self) -> list[CertificateInfo]:
        """Those in use."""
        ...


class Settings:
    """Owner of the configuration in force.

    `reread` reads it again as it was read at the start; `certificates` is None when no listener has TLS. `applied`
    is called with each new configuration, for what takes it over in this process (limits, logs).
    """

    def __init__(
        self,
        config: Config,
        *,
        reread: Callable[[], Loaded],
        certificates: Certificates | None,
        sources: Sources,
        fleet: Fleet,
        events: EventLog,
        applied: Callable[[Config], None],
    ) -> None:
        self._config = config
        self._reread = reread
        self._certificates = certificates
        self._sources = sources
        self._fleet = fleet
        self._events = events
        self._applied = applied
        self._lock = trio.Lock()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    def certificates(self) -> list[CertificateInfo]:
        """The certificates in use."""
        return self._certificates.certificates() if self._certificates else []

    async def reload(self) -> tuple[str, ...]:
        """Read configuration, certificates and route files again, and use them.

        Returns the keys that differ from what is in force and need a restart.

        Raises:
            ConfigError: something is wrong with them, and nothing was changed.
        """
        async with self._lock:
            loaded = await trio.to_thread.run_sync(self._reread)
            config = live_part(self._config, loaded.config)
            pinned = needs_restart(self._config, loaded.config)
            await trio.to_thread.run_sync(self._check_files, config)
            await self._prepare_forwarders(config)
            try:
                await self._sources.update(config.routes, config.providers.file)
            except ProviderError as error:
                raise ConfigError(str(error).splitlines()) from None
            # From here on nothing can fail for a reason of its own.
            if self._certificates is not None:
                await trio.to_thread.run_sync(self._certificates.reload, config.tls)
                self._events.add("certificate", names=[info.names for info in self._certificates.certificates()])
            self._config = config
            self._applied(config)
            for answer in await self._fleet.ask(SetConfig(config)):
                if isinstance(answer, Refused):
                    _LOG.error("a forwarder refused what it had prepared", extra={"problems": list(answer.problems)})
        _LOG.info("reloaded", extra={"file": str(loaded.path), "needs_restart": list(pinned)})
        for warning in loaded.warnings:
            _LOG.warning(warning)
        if pinned:
            _LOG.warning("some changes need a restart", extra={"keys": list(pinned)})
        return pinned

    def _check_files(self, config: Config) -> None:
        if self._certificates is not None:
            self._certificates.check(config.tls)
        file = config.providers.file
        if file is not None and file != self._config.providers.file:
            try:
                read_routes(file.path)
            except ProviderError as error:
                raise ConfigError(str(error).splitlines()) from None

    async def _prepare_forwarders(self, config: Config) -> None:
        # Each of them reads the certificates itself. One that does not answer in time is about to be replaced, and
        # its successor starts with the configuration that is in force then.
        refused = [answer for answer in await self._fleet.ask(PrepareConfig(config)) if isinstance(answer, Refused)]
        if refused:
            raise ConfigError(list(refused[0].problems))
