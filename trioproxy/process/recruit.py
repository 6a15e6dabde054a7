"""Making the slots of a worker's forwarders: as many processes as are wanted, or a task in this one."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Literal

import trio

from trioproxy.config.schema import Config
from trioproxy.control.channel import ForwarderEnd
from trioproxy.control.messages import Command, SetConfig
from trioproxy.control.wire import adopt_control
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.loads import Loads
from trioproxy.process.events import EventLog
from trioproxy.process.forked import Forked
from trioproxy.process.forwarder import run_forwarder
from trioproxy.process.launch import Launch, LocalLaunch
from trioproxy.process.ledger import Ledger
from trioproxy.process.reserve import Recruit, Reserve
from trioproxy.process.slot import Slot
from trioproxy.process.sockets import Sockets
from trioproxy.process.spawn import ProcessLaunch
from trioproxy.routing.table import Table


def count_processes(wanted: Literal["auto"] | int) -> int:
    """How many forwarder processes `worker.processes` means; "auto" is one per core that this process may use."""
    return len(os.sched_getaffinity(0)) if wanted == "auto" else wanted


class _Copies:
    """The listening sockets, for a forwarder that shares them without another process in between."""

    def __init__(self, sockets: Sockets) -> None:
        self.take = sockets.copy

    def clear(self) -> None:
        """There are none but those taken."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Forwarders that were forked, which wait for their Start at the other ends of these sockets, and their table."""

    children: Sequence[tuple[Forked, socket.socket]]
    table: Table


@dataclass(frozen=True, slots=True)
class Crowd:
    """What forwarder processes have in common. `loads` is a descriptor of the memory of `Loads`."""

    reserve: Reserve
    loads: int


@asynccontextmanager
async def gathering(config: Config, loads: int | None, ahead: Ahead) -> AsyncGenerator[Crowd | None]:
    """Have the forwarder processes of a worker ready, those that were forked and else new ones; None if it has none."""
    if loads is None:
        yield None
        return
    forked = [Recruit(child, adopt_control(control), ahead.table) for child, control in ahead.children]
    async with Reserve([loads], forked) as reserve:
        await reserve.fill(count_processes(config.worker.processes))
        yield Crowd(reserve, loads)


@contextmanager
def launching(
    config: Config,
    current: Callable[[], SetConfig],
    sockets: Sockets,
    certificates: CertificateStore,
    crowd: Crowd | None,
) -> Generator[Launch]:
    """The way to start forwarders on these sockets. `current` tells the settings in force. Raises OSError."""
    if crowd is None:
        yield _local(config, current, sockets, certificates)
        return
    processes = count_processes(config.worker.processes)
    with closing(Loads(crowd.loads, processes)) as loads:
        yield ProcessLaunch(
            settings=current,
            reserve=crowd.reserve,
            copy=sockets.copy,
            loads=loads,
            loads_descriptor=crowd.loads,
            forwarders=processes,
        )


def _local(
    config: Config, current: Callable[[], SetConfig], sockets: Sockets, certificates: CertificateStore
) -> Launch:
    # Only here: a supervisor of processes carries no traffic, and what does takes time to import.
    from trioproxy.process.traffic import Crew, Traffic  # noqa: PLC0415

    crew = Crew()
    settings = SetConfig(config, sockets.handles)
    traffic = Traffic(settings, _Copies(sockets), certificates=certificates, crew=crew, applied=lambda _: None)

    async def forward(end: ForwarderEnd, *, task_status: trio.TaskStatus[None]) -> None:
        await run_forwarder(traffic, [traffic.doors], end, grace=lambda: traffic.grace, task_status=task_status)

    return LocalLaunch(forward, current)


def make_slots(
    config: Config,
    launch: Launch,
    standing: Callable[[], tuple[Command, ...]],
    ledger: Ledger,
    events: EventLog,
    gate: trio.Event,
) -> list[Slot]:
    """One slot per forwarder. None accepts connections before `gate` is set."""
    processes = count_processes(config.worker.processes)
    return [
        Slot(launch, standing=standing, ledger=ledger, events=events, index=index, replaced=processes > 0, gate=gate)
        for index in range(max(processes, 1))
    ]
