from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
from supervisor_fake import World, route

from trioproxy.config.schema import Config
from trioproxy.control.messages import SetTable, StartDrain
from trioproxy.process import supervisor as module


def config(**sections: object) -> Config:
    return Config.model_validate(sections)


async def test_everything_is_there_before_ready_is_said(autojump_clock: trio.abc.Clock) -> None:
    world = World(config(routes=[route().model_dump()]))
    async with world.running():
        assert world.log == ["accepting", "management answers", "ready"]
        assert world.plane.table_version == world.catalog.version == 1
        assert world.worker.readiness().ready
        world.worker.start_drain()
    assert world.clean


async def test_the_forwarder_has_its_routes_before_the_management_api_answers(autojump_clock: trio.abc.Clock) -> None:
    world = World(config(routes=[route().model_dump()]))
    async with world.running():
        first = world.plane.commands[0]
        assert isinstance(first, SetTable)
        assert first.table.get(("s", "v")) is not None
        world.lifecycle.start_drain()


async def test_what_runs_along_is_there_before_the_routes(autojump_clock: trio.abc.Clock) -> None:
    world = World()

    async def companion(*, task_status: trio.TaskStatus[None]) -> None:
        world.log.append("companion")
        task_status.started()
        await trio.sleep_forever()

    world = World(companions=[("companion", companion)])
    async with world.running():
        assert world.log[0] == "companion"
        world.lifecycle.start_drain()


async def test_a_drain_without_connections_ends_at_once_and_the_management_api_goes_last(
    autojump_clock: trio.abc.Clock,
) -> None:
    world = World(config(worker={"drain_timeout": 30}))
    async with world.running():
        world.log.clear()
        begun = trio.current_time()
        world.lifecycle.start_drain()
    assert world.log == ["forwarder told to drain", "accepting no more", "management gone"]
    assert world.ended_at == begun
    assert world.clean


async def test_readyz_says_no_before_anything_else_of_the_drain(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    async with world.running():
        world.log.clear()
        world.lifecycle.start_drain()
        readiness = world.worker.readiness()
        assert not readiness.ready
        assert readiness.reasons == ("draining",)
        assert world.log == []


async def test_readyz_does_not_complain_of_forwarders_that_have_drained(autojump_clock: trio.abc.Clock) -> None:
    world = World()
    reasons: list[tuple[str, ...]] = []
    async with world.running():
        world.lifecycle.start_drain()
        while not all(info.state == "dead" for info in world.worker.forwarders()):  # noqa: ASYNC110 - nobody tells
            await trio.lowlevel.checkpoint()
        reasons.append(world.worker.readiness().reasons)
    assert [*reasons, world.worker.readiness().reasons] == [("draining",)] * 2


async def test_a_drain_waits_for_connections_and_no_longer(autojump_clock: trio.abc.Clock) -> None:
    world = World(config(worker={"drain_timeout": 30}))
    async with world.running():
        world.listener.connect(partial(trio.sleep, 12))
        begun = trio.current_time()
        world.lifecycle.start_drain()
    assert world.ended_at == begun + 12
    assert world.clean


async def test_the_management_api_answers_during_the_drain(autojump_clock: trio.abc.Clock) -> None:
    world = World(config(worker={"drain_timeout": 30}))
    async with world.running():
        world.listener.connect(partial(trio.sleep, 12))
        world.lifecycle.start_drain()
        await trio.sleep(6)
        assert "accepting no more" in world.log
        assert "management gone" not in world.log
        assert (await world.worker.report()).draining
        assert [info.state for info in world.worker.forwarders()] == ["draining"]
        assert world.worker.readiness().reasons == ("draining",)


async def test_worker_drain_timeout_ends_connections_that_go_on(autojump_clock: trio.abc.Clock) -> None:
    world = World(config(worker={"drain_timeout": 30}))
    async with world.running():
        world.listener.connect(trio.sleep_forever)
        begun = trio.current_time()
        world.lifecycle.start_drain()
    assert world.plane.commands[-1] == StartDrain(30.0)
    assert world.ended_at == begun + 30
    assert world.clean


async def test_a_connection_that_will_not_die_holds_up_the_end_no_longer_than_the_margin(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(30 + module.DRAIN_MARGIN + 3)

    world = World(config(worker={"drain_timeout": 30}))
    async with world.running():
        world.listener.connect(stubborn)
        begun = trio.current_time()
        world.lifecycle.start_drain()
    assert world.ended_at == begun + 30 + module.DRAIN_MARGIN + 3
    assert "forwarders did not end in time" in caplog.text


async def test_a_second_signal_cuts_what_runs_and_is_no_clean_end(autojump_clock: trio.abc.Clock) -> None:
    world = World(config(worker={"drain_timeout": 30}))
    async with world.running():
        world.listener.connect(trio.sleep_forever)
        begun = trio.current_time()
        world.lifecycle.start_drain()
        await trio.sleep(4)
        world.lifecycle.stop_now()
    assert world.ended_at == begun + 4
    assert world.clean is False


async def test_a_signal_during_the_start_ends_it(autojump_clock: trio.abc.Clock) -> None:
    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    world = World(companions=[("slow", slow)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await trio.testing.wait_all_tasks_blocked()
        world.lifecycle.start_drain()
    assert world.log == []
    assert world.clean


async def test_a_bug_in_the_forwarder_is_logged_and_ends_the_worker_as_a_failure(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    async with world.running():
        world.plane.crash.set()
    assert world.clean is False
    assert "ZeroDivisionError: a bug in the data plane" in caplog.text
    assert world.log[-1] == "management gone"
    assert [info.state for info in world.worker.forwarders()] == ["dead"]


async def test_a_bug_in_the_management_api_lets_traffic_end_in_good_order(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(config(worker={"drain_timeout": 30}))
    async with world.running():
        world.listener.connect(partial(trio.sleep, 9))
        begun = trio.current_time()
        world.management_crash.set()
    assert world.ended_at == begun + 9
    assert world.clean is False
    assert "an essential service crashed" in caplog.text


async def test_waiting_long_for_a_service_is_said_aloud(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(40)
        task_status.started()
        await trio.sleep_forever()

    world = World(companions=[("slow one", slow)])
    with caplog.at_level(logging.WARNING):
        async with world.running():
            world.lifecycle.start_drain()
    waits = [record for record in caplog.records if "still waiting" in record.message]
    assert [(vars(record)["service"], vars(record)["seconds"]) for record in waits] == [
        ("slow one", 15),
        ("slow one", 30),
    ]
