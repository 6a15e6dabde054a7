"""What each forwarder is still to be told about backends: the newest word on each counts, older ones are not sent."""

from __future__ import annotations

import trio

from trioproxy.control.messages import Command, SetBackend, SetEjected, SetHealth
from trioproxy.health.states import Ejection
from trioproxy.health.target import Target, TargetKey
from trioproxy.routing.route import RouteKey

MANY = 1000
"""Results of checks in one command: what takes a forwarder some milliseconds to take in."""


class Pending:
    """What one forwarder is still to be told. Bounded by the number of backends."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._marks: dict[tuple[RouteKey, str], SetBackend] = {}
        self._targets: dict[TargetKey, Target] = {}
        self._ejections: dict[tuple[RouteKey, str], Ejection] = {}
        self._more = trio.Event()

    def add_mark(self, mark: SetBackend) -> None:
        """An operator has spoken, or what one has said holds no longer."""
        self._marks[mark.route, mark.backend_id] = mark
        self._more.set()

    def add_target(self, target: Target) -> None:
        """A check has changed this target."""
        self._targets[target.key] = target
        self._more.set()

    def add_ejection(self, ejection: Ejection) -> None:
        """A backend was ejected, or has returned."""
        self._ejections[ejection.route, ejection.backend_id] = ejection
        self._more.set()

    async def commands(self) -> list[Command]:
        """What is to be told now, once there is something."""
        await self._more.wait()
        self._more = trio.Event()
        marks, self._marks = list(self._marks.values()), {}
        targets, self._targets = list(self._targets.values()), {}
        ejections, self._ejections = list(self._ejections.values()), {}
        return [*marks, *health_commands(targets), *(as_command(one) for one in ejections)]


class Bulletin:
    """Where news of backends is posted for all forwarders."""

    def __init__(self) -> None:
        self._readers: list[Pending] = []

    def reader(self, index: int) -> Pending:
        """For the forwarder of this number, and those that come after it in its place."""
        pending = Pending(index)
        self._readers.append(pending)
        return pending

    def post_admin(self, mark: SetBackend) -> None:
        """Every forwarder is to be told of this."""
        for reader in self._readers:
            reader.add_mark(mark)

    def post_target(self, target: Target) -> None:
        """Every forwarder is to be told of this target."""
        for reader in self._readers:
            reader.add_target(target)

    def post_ejection(self, ejection: Ejection, *, source: int) -> None:
        """Every forwarder but the one it comes from is to be told of this; `until` 0.0 means that it is over."""
        for reader in self._readers:
            if reader.index != source:
                reader.add_ejection(ejection)


def health_commands(targets: list[Target], *, whole: bool = False) -> list[SetHealth]:
    """The states of these targets, some in each command; `whole`: they are all there are."""
    parts = [targets[start : start + MANY] for start in range(0, len(targets), MANY)]
    commands = [SetHealth(tuple(target.told() for target in part)) for part in parts]
    if whole:
        first = commands[0].states if commands else ()
        commands[:1] = [SetHealth(first, whole=True)]
    return commands


def as_command(ejection: Ejection) -> SetEjected:
    """What forwarders are told of an ejection."""
    return SetEjected(ejection.route, ejection.backend_id, ejection.until, ejection.reason)
