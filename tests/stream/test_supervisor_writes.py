from __future__ import annotations

import pytest
import trio
from supervisor_fake import World, route

from trioproxy.control.messages import Answer, Command, Done, SetBackend, SetTable
from trioproxy.control.worker import Event
from trioproxy.errors import ProviderError
from trioproxy.process import fleet, publisher

BACKEND = "10.0.0.5:80"


async def collect(world: World, kind: str) -> list[Event]:
    found: list[Event] = []
    async with world.worker.events(after=0) as events:
        with trio.move_on_after(0.1):
            async for event in events:
                if event.kind == kind:
                    found.append(event)
    return found


async def test_a_write_is_kept_and_served_when_it_returns(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        change = await world.worker.put_route(route())
        assert (change.version, change.applied, change.created) == (world.catalog.version, True, True)
        assert world.store.kept == {("s", "v"): route()}
        assert world.plane.table_version == change.version
        assert not (await world.worker.put_route(route(port=81))).created
        world.lifecycle.start_drain()


async def test_a_write_that_changes_nothing_makes_no_new_version(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        first = await world.worker.put_route(route())
        again = await world.worker.put_route(route())
        assert (again.version, again.applied) == (first.version, True)
        world.lifecycle.start_drain()


async def test_a_write_that_cannot_be_kept_changes_nothing(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        await world.worker.put_route(route())
        version = world.catalog.version
        world.store.failure = "the disk is full"
        with pytest.raises(ProviderError, match="disk is full"):
            await world.worker.put_route(route("other"))
        with pytest.raises(ProviderError):
            await world.worker.remove_routes([("s", "v")])
        with pytest.raises(ProviderError):
            await world.worker.replace_routes([])
        with pytest.raises(ProviderError):
            await world.worker.patch_routes([route("third")], [("s", "v")])
        assert world.catalog.version == version
        assert list(world.catalog.table.routes) == [("s", "v")]
        world.store.failure = None
        assert (await world.worker.put_route(route("other"))).applied
        world.lifecycle.start_drain()


async def test_removing_reports_whether_there_was_anything_to_remove(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        await world.worker.patch_routes([route("a"), route("b")], [])
        change = await world.worker.remove_routes([("a", "v"), ("gone", "v")])
        assert change is not None
        assert change.applied
        assert list(world.store.kept) == [("b", "v")]
        assert await world.worker.remove_routes([("a", "v")]) is None
        world.lifecycle.start_drain()


async def test_replacing_all_asks_for_the_version_it_was_based_on(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        first = await world.worker.put_route(route("a"))
        assert await world.worker.replace_routes([route("b")], if_version=first.version - 1) is None
        assert list(world.store.kept) == [("a", "v")]
        change = await world.worker.replace_routes([route("b")], if_version=first.version)
        assert change is not None
        assert change.version == first.version + 1
        assert list(world.store.kept) == [("b", "v")]
        world.lifecycle.start_drain()


async def test_of_two_replacements_based_on_one_version_one_is_told(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    outcomes: list[bool] = []
    async with world.running():
        world.store.pause = 1.0
        version = world.catalog.version

        async def replace(name: str) -> None:
            outcomes.append(await world.worker.replace_routes([route(name)], if_version=version) is not None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace, "a")
            nursery.start_soon(replace, "b")
        world.lifecycle.start_drain()
    assert sorted(outcomes) == [False, True]


async def test_a_forwarder_that_does_not_follow_makes_the_write_unapplied(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        world.plane.hangs = True
        change = await world.worker.put_route(route())
        assert not change.applied
        assert ("s", "v") in world.store.kept
        world.lifecycle.start_drain()


async def test_a_forwarder_that_does_not_answer_delays_a_write_by_five_seconds_at_most(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with world.running():

        async def never(*_: object) -> bool:
            await trio.sleep_forever()
            return True

        monkeypatch.setattr(type(world.slot), "set_table", never)
        begun = trio.current_time()
        change = await world.worker.put_route(route())
        assert not change.applied
        assert trio.current_time() == begun + publisher.APPLY_SECONDS == begun + 5
        world.lifecycle.start_drain()


async def test_a_caller_that_gives_up_leaves_disk_and_table_agreed(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        for pause in (0.0, 1.0):
            world.store.pause = pause
            with trio.move_on_after(0.5 if pause else 0):
                await world.worker.put_route(route(f"after-{pause}"))
            assert world.store.kept == dict(world.catalog.of_provider("store"))
        world.lifecycle.start_drain()


async def test_versions_of_other_providers_are_remembered_too(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        await world.intake.replace("static", [route("other")])
        await trio.testing.wait_all_tasks_blocked()
        assert world.store.versions[-1] == world.catalog.version
        assert world.plane.table_version == world.catalog.version
        world.lifecycle.start_drain()


async def test_a_version_that_cannot_be_remembered_stops_nothing(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    async with world.running():
        world.store.failure = "read-only"
        await world.intake.replace("static", [route("other")])
        await trio.testing.wait_all_tasks_blocked()
        await world.intake.replace("static", [route("another")])
        await trio.testing.wait_all_tasks_blocked()
        assert world.plane.table_version == world.catalog.version
        world.lifecycle.start_drain()
    assert "the table's version cannot be kept" in caplog.text


async def test_changes_of_routes_are_events(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        await world.worker.put_route(route("a"))
        await world.worker.remove_routes([("a", "v")])
        found = await collect(world, "route")
        assert [event.detail["upserted"] for event in found] == [[("a", "v")], []]
        assert [event.detail["removed"] for event in found] == [[], [("a", "v")]]
        world.lifecycle.start_drain()


async def test_an_event_about_many_routes_only_counts_them(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        await world.worker.replace_routes([route(f"s{number}") for number in range(101)])
        (event,) = await collect(world, "route")
        assert event.detail["counts"] == {"upserted": 101, "removed": 0}
        assert "upserted" not in event.detail
        world.lifecycle.start_drain()


async def test_providers_are_told_of_with_their_failures(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        world.intake.failed("file", "not TOML")
        found = {info.name: info for info in world.worker.providers()}
        assert found["static"].up
        assert (found["file"].up, found["file"].error, found["file"].synced_at) == (False, "not TOML", None)
        await world.intake.replace("file", [route("f")])
        found = {info.name: info for info in world.worker.providers()}
        assert (found["file"].up, found["file"].error, found["file"].routes) == (True, None, 1)
        assert found["file"].synced_at == 1000.0
        world.lifecycle.start_drain()


async def test_what_the_forwarder_knows_is_asked_of_it(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        assert (await world.worker.report()).table_version == world.catalog.version
        assert await world.worker.close_connection("c-1")
        await world.worker.put_route(route())
        assert await world.worker.set_backend(("s", "v"), BACKEND, "draining")
        assert world.plane.commands[-1] == SetBackend(("s", "v"), BACKEND, "draining")
        (event,) = await collect(world, "health")
        assert event.detail == {
            "session_id": "s",
            "service": "v",
            "backend_id": BACKEND,
            "state": "draining",
            "previous": "healthy",
            "reason": "an operator is draining it",
        }
        assert world.worker.health_figures().changes == {"draining": 1}
        (info,) = (await world.worker.report()).backends
        assert (info.backend_id, info.state, info.reason) == (BACKEND, "draining", "an operator is draining it")
        world.lifecycle.start_drain()


async def test_a_connection_that_the_forwarder_does_not_know_is_not_found(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with world.running():

        async def unknown(_: object) -> Done:
            return Done(found=False)

        monkeypatch.setattr(world.plane, "execute", unknown)
        assert not await world.worker.close_connection("c-1")
        monkeypatch.undo()
        world.lifecycle.start_drain()


async def test_a_backend_that_the_table_does_not_have_is_not_found(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        await world.worker.put_route(route())
        assert not await world.worker.set_backend(("s", "v"), "other", "draining")
        assert not await world.worker.set_backend(("other", "v"), BACKEND, "draining")
        assert await collect(world, "health") == []
        assert not any(isinstance(command, SetBackend) for command in world.plane.commands)
        world.lifecycle.start_drain()


async def test_a_forwarder_that_is_behind_with_its_routes_is_told_again(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with world.running():
        await world.worker.put_route(route())
        execute = world.plane.execute

        async def behind(command: Command) -> Answer:
            answer = await execute(command)
            told = sum(isinstance(one, SetBackend) for one in world.plane.commands)
            return Done(found=told > 1) if isinstance(command, SetBackend) else answer

        monkeypatch.setattr(world.plane, "execute", behind)
        assert await world.worker.set_backend(("s", "v"), BACKEND, "disabled")
        kinds = [type(command) for command in world.plane.commands[-3:]]
        assert kinds == [SetBackend, SetTable, SetBackend]
        monkeypatch.undo()
        world.lifecycle.start_drain()


async def test_a_forwarder_that_is_gone_or_silent_has_empty_figures(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    assert (await world.worker.report()).table_version == 0  # never started
    async with world.running():

        async def never(_: object) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(world.plane, "execute", never)
        begun = trio.current_time()
        assert (await world.worker.report()).table_version == 0
        assert trio.current_time() == begun + fleet.REPORT_SECONDS
        assert not await world.worker.close_connection("c-1")
        assert trio.current_time() == begun + fleet.REPORT_SECONDS + fleet.ANSWER_SECONDS
        world.plane.crash.set()
        await world.slot.ended.wait()
        assert not await world.worker.close_connection("c-1")


async def test_explain_uses_the_table_in_force(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        assert (await world.worker.explain("/s/v/")).status == 404
        await world.worker.put_route(route())
        assert (await world.worker.explain("/s/v/")).outcome == "forward"
        world.lifecycle.start_drain()
