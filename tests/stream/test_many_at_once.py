"""What there is a lot of is dealt with in steps, between which others get their turn."""

from __future__ import annotations

import weakref
from itertools import pairwise

import pytest
import trio

from trioproxy.control.channel import ControlClient, memory_control, serve_commands
from trioproxy.control.collector import AT_ONCE, let_go_slowly
from trioproxy.control.messages import Answer, Applied, Command, SetTable, StartDrain
from trioproxy.management import ordering
from trioproxy.management.ordering import in_order
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table


async def test_a_long_list_is_emptied_a_little_at_a_time(nursery: trio.Nursery) -> None:
    items = list(range(10 * AT_ONCE))
    seen: list[int] = []

    async def watch() -> None:
        while items:
            seen.append(len(items))
            await trio.lowlevel.checkpoint()

    nursery.start_soon(watch)
    await let_go_slowly(items)
    assert items == []
    assert len(seen) >= 8  # the first turns may be another's
    assert set(seen) <= {count * AT_ONCE for count in range(1, 11)}


async def test_a_forwarder_in_this_process_lets_go_of_an_old_table_a_little_at_a_time(nursery: trio.Nursery) -> None:
    in_force: list[Table] = []
    alive: list[weakref.ref[Route]] = []

    def whole(version: int) -> SetTable:
        routes = [Route(session_id=f"s{n}", service="v", backends=()) for n in range(8 * AT_ONCE)]
        if version == 1:
            alive.extend(map(weakref.ref, routes))
        return SetTable(Table.build(routes, version=version))

    async def execute(command: Command) -> Answer:
        await trio.lowlevel.checkpoint()
        if isinstance(command, SetTable):
            in_force[:] = [command.table]
        return Applied(in_force[0].version)

    def count() -> int:
        return sum(one() is not None for one in alive)

    ours, theirs = memory_control()
    client = ControlClient(ours)
    await nursery.start(client.run)
    await nursery.start(serve_commands, execute, theirs)
    await client.ask(whole(1))
    assert count() == 8 * AT_ONCE
    assert await client.ask(whole(2)) == Applied(2)
    seen = [count()]
    assert seen[0]
    while seen[-1]:
        await trio.lowlevel.checkpoint()
        seen.append(count())
    # A turn of ours may fall between two of theirs, or after both.
    assert max(before - after for before, after in pairwise(seen)) <= 2 * AT_ONCE
    assert await client.ask(StartDrain(1.0)) == Applied(2)
    nursery.cancel_scope.cancel()


async def test_routes_are_listed_by_session_and_service(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "RUN", 100)
    names = [(f"s{number * 7919 % 10_007}", service) for number in range(5000) for service in ("b", "a")]
    table = Table.build((Route(session_id=s, service=v, backends=()) for s, v in names), version=1)
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(watch)
    routes = await in_order(table)
    assert turns >= len(names) // 100 - 2  # the first turns may be another's
    assert [route.key for route in routes] == sorted(names)
    nursery.cancel_scope.cancel()


async def test_no_routes_are_listed_as_none() -> None:
    assert list(await in_order(Table.build((), version=1))) == []
