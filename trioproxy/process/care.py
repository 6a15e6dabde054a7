"""What the supervisor knows of backends: operators' words, results of checks, ejections; and who is told of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import trio

from trioproxy.control.messages import (
    AdminState,
    BackendChange,
    BackendInfo,
    Command,
    News,
    SetBackend,
    TargetHealth,
)
from trioproxy.control.worker import HealthFigures, LastCheck
from trioproxy.health.outbox import Outbox
from trioproxy.health.prober import Prober
from trioproxy.health.states import Ejection, States
from trioproxy.health.target import Target
from trioproxy.policy.specs import UNCHECKED, Specs
from trioproxy.process.announce import Announcer
from trioproxy.process.bulletin import Bulletin, as_command, health_commands
from trioproxy.process.events import EventLog
from trioproxy.process.marks import Marks
from trioproxy.routing.route import Backend, Health, Route, RouteKey
from trioproxy.routing.table import Table

AT_ONCE = 500
"""Changed routes that are looked at in one go: less than a millisecond where nothing is checked."""
NEWS_SECONDS = 2.0
"""After an ejection's time, for the news that a request has tried the backend, and failed."""

_LOG = logging.getLogger("trioproxy.process.care")


class Care:
    """Owner of all that. `table` tells the table in force, `defaults` are what routes' health objects leave out."""

    def __init__(
        self,
        table: Callable[[], Table],
        events: EventLog,
        *,
        defaults: Health,
        prober: Callable[[Callable[[Target], None]], Prober] = Prober,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._clock = clock
        self._specs = Specs(defaults)
        self._marks = Marks()
        self._states = States()
        self._announcer = Announcer(events)
        self._prober = prober(self._target_changed)
        self._changed: dict[RouteKey, None] = {}
        self._woken = trio.Event()
        self._whole: list[Command] | None = None
        self._ejections = 0
        self.bulletin = Bulletin()
        """What forwarders are still to be told."""

    # --- what comes in ----------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Check backends until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._prober.run)
            await self.catch_up()
            task_status.started()
            while True:
                with trio.move_on_after(self._until_an_end()):
                    await self._woken.wait()
                self._woken = trio.Event()
                self._end_ejections()
                await self.catch_up()

    def routes_changed(self, keys: Iterable[RouteKey], table: Table) -> None:
        """These routes may differ from before; what is to be checked follows soon."""
        keys = list(keys)
        for mark in self._marks.routes_changed(keys, table):
            self.bulletin.post_admin(mark)
        self._changed.update(dict.fromkeys(keys))
        self._woken.set()

    def set_defaults(self, defaults: Health) -> None:
        """A reload has brought these."""
        if self._specs.set_defaults(defaults):
            self._changed.update(dict.fromkeys(self._table().routes))
            self._woken.set()

    def set_admin(self, route: RouteKey, backend_id: str, state: AdminState) -> None:
        """An operator has spoken: forwarders that come later are told as well, and what is disabled is not checked."""
        self._marks.set(route, backend_id, state)
        self.bulletin.post_admin(SetBackend(route, backend_id, state))
        self._tell(self._states.set_admin(route, backend_id, state, self._clock()))
        self._changed[route] = None
        self._woken.set()

    def heard(self, forwarder: int, news: News) -> None:
        """A forwarder has ejected backends, or let them return."""
        if news.lost:
            _LOG.warning("a forwarder had no room for all its news", extra={"forwarder": forwarder, "lost": news.lost})
        for change in news.changes:
            backend = self._find(change.route, change.backend_id)
            if backend is None:
                continue
            if change.state == "ejected":
                ejection = Ejection(change.route, change.backend_id, backend.key, change.until, change.reason)
                self._ejections += 1
                self._woken.set()
                self._tell(self._states.set_ejected(ejection, change.at))
            elif change.previous == "ejected":
                ejection = Ejection(change.route, change.backend_id, backend.key, 0.0, change.reason)
                self._tell(self._states.set_returned(change.route, change.backend_id, change.reason, change.at))
            else:
                continue
            self.bulletin.post_ejection(ejection, source=forwarder)

    def inherit(self, states: Iterable[TargetHealth], ejections: Iterable[Ejection]) -> None:
        """Begin with what another generation of this worker has found out about backends of the table."""
        self._prober.inherit(states)
        for ejection in ejections:
            backend = self._find(ejection.route, ejection.backend_id)
            if backend is not None and backend.key == ejection.address:
                self._tell(self._states.set_ejected(ejection, self._clock()))
        self._woken.set()

    # --- what is made of it -----------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Look at the routes that have changed."""
        await trio.lowlevel.checkpoint()
        while self._changed:
            for key in list(self._changed)[:AT_ONCE]:
                del self._changed[key]
                self._look_at(key, self._table().get(key))
            await trio.lowlevel.checkpoint()
        self._prober.forget_left()

    def _look_at(self, key: RouteKey, route: Route | None) -> None:
        backends = {backend.id: backend for backend in route.backends} if route is not None else {}
        addresses = {name: backend.key for name, backend in backends.items()}
        self._announcer.tell(self._states.keep(key, addresses, self._clock()))
        spec = self._specs.of(route.health) if route is not None else None
        before = self._prober.watches(key)
        if spec is None and not before:
            return
        watched: dict[str, tuple[Backend, Health]] = {}
        if spec is not None:
            disabled = self._marks.disabled(key)
            watched = {name: (backend, spec) for name, backend in backends.items() if name not in disabled}
        self._prober.watch(key, watched)
        targets = self._prober.watches(key)
        for name in backends:
            self._tell(self._judge(key, name, targets.get(name)))

    def _judge(self, route: RouteKey, backend_id: str, target: Target | None) -> BackendChange | None:
        ill, why = None, "is not checked any more"
        if target is not None:
            why = target.reason or UNCHECKED
            if target.up is False or (target.up is None and target.spec.first_check):
                ill = why
        return self._states.set_checked(route, backend_id, ill, why, self._clock())

    def _target_changed(self, target: Target) -> None:
        self._whole = None
        self.bulletin.post_target(target)
        changes = [self._judge(route, backend_id, target) for route, backend_id in target.users]
        self._announcer.tell([change for change in changes if change is not None])

    def _tell(self, change: BackendChange | None) -> None:
        if change is not None:
            self._announcer.tell([change])

    def _find(self, key: RouteKey, backend_id: str) -> Backend | None:
        route = self._table().get(key)
        found = (backend for backend in route.backends if backend.id == backend_id) if route is not None else ()
        return next(iter(found), None)

    # --- what is asked ----------------------------------------------------------------------------------

    def knows(self, route: RouteKey, backend_id: str) -> bool:
        """Whether the table has this backend."""
        return self._find(route, backend_id) is not None

    def commands(self) -> tuple[Command, ...]:
        """What to tell a forwarder that has the table and nothing else."""
        if self._whole is None:
            known = [target for target in self._prober.targets.values() if target.up is not None]
            self._whole = [*health_commands(known, whole=True)]
        return (*self._marks.commands(), *self._whole, *(as_command(one) for one in self.ejections()))

    @property
    def marks(self) -> tuple[SetBackend, ...]:
        """What operators have said."""
        return self._marks.commands()

    def checked(self) -> list[TargetHealth]:
        """What is known from checks."""
        return [target.told() for target in self._prober.targets.values() if target.up is not None]

    def ejections(self) -> list[Ejection]:
        """Those that are not over. Where the time is, it is up to the next request: there is a second left for that."""
        soon = math.ceil(self._clock()) + 1.0  # not another time with each call, or a starting forwarder never has it
        return [replace(one, until=max(one.until, soon)) for one in self._states.ejections()]

    def outbox(self) -> Outbox:
        """A stream of changes for whoever reports them on; it begins with all that is not healthy now."""
        return self._announcer.outbox(self._states.unwell())

    def complete(self, reported: tuple[BackendInfo, ...]) -> tuple[BackendInfo, ...]:
        """What forwarders report, and those backends besides that are not healthy and that nobody has used."""
        known = {((info.session_id, info.service), info.backend_id) for info in reported}
        more: list[BackendInfo] = []
        for change in self._states.unwell():
            backend = self._find(change.route, change.backend_id)
            if backend is not None and (change.route, change.backend_id) not in known:
                more.append(BackendInfo.unused(change.route, backend, change.state, change.reason))
        return (*reported, *more)

    def _end_ejections(self) -> None:
        """Those whose time is over: who ejected it may be gone, or nobody asks for it. The next request tries it."""
        now = self._clock()
        for one in self._states.ejections():
            if one.until + NEWS_SECONDS <= now:
                why = "its ejection is over, and the next request tries it"
                self._tell(self._states.set_returned(one.route, one.backend_id, why, now))

    def _until_an_end(self) -> float:
        """Seconds until the next ejection is over."""
        soonest = min((one.until for one in self._states.ejections()), default=math.inf)
        return max(0.0, soonest + NEWS_SECONDS - self._clock())

    def last_check(self, route: RouteKey, backend_id: str) -> LastCheck | None:
        """The last check of a backend; None before the first one, and where it is not checked."""
        target = self._prober.watches(route).get(backend_id)
        if target is None or target.checked_at is None:
            return None
        return LastCheck(target.checked_at, target.error)

    def figures(self) -> HealthFigures:
        """What was counted."""
        targets = {"healthy": 0, "unhealthy": 0, "unknown": 0}
        for target in self._prober.targets.values():
            targets["unknown" if target.up is None else "healthy" if target.up else "unhealthy"] += 1
        return HealthFigures(
            targets=targets,
            checks=dict(self._prober.results),
            late=self._prober.late,
            changes=dict(self._announcer.counts),
            ejections=self._ejections,
        )
