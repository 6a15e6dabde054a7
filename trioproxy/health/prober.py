"""Checks all targets, each in its turn, as many at a time as may be.

A task for each target would sleep nearly always, and 10 000 of them take more memory than all else the supervisor
has (docs/decisions/0017-health-checks.md). So targets wait in a heap, and only a check that runs is a task.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import trio

from trioproxy.control.messages import TargetHealth
from trioproxy.health.probe import Finding, probe
from trioproxy.health.schedule import Schedule
from trioproxy.health.target import Target, TargetKey, key_of
from trioproxy.routing.route import Backend, Health, RouteKey

AT_ONCE = 256
"""Checks that run at a time. Those that are due beyond it wait, and are counted as late after `LATE`."""
LATE = 1.0
"""Seconds."""
FIRST_CHECKS = 200
"""First checks in a second: those of many new targets are spread, over the interval at most."""

_LOG = logging.getLogger("trioproxy.health.prober")


class Probe(Protocol):
    """Checks a backend once."""

    async def __call__(self, backend: Backend, spec: Health) -> Finding:
        """Whatever goes wrong is in the finding."""
        ...


class Prober:
    """Owner of the targets. `changed` is called when one has become up or down, and when one is gone.

    `clock` tells seconds since the epoch, `rng` a number from 0 to 1.
    """

    def __init__(
        self,
        changed: Callable[[Target], None],
        *,
        probe: Probe = probe,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
        at_once: int = AT_ONCE,
    ) -> None:
        self._changed = changed
        self._probe = probe
        self._clock = clock
        self._rng = rng
        self._at_once = at_once
        self._targets: dict[TargetKey, Target] = {}
        self._routes: dict[RouteKey, dict[str, Target]] = {}
        self._schedule = Schedule()
        self._fresh: list[Target] = []
        self._woken = trio.Event()
        self._left: dict[TargetKey, TargetHealth] = {}
        self._able = True
        self.results = Counter[str]()
        """Checks that have ended: "ok", "failed", or "undecided" for want of files or memory here."""
        self.late = 0
        """Checks that began more than `LATE` seconds after they were due."""

    @property
    def targets(self) -> Mapping[TargetKey, Target]:
        """All of them."""
        return self._targets

    def watches(self, route: RouteKey) -> Mapping[str, Target]:
        """The targets of a route's backends, by their ids; none when it is not checked."""
        return self._routes.get(route, {})

    def inherit(self, states: Iterable[TargetHealth]) -> None:
        """Let targets that nothing is known of begin with these states; also those to come, until `forget_left`."""
        self._left = {(state.address, state.spec): state for state in states}
        for key in [key for key in self._left if key in self._targets]:
            target, left = self._targets[key], self._left.pop(key)
            if target.up is None:
                target.adopt(left)
                self._changed(target)

    def forget_left(self) -> None:
        """Whatever comes from now on is new."""
        self._left.clear()

    def watch(self, route: RouteKey, backends: Mapping[str, tuple[Backend, Health]]) -> None:
        """Check these backends of a route from now on, and no others. Costs what the route has, had and changes."""
        before = self._routes.get(route, {})
        now: dict[str, Target] = {}
        for backend_id, (backend, spec) in backends.items():
            target = self._targets.get(key_of(backend, spec)) or self._make(backend, spec)
            target.users[route, backend_id] = None
            now[backend_id] = target
        for backend_id, target in before.items():
            if now.get(backend_id) is not target:
                del target.users[route, backend_id]
                if not target.users:
                    self._drop(target)
        if now:
            self._routes[route] = now
        else:
            self._routes.pop(route, None)

    def _make(self, backend: Backend, spec: Health) -> Target:
        target = Target(backend, spec)
        self._targets[target.key] = target
        if left := self._left.pop(target.key, None):
            target.adopt(left)
            self._changed(target)
        self._fresh.append(target)
        self._woken.set()
        return target

    def _drop(self, target: Target) -> None:
        del self._targets[target.key]
        target.gone = True
        self._schedule.note_gone()
        self._changed(target)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check until cancelled."""
        slots = trio.Semaphore(self._at_once)
        # After a crash here, whatever was in hand then is begun anew.
        self._schedule, self._fresh = Schedule(), list(self._targets.values())
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await slots.acquire()
                nursery.start_soon(self._check, await self._next(), slots)

    async def _next(self) -> Target:
        while True:
            self._woken = trio.Event()
            self._spread()
            due = self._schedule.next_due()
            now = trio.current_time()
            if due is not None and due <= now:
                self.late += now - due > LATE
                return self._schedule.pop()
            with trio.move_on_at(due if due is not None else math.inf):
                await self._woken.wait()

    def _spread(self) -> None:
        """Give targets that are new a time for their first check."""
        fresh, self._fresh = [target for target in self._fresh if not target.gone], []
        now = trio.current_time()
        for target in fresh:
            spread = min(target.spec.interval, len(fresh) / FIRST_CHECKS)
            self._schedule.put(target, now + self._rng() * spread)

    async def _check(self, target: Target, slots: trio.Semaphore) -> None:
        try:
            finding = await self._probe(target.backend, target.spec)
        finally:
            slots.release()
        if target.gone:
            return
        if self._able and not finding.decided:
            _LOG.error("health checks are not possible", extra={"reason": finding.error})
        self._able = finding.decided
        if not finding.decided:
            self.results["undecided"] += 1
        else:
            self.results["ok" if finding.error is None else "failed"] += 1
            if target.note(finding.error, self._clock()):
                self._changed(target)
        self._schedule.put(target, trio.current_time() + target.pause(self._rng))
        self._woken.set()
