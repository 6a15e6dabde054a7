"""Putting a worker together from its configuration, and running it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import trio

from trioproxy.config.loader import Loaded
from trioproxy.config.schema import Config
from trioproxy.control.channel import ForwarderEnd
from trioproxy.control.messages import SetTable
from trioproxy.errors import StartError
from trioproxy.management.app import create_app
from trioproxy.management.server import serve_management
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.limiter import ConnectionLimiter
from trioproxy.net.listener import Listener
from trioproxy.observe.access_log import AccessLog
from trioproxy.observe.logs import setup_logs
from trioproxy.observe.metrics import Metrics
from trioproxy.process.events import EventLog
from trioproxy.process.forwarder import run_forwarder
from trioproxy.process.intake import Intake
from trioproxy.process.lifecycle import Lifecycle
from trioproxy.process.notify import Notifier
from trioproxy.process.publisher import Publisher
from trioproxy.process.services import Service
from trioproxy.process.settings import Settings
from trioproxy.process.signals import watch_signals
from trioproxy.process.slot import Slot
from trioproxy.process.sockets import Sockets, bind_all
from trioproxy.process.sources import PRIORITY, Sources
from trioproxy.process.state import management_token, state_directory
from trioproxy.process.supervisor import Supervisor
from trioproxy.process.worker import RunningWorker
from trioproxy.process.writes import PROVIDER, Writes
from trioproxy.providers.store import RouteStore
from trioproxy.proxy.proxy import Proxy
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Route

DATABASE = "routes.sqlite3"
"""File of the API-set routes, in the state directory."""

_LOG = logging.getLogger("trioproxy.process.assemble")


async def run_worker(
    loaded: Loaded,
    *,
    reread: Callable[[], Loaded],
    environ: Mapping[str, str],
    ready: Callable[[Sockets], None],
    companions: Sequence[tuple[str, Service]] = (),
) -> bool:
    """Run a worker until it is told to stop and has drained; whether that went as it was meant to.

    Args:
        loaded: the configuration to start with.
        reread: reads it again, for a reload.
        environ: where the service manager says how to reach it.
        ready: called once everything works.
        companions: what else is to run along, by name.

    Raises:
        ConfigError: the certificates cannot be used.
        StartError, ProviderError: something else is in the way; the text says what.
    """
    config = loaded.config
    for warning in loaded.warnings:
        _LOG.warning(warning)
    if config.worker.processes not in ("auto", 0):
        _LOG.warning(
            "worker.processes is not offered by this version: traffic is carried in the supervisor's own process",
            extra={"processes": config.worker.processes},
        )
    with state_directory(config.worker.state_dir) as state_dir:
        token = management_token(config.management, state_dir)
        async with await RouteStore.open(state_dir / DATABASE) as store:
            routes = await store.load()
            certificates = None
            if any(listener.tls != "off" for listener in config.listeners):
                certificates = await trio.to_thread.run_sync(CertificateStore, config.tls, state_dir)
            await trio.to_thread.run_sync(_check_access_log, config.log.access)
            with closing(await trio.to_thread.run_sync(bind_all, config)) as sockets:
                supervisor = _assemble(
                    config,
                    store=store,
                    routes=routes,
                    certificates=certificates,
                    sockets=sockets,
                    token=token,
                    reread=reread,
                    notifier=Notifier(environ),
                    ready=ready,
                    companions=companions,
                )
                return await supervisor.run()


def _check_access_log(target: str) -> None:
    if target == "off":
        return
    if target == "stdout":
        if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - so it is in a program started with >&-
            raise StartError('log.access is "stdout", and standard output is closed; "off" or a path would do')
        return
    try:
        with Path(target).open("ab"):
            pass
    except OSError as error:
        raise StartError(f"log.access {target} cannot be written: {error.strerror}") from None


def _assemble(
    config: Config,
    *,
    store: RouteStore,
    routes: list[Route],
    certificates: CertificateStore | None,
    sockets: Sockets,
    token: str,
    reread: Callable[[], Loaded],
    notifier: Notifier,
    ready: Callable[[Sockets], None],
    companions: Sequence[tuple[str, Service]],
) -> Supervisor:
    metrics = Metrics()
    access_log = None if config.log.access == "off" else AccessLog(config.log.access, metrics)
    limiter = ConnectionLimiter(config.limits.connections, config.limits.connections_per_client)
    proxy = Proxy(config, access_log=access_log, metrics=metrics)
    listeners = [
        Listener(
            item,
            sock,
            handler=proxy.serve_connection,
            certificates=certificates if item.tls != "off" else None,
            limiter=limiter,
            metrics=metrics,
            timeouts=lambda: settings.config.timeouts,
            trusted=lambda: settings.config.access.networks,
        )
        for item, sock in sockets.listeners
    ]

    async def forward(end: ForwarderEnd, *, task_status: trio.TaskStatus[None]) -> None:
        # Before the first connection is accepted: none of them shall be told that there are no routes yet.
        proxy.execute(SetTable(catalog.table))
        grace = settings.config.worker.drain_timeout
        async with trio.open_nursery() as nursery:
            if access_log is not None:
                await nursery.start(access_log.run)
            await run_forwarder(proxy, listeners, end, grace=grace, task_status=task_status)
            nursery.cancel_scope.cancel()

    def applied(new: Config) -> None:
        limiter.set_limits(new.limits.connections, new.limits.connections_per_client)
        setup_logs(new.log.level, new.log.format)
        if access_log is not None:
            access_log.reopen()

    lifecycle = Lifecycle()
    events = EventLog()
    catalog = Catalog(PRIORITY, version=store.version)
    slot = Slot(forward)
    publisher = Publisher(catalog, [slot], store)
    intake = Intake(catalog, publisher, events)
    intake.replace(PROVIDER, routes)
    sources = Sources(intake, config.routes, config.providers.file)
    settings = Settings(
        config,
        reread=reread,
        certificates=certificates,
        sources=sources,
        slots=[slot],
        events=events,
        applied=applied,
    )
    worker = RunningWorker(
        settings=settings,
        catalog=catalog,
        intake=intake,
        writes=Writes(catalog, store, intake, publisher),
        slots=[slot],
        events=events,
        lifecycle=lifecycle,
    )
    return Supervisor(
        lifecycle=lifecycle,
        settings=settings,
        sources=sources,
        slot=slot,
        publisher=publisher,
        management=partial(serve_management, create_app(worker, token=token), sockets.management),
        events=events,
        notifier=notifier,
        signals=partial(watch_signals, lifecycle),
        ready=partial(ready, sockets),
        companions=companions,
    )
