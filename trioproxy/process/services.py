"""Running services: starting them with a word when that takes long, and what their crash means for the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import trio

LOUD_AFTER = 15.0
"""Seconds of waiting for a service to become usable until that is logged."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds before a crashed service is started again: the first pause doubles up to the longest."""
STEADY_AFTER = 60.0
"""Seconds a service must have run for its next crash to count as a first one."""

_LOG = logging.getLogger("trioproxy.process.services")


class Service(Protocol):
    """An async function for `nursery.start`, which calls `task_status.started()` when it is usable."""

    async def __call__(self, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run until cancelled or done."""
        ...


class Once:
    """A task status that may be told again, and knows whether it was."""

    def __init__(self, task_status: trio.TaskStatus[Any]) -> None:
        self._task_status = task_status
        self.told = False

    def started(self, value: Any = None) -> None:
        """Pass it on, the first time."""
        if not self.told:
            self.told = True
            self._task_status.started(value)


async def start_loudly(nursery: trio.Nursery, name: str, service: Service) -> None:
    """`nursery.start`, with a warning every `LOUD_AFTER` seconds of waiting."""
    async with trio.open_nursery() as waiting:
        waiting.start_soon(_complain, name)
        await nursery.start(service, name=name)
        waiting.cancel_scope.cancel()


async def _complain(name: str) -> None:
    begun = trio.current_time()
    while True:
        await trio.sleep(LOUD_AFTER)
        waited = round(trio.current_time() - begun)
        _LOG.warning("still waiting for a service to start", extra={"service": name, "seconds": waited})


async def keep_running(
    name: str, service: Service, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a service whose crash must not take anything else with it: log, pause, start it again.

    Started when the service first is, or when its first attempt crashed: the rest of the worker does not wait
    for something that is broken. Returns when the service does.
    """
    status = Once(task_status)
    pause = FIRST_PAUSE
    while True:
        begun = trio.current_time()
        try:
            await service(task_status=status)
        except* Exception:  # noqa: BLE001 - whatever it was: a bug there is no reason to stop here
            _LOG.exception("a service crashed and will be started again", extra={"service": name, "pause": pause})
        else:
            return
        status.started()
        if trio.current_time() - begun >= STEADY_AFTER:
            pause = FIRST_PAUSE
        await trio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def run_essential(
    name: str,
    service: Service,
    crashed: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a service that the worker cannot do without: a crash is logged and told, and then it is up to `crashed`.

    A crash before it was usable leaves as it came, so that the start fails.
    """
    status = Once(task_status)
    try:
        await service(task_status=status)
    except* Exception:
        if not status.told:
            raise
        _LOG.exception("an essential service crashed", extra={"service": name})
        crashed()
