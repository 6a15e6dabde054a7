from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioproxy.health.probe import Finding
from trioproxy.health.prober import Prober
from trioproxy.health.target import Target
from trioproxy.routing.route import Backend, Health

ROUTE, OTHER = ("s", "v"), ("t", "v")


class Scene:
    """A prober whose checks take `seconds` and find what `errors` says, by port."""

    def __init__(self, **how: Any) -> None:
        self.errors: dict[int, str | None] = {}
        self.seconds = 0.0
        self.checks: list[tuple[float, int]] = []
        self.running = self.most = 0
        self.decided = True
        self.changes: list[tuple[int, bool | None]] = []
        self.prober = Prober(self._changed, probe=self._probe, clock=trio.current_time, rng=lambda: 0.5, **how)

    def _changed(self, target: Target) -> None:
        self.changes.append((target.backend.port, None if target.gone else target.up))

    async def _probe(self, backend: Backend, spec: Health) -> Finding:
        self.checks.append((trio.current_time(), backend.port))
        self.running += 1
        self.most = max(self.most, self.running)
        await trio.sleep(self.seconds)
        self.running -= 1
        return Finding(self.errors.get(backend.port), self.decided)

    def watch(self, *ports: int, route: tuple[str, str] = ROUTE, **spec: Any) -> None:
        health = Health.model_validate(spec)
        self.prober.watch(route, {str(port): (Backend(host="h", port=port), health) for port in ports})

    @asynccontextmanager
    async def runs(self) -> AsyncGenerator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.prober.run)
            yield
            nursery.cancel_scope.cancel()


async def test_a_backend_that_fails_is_told_of_after_its_threshold_and_again_when_it_is_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    scene = Scene()
    scene.watch(1, interval=5, unhealthy_after=3, healthy_after=2)
    async with scene.runs():
        await trio.sleep(20)
        assert scene.changes == [(1, True)]
        scene.errors[1] = "refused"
        await trio.sleep(8)  # one interval at most, and two fast ones
        assert scene.changes == [(1, True), (1, False)]
        scene.errors.clear()
        await trio.sleep(7)
        assert scene.changes[2:] == [(1, True)]


async def test_routes_share_a_target_until_the_last_one_goes(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene()
    scene.watch(1)
    scene.watch(1, route=OTHER)
    scene.watch(1, route=("u", "v"), kind="http")
    assert len(scene.prober.targets) == 2
    async with scene.runs():
        await trio.sleep(1)
        scene.watch(route=("u", "v"))
        scene.watch()
        assert len(scene.prober.targets) == 1
        scene.watch(route=OTHER)
        assert scene.changes[-1] == (1, None)
        checks = len(scene.checks)
        await trio.sleep(60)
        assert (len(scene.checks), dict(scene.prober.targets)) == (checks, {})


async def test_a_check_that_ends_after_its_target_has_gone_says_nothing(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene()
    scene.seconds = 3
    scene.watch(1)
    async with scene.runs():
        await trio.sleep(1)
        scene.watch()
        await trio.sleep(10)
        assert scene.changes == [(1, None)]


async def test_many_new_targets_are_spread_and_no_more_run_than_may(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene(at_once=10)
    scene.seconds = 1.0
    scene.watch(*range(1, 41), interval=60)
    async with scene.runs():
        await trio.sleep(5)
        assert (scene.most, len(scene.checks)) == (10, 40)
        assert scene.prober.late > 0
        assert scene.prober.results == {"ok": 40}


async def test_a_new_target_is_checked_at_once_whenever_others_are_due(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene()
    scene.watch(1, interval=60)
    async with scene.runs():
        await trio.sleep(10)
        scene.watch(2, interval=60, route=OTHER)
        await trio.sleep(0.1)
        assert scene.checks[-1][1] == 2


async def test_a_check_that_was_not_possible_changes_nothing(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene()
    scene.decided = False
    scene.watch(1, interval=1)
    async with scene.runs():
        await trio.sleep(10)
        assert scene.changes == []
        assert scene.prober.results["undecided"] > 3


async def test_what_another_generation_knew_holds_until_it_is_checked(autojump_clock: trio.abc.Clock) -> None:
    old, new = Scene(), Scene()
    old.errors[1] = "refused"
    old.watch(1, 2, interval=60, first_check=True)
    async with old.runs():
        await trio.sleep(1)
    new.watch(1, interval=60, first_check=True)
    new.prober.inherit([target.told() for target in old.prober.targets.values()])
    new.watch(1, 2, interval=60, first_check=True)
    assert sorted(new.changes) == [(1, False), (2, True)]
    new.watch(1, interval=60, first_check=True)
    new.prober.forget_left()
    new.watch(1, 2, interval=60, first_check=True)
    assert new.prober.watches(ROUTE)["2"].up is None
