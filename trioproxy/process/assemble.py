"""Putting a worker together from its configuration, and running it."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from trioproxy.config.loader import Loaded
from trioproxy.config.schema import Config, StickyConfig
from trioproxy.control.messages import Command, SetConfig, SetTable
from trioproxy.errors import StartError
from trioproxy.net.certificates import CertificateStore
from trioproxy.observe.logs import setup_logs
from trioproxy.process.bequest import write_down
from trioproxy.process.care import Care
from trioproxy.process.custody import Custody
from trioproxy.process.events import EventLog
from trioproxy.process.fleet import Fleet
from trioproxy.process.herald import Herald
from trioproxy.process.inheritance import Inheritance, bequeath
from trioproxy.process.intake import Intake
from trioproxy.process.ledger import Ledger
from trioproxy.process.lifecycle import Lifecycle
from trioproxy.process.notify import Notifier
from trioproxy.process.preparation import DATABASE, Prepared
from trioproxy.process.publisher import Publisher
from trioproxy.process.recruit import Crowd, gathering, launching, make_slots
from trioproxy.process.services import Service, keep_running
from trioproxy.process.settings import Settings
from trioproxy.process.signals import watch_signals
from trioproxy.process.sockets import Sockets, bind_all
from trioproxy.process.sources import Sources
from trioproxy.process.state import sticky_secret
from trioproxy.process.succession import Succession
from trioproxy.process.supervisor import Supervisor
from trioproxy.process.traffic import wants_certificates
from trioproxy.process.upgrade import Upgrade
from trioproxy.process.worker import RunningWorker
from trioproxy.process.writes import Writes
from trioproxy.providers.store import RouteStore

_LOG = logging.getLogger("trioproxy.process.assemble")


async def run_worker(
    loaded: Loaded,
    prepared: Prepared,
    *,
    reread: Callable[[], Loaded],
    environ: Mapping[str, str],
    ready: Callable[[Sockets], None],
    companions: Sequence[tuple[str, Service]] = (),
    inheritance: Inheritance | None = None,
    no_upgrade: str | None = None,
) -> bool:
    """Run a worker until it is told to stop and has drained; whether that went as it was meant to.

    Args:
        loaded: the configuration to start with.
        prepared: what `prepare` made of it.
        reread: reads it again, for a reload.
        environ: where the service manager says how to reach it.
        ready: called once everything works.
        companions: what else is to run along, by name.
        inheritance: what a worker that runs leaves to this one.
        no_upgrade: why this worker cannot hand over to another one, if that is so.

    Raises:
        ConfigError: the certificates cannot be used.
        StartError, ProviderError: something else is in the way; the text says what.
    """
    config = loaded.config
    for warning in loaded.warnings:
        _LOG.warning(warning)
    inherited_sockets = inheritance.sockets if inheritance is not None else None
    state_dir = prepared.state.path
    config = with_secret(loaded, state_dir).config
    with ExitStack() as stack:
        async with (
            gathering(config, prepared.loads, prepared.ahead) as crowd,
            await RouteStore.open(state_dir / DATABASE, suspended=inheritance is not None) as store,
        ):
            sockets = stack.enter_context(closing(await trio.to_thread.run_sync(bind_all, config, inherited_sockets)))
            wanted = wants_certificates(config)
            open_certificates = partial(CertificateStore, config.tls, state_dir, wanted=wanted)
            certificates = await trio.to_thread.run_sync(open_certificates)
            await trio.to_thread.run_sync(_check_access_log, config.log.access)
            supervisor = _assemble(
                config,
                stack=stack,
                prepared=prepared,
                store=store,
                certificates=certificates,
                sockets=sockets,
                crowd=crowd,
                reread=lambda: with_secret(reread(), state_dir),
                notifier=Notifier(environ),
                ready=ready,
                companions=companions,
                inheritance=inheritance,
                no_upgrade=no_upgrade,
            )
            return await supervisor.run()


def with_secret(loaded: Loaded, state_dir: Path) -> Loaded:
    """The configuration with the secret of sticky cookies in it, as forwarders need it. Raises StartError."""
    sticky = StickyConfig(secret=sticky_secret(loaded.config.sticky, state_dir))
    return replace(loaded, config=loaded.config.model_copy(update={"sticky": sticky}))


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


def _import_management() -> None:
    # Half of what this program has to import, and no forwarder needs it: they start meanwhile.
    importlib.import_module("trioproxy.management.app")
    importlib.import_module("trioproxy.management.server")


def _assemble(
    config: Config,
    *,
    stack: ExitStack,
    prepared: Prepared,
    store: RouteStore,
    certificates: CertificateStore,
    sockets: Sockets,
    crowd: Crowd | None,
    reread: Callable[[], Loaded],
    notifier: Notifier,
    ready: Callable[[Sockets], None],
    companions: Sequence[tuple[str, Service]],
    inheritance: Inheritance | None,
    no_upgrade: str | None,
) -> Supervisor:
    lifecycle = Lifecycle()
    events = EventLog()
    catalog = prepared.catalog
    care = Care(lambda: catalog.table, events, defaults=config.health.active)
    ledger = Ledger(lambda: catalog.table)
    gate = trio.Event()

    def in_force() -> SetConfig:
        return settings.in_force()

    def standing() -> tuple[Command, ...]:
        return in_force(), SetTable(catalog.table), *care.commands()

    def apply(new: Config) -> None:
        setup_logs(new.log.level, new.log.format)
        care.set_defaults(new.health.active)

    launch = stack.enter_context(launching(config, in_force, sockets, certificates, crowd))
    slots = make_slots(config, launch, standing, ledger, events, gate)
    fleet = Fleet(slots, ledger)
    herald = Herald(slots, care.bulletin, care.heard)
    publisher = Publisher(catalog, fleet, store)
    intake = Intake(catalog, publisher, events, watcher=care)
    if prepared.stored is not None:
        intake.take(prepared.stored)
    sources = Sources(intake, config.routes, config.providers.file)
    settings = Settings(
        config,
        reread=reread,
        certificates=certificates,
        sockets=sockets,
        sources=sources,
        fleet=fleet,
        publisher=publisher,
        events=events,
        applied=apply,
    )

    async def manage(*, shutdown_trigger: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[Any]) -> None:
        from trioproxy.management.app import create_app  # noqa: PLC0415 - see _import_management
        from trioproxy.management.server import serve_management  # noqa: PLC0415

        app = create_app(worker, token=prepared.token)
        # A copy, which it closes: the socket itself stays open for whoever serves next.
        sock = sockets.management.dup()
        await serve_management(app, sock, shutdown_trigger=shutdown_trigger, task_status=task_status)

    custody = Custody(manage, store, intake)
    upgrade = Upgrade(
        lifecycle=lifecycle,
        custody=custody,
        catalog=catalog,
        left=lambda: write_down(care),
        events=events,
        notifier=notifier,
        bequeath=lambda environ, channel: bequeath(
            environ, channel, sockets, settings.config.management.bind, prepared.state
        ),
        quiet=settings.frozen,
        status=lambda: settings.summary,
        forbidden=no_upgrade,
    )
    worker = RunningWorker(
        settings=settings,
        catalog=catalog,
        intake=intake,
        writes=Writes(catalog, store, intake, publisher),
        fleet=fleet,
        publisher=publisher,
        care=care,
        events=events,
        lifecycle=lifecycle,
        upgrade=upgrade,
    )
    succession = None
    if inheritance is not None:
        succession = Succession(
            inheritance,
            store=store,
            catalog=catalog,
            intake=intake,
            care=care,
            fleet=fleet,
            publisher=publisher,
        )
    return Supervisor(
        lifecycle=lifecycle,
        settings=settings,
        sources=sources,
        fleet=fleet,
        release=sockets.close_listeners,
        publisher=publisher,
        management=custody.run,
        warm_up=_import_management,
        events=events,
        notifier=notifier,
        gate=gate,
        upgrade=upgrade.run,
        succession=succession,
        signals=partial(watch_signals, lifecycle),
        ready=partial(ready, sockets),
        companions=(
            ("health", partial(keep_running, "health", care.run)),
            ("herald", partial(keep_running, "herald", herald.run)),
            *companions,
        ),
    )
