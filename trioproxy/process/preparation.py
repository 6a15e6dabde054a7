"""What a worker does before its event loop runs: it holds its state, reads its routes, and forks its forwarders.

Forked with the routes in memory, forwarders have them at once and for nothing: nothing is sent, read or put together
again, and what is in memory is there once for all of them, until it is written to.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import trio

from trioproxy.config.schema import Config
from trioproxy.control.collector import many_objects
from trioproxy.net.loads import Loads
from trioproxy.process.apart import forward_apart
from trioproxy.process.forked import Forked, fork
from trioproxy.process.inheritance import Inheritance
from trioproxy.process.recruit import Ahead, count_processes
from trioproxy.process.reserve import GONE_SECONDS
from trioproxy.process.sources import PRIORITY
from trioproxy.process.state import Held, management_token, state_directory
from trioproxy.process.writes import PROVIDER
from trioproxy.providers.store import read_store
from trioproxy.routing.catalog import Catalog, Step
from trioproxy.routing.table import Table

DATABASE = "routes.sqlite3"
"""File of the API-set routes, in the state directory."""

_LOG = logging.getLogger("trioproxy.process.preparation")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is there when the event loop begins. `stored` is the step that brings the stored routes into the catalog.

    `loads` is a descriptor of the memory of `Loads`; None where forwarders are no processes of their own.
    """

    state: Held
    token: str
    catalog: Catalog
    stored: Step | None
    loads: int | None
    ahead: Ahead


@contextmanager
def prepare(config: Config, inheritance: Inheritance | None) -> Generator[Prepared]:
    """Prepare a worker; afterwards the forked forwarders are gone. It must have one thread, and no event loop yet.

    A worker that succeeds another one leaves the routes to that one until they are its own.

    Raises:
        StartError: the state directory cannot be used.
        ProviderError: the stored routes cannot be read.
    """
    inherited = inheritance.state if inheritance is not None else None
    with state_directory(config.worker.state_dir, inherited) as state, ExitStack() as stack:
        token = management_token(config.management, state.path)
        catalog, stored = Catalog(PRIORITY), None
        with many_objects():  # which also keeps the collector from writing to pages that are shared from now on
            if inheritance is None:
                routes, version = read_store(state.path / DATABASE)
                catalog = Catalog(PRIORITY, version=version)
                stored = catalog.plan_replace(PROVIDER, routes)
                del routes
        table = stored.table if stored is not None else catalog.table
        loads = _shared_loads(config, stack)
        children = _fork_forwarders(config, loads, table, stack) if loads is not None else ()
        yield Prepared(state, token, catalog, stored, loads, Ahead(children, table))


def _shared_loads(config: Config, stack: ExitStack) -> int | None:
    processes = count_processes(config.worker.processes)
    if processes == 0:
        return None
    loads = Loads.create(processes)
    stack.callback(os.close, loads)
    return loads


def _fork_forwarders(
    config: Config, loads: int, table: Table, stack: ExitStack
) -> Sequence[tuple[Forked, socket.socket]]:
    children: list[tuple[Forked, socket.socket]] = []
    try:
        for _ in range(count_processes(config.worker.processes)):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            with theirs:
                child = fork(partial(_forward, theirs, table), (theirs.fileno(), loads))
            stack.callback(child.end, GONE_SECONDS)
            children.append((child, ours))
    except OSError as error:
        _LOG.info("forwarders are started instead of forked", extra={"reason": str(error)})
    return children


def _forward(control: socket.socket, table: Table) -> int:
    return trio.run(forward_apart, control, table)
