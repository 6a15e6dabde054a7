from __future__ import annotations

from collections.abc import Iterable

import trio

from trioproxy.providers.static import StaticProvider
from trioproxy.routing.route import Route, RouteKey


class RecordingSink:
    def __init__(self) -> None:
        self.snapshots: list[tuple[str, list[str]]] = []

    async def replace(self, provider: str, routes: Iterable[Route]) -> None:
        self.snapshots.append((provider, [route.session_id for route in routes]))

    async def change(self, provider: str, *, upsert: Iterable[Route] = (), remove: Iterable[RouteKey] = ()) -> None:
        raise AssertionError("static routes change as a whole")

    def failed(self, provider: str, error: str) -> None:
        raise AssertionError("static routes cannot fail")


def make(session_id: str) -> Route:
    return Route(session_id=session_id, service="v", backends=())


async def test_the_routes_are_in_when_it_has_started(nursery: trio.Nursery) -> None:
    sink = RecordingSink()
    await nursery.start(StaticProvider([make("a"), make("b")]).run, sink)
    assert sink.snapshots == [("static", ["a", "b"])]


async def test_other_routes_are_delivered_at_once(nursery: trio.Nursery) -> None:
    sink = RecordingSink()
    provider = StaticProvider([make("a")])
    await nursery.start(provider.run, sink)
    await provider.set([make("b")])
    await provider.refresh()
    assert sink.snapshots == [("static", ["a"]), ("static", ["b"])]


async def test_routes_set_while_it_does_not_run_are_delivered_when_it_does() -> None:
    sink = RecordingSink()
    provider = StaticProvider()
    async with trio.open_nursery() as nursery:
        await nursery.start(provider.run, sink)
        nursery.cancel_scope.cancel()
    await provider.set([make("late")])
    assert sink.snapshots == [("static", [])]
    async with trio.open_nursery() as nursery:
        await nursery.start(provider.run, sink)
        nursery.cancel_scope.cancel()
    assert sink.snapshots[1:] == [("static", ["late"])]
