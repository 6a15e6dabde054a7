"""Making the slots of a worker's forwarders: as many processes as are wanted, or a task in this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Literal

import trio

from trioproxy.config.schema import Config
from trioproxy.control.channel import ForwarderEnd
from trioproxy.control.messages import Command, SetConfig
from trioproxy.net.certificates import CertificateStore
from trioproxy.net.loads import Loads
from trioproxy.process.events import EventLog
from trioproxy.process.forwarder import run_forwarder
from trioproxy.process.launch import Launch, LocalLaunch
from trioproxy.process.ledger import Ledger
from trioproxy.process.slot import Slot
from trioproxy.process.sockets import Sockets
from trioproxy.process.spawn import ProcessLaunch
from trioproxy.process.traffic import Crew, Traffic


def count_processes(wanted: Literal["auto"] | int) -> int:
    """How many forwarder processes `worker.processes` means; "auto" is one per core that this process may use."""
    return len(os.sched_getaffinity(0)) if wanted == "auto" else wanted


class _Copies:
    """The listening sockets, for a forwarder that shares them without another process in between."""

    def __init__(self, sockets: Sockets) -> None:
        self.take = sockets.copy

    def clear(self) -> None:
        """There are none but those taken."""


@contextmanager
def launching(
    config: Config, current: Callable[[], SetConfig], sockets: Sockets, certificates: CertificateStore
) -> Generator[Launch]:
    """The way to start forwarders on these sockets. `current` tells the settings in force. Raises OSError."""
    processes = count_processes(config.worker.processes)
    if processes == 0:
        crew = Crew()
        copies = _Copies(sockets)
        settings = SetConfig(config, sockets.handles)
        traffic = Traffic(settings, copies, certificates=certificates, crew=crew, applied=lambda _: None)

        async def forward(end: ForwarderEnd, *, task_status: trio.TaskStatus[None]) -> None:
            await run_forwarder(traffic, [traffic.doors], end, grace=lambda: traffic.grace, task_status=task_status)

        yield LocalLaunch(forward, current)
        return
    descriptor = Loads.create(processes)
    try:
        with closing(Loads(descriptor, processes)) as loads:
            yield ProcessLaunch(
                settings=current,
                copy=sockets.copy,
                loads=loads,
                loads_descriptor=descriptor,
                forwarders=processes,
            )
    finally:
        os.close(descriptor)


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
