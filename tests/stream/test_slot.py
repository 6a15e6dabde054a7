from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import trio
from slot_fake import FakeForwarder, SlotWorld

from trioproxy.config.schema import Config
from trioproxy.control.messages import (
    Applied,
    GetReport,
    SetBackend,
    SetConfig,
    SetTable,
    StartAccepting,
    StartDrain,
)
from trioproxy.errors import ControlError
from trioproxy.process import slot as module
from trioproxy.routing.route import Backend, Route

MARK = SetBackend(("s", "v"), "b", "draining")


def route(name: str) -> Route:
    return Route(session_id=name, service="v", backends=(Backend(host="h", port=1),))


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# --- start ---------------------------------------------------------------------------------------------


async def test_a_forwarder_gets_routes_and_marks_before_it_accepts(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    world.extra = (MARK,)
    async with world.running():
        assert world.launch.last.told == [SetTable(world.catalog.table), MARK, StartAccepting()]
        assert world.first_failure is None
        info = world.slot.info()
        assert (info.index, info.pid, info.state, info.table_version, info.restarts) == (3, 1001, "ready", 1, 0)
        assert world.slot.serves


async def test_what_changes_while_it_starts_reaches_it_before_it_accepts(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()

    def slow(forwarder: FakeForwarder) -> None:
        forwarder.pauses[SetTable] = 1.0

    world.launch.prepare = slow
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.slot.run)
        await settle()
        assert not world.slot.live
        world.catalog.replace("p", [route("new")])
        world.config = Config.model_validate({"limits": {"connections": 5}})
        world.extra = (MARK,)
        await trio.sleep(3)
        first, *told = world.launch.last.told
        assert isinstance(first, SetTable)
        assert told == [SetConfig(world.config), SetTable(world.catalog.table), MARK, StartAccepting()]
        assert world.slot.live
        nursery.cancel_scope.cancel()


async def test_a_configuration_that_was_exchanged_meanwhile_is_sent(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    world.config = Config.model_validate({"limits": {"connections": 5}})
    async with world.running():
        assert world.launch.last.told[0] == SetConfig(world.config)


@pytest.mark.parametrize(("failure", "reason"), [("ended with exit code 1",) * 2, (60.0, "did not say hello within")])
async def test_a_first_start_that_fails_is_told_and_tried_again(
    autojump_clock: trio.abc.Clock, failure: str | float, reason: str
) -> None:
    world = SlotWorld()
    world.launch.failures = [failure]
    async with world.running():
        assert reason in str(world.first_failure)
        assert not world.slot.live
        await trio.sleep(0.2)
        assert world.slot.serves
        assert world.slot.info().restarts == 1


async def test_hello_must_come_within_ten_seconds(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    world.launch.failures = [9.9, 10.1]
    async with world.running():
        assert world.slot.serves
        world.launch.last.end("crashed")
        await trio.sleep(10.0)
        assert len(world.launch.started) == 1
        await trio.sleep(1.0)
        assert len(world.launch.started) == 2


# --- death ---------------------------------------------------------------------------------------------


async def test_a_forwarder_that_dies_is_replaced_within_a_second(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    world = SlotWorld()
    async with world.running():
        await trio.sleep(5)
        died_at = trio.current_time()
        world.launch.last.end("was killed by SIGKILL")
        await settle()
        assert not world.slot.serves
        assert not world.slot.live
        assert world.slot.info().state == "dead"
        await trio.sleep(1)
        assert world.launch.started_at[-1] == died_at + module.FIRST_PAUSE
        assert world.slot.serves
        assert world.slot.info().restarts == 1
        assert world.launch.last.told == [SetTable(world.catalog.table), StartAccepting()]
        assert world.told() == [
            {"index": 3, "state": "ready", "pid": 1001},
            {"index": 3, "state": "dead", "reason": "was killed by SIGKILL"},
            {"index": 3, "state": "ready", "pid": 1002},
        ]
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert vars(record)["reason"] == "was killed by SIGKILL"


async def test_a_forwarder_that_ends_of_its_own_accord_is_replaced(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    async with world.running():
        world.launch.last.end(None)
        await trio.sleep(1)
        assert world.slot.serves
        assert len(world.launch.started) == 2
        assert world.told()[1]["reason"] == "ended without being told to"


async def test_pauses_grow_while_it_dies_at_once_so_that_no_storm_comes_about(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    world.launch.failures = ["crashed"] * 1000
    async with world.running():
        await trio.sleep(600)
        times = world.launch.started_at
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
        assert pauses[-1] == pytest.approx(module.LONGEST_PAUSE)
        assert len(times) < 30


async def test_after_half_a_minute_of_health_the_next_death_counts_as_a_first_one(
    autojump_clock: trio.abc.Clock,
) -> None:
    world = SlotWorld()
    world.launch.failures = ["crashed"] * 8
    async with world.running():
        await trio.sleep(module.STEADY_AFTER + 60)
        assert world.slot.serves
        died_at = trio.current_time()
        world.launch.last.end("crashed")
        await trio.sleep(1)
        assert world.launch.started_at[-1] == pytest.approx(died_at + module.FIRST_PAUSE)


async def test_whoever_waits_for_an_answer_of_a_dying_forwarder_is_told(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    async with world.running():
        forwarder = world.launch.last
        forwarder.pauses[SetBackend] = 60.0
        problems: list[str] = []

        async def ask() -> None:
            with pytest.raises(ControlError) as caught:
                await world.slot.ask(MARK)
            problems.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            forwarder.end("crashed")
        assert problems == ["the forwarder went away before it answered"]
        with pytest.raises(ControlError, match=r"not there|is gone"):
            await world.slot.ask(MARK)
        assert await world.slot.set_table(world.catalog.table) is None


# --- silence -------------------------------------------------------------------------------------------


async def test_a_heartbeat_comes_every_second_and_brings_figures(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    async with world.running():
        forwarder = world.launch.last
        forwarder.metrics.errors["no_route"] = 7
        await trio.sleep(10.5)
        beats = [command for command in forwarder.commands if isinstance(command, GetReport)]
        assert len(beats) == 11
        assert not any(beat.backends or beat.connections for beat in beats)
        assert world.ledger.metrics().errors["no_route"] == 7


async def test_a_hung_forwarder_is_killed_after_five_seconds_and_replaced(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    async with world.running():
        await trio.sleep(10.5)
        world.launch.last.hung = True
        begun = trio.current_time()
        await trio.sleep(4)
        assert len(world.launch.started) == 1
        await trio.sleep(2)
        assert world.slot.serves
        assert len(world.launch.started) == 2
        assert begun + 4 < world.launch.started_at[-1] <= begun + 5 + module.FIRST_PAUSE
        assert world.launch.started[0].killed.is_set()
        assert world.told()[1]["reason"] == "gave no sign of life for 5 s"


async def test_a_command_that_takes_long_and_gives_signs_of_life_is_no_hang(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    async with world.running():
        world.launch.last.pauses[SetTable] = 20.0
        running = world.slot._running
        assert running is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.slot.set_table, world.catalog.table)
            for _ in range(20):
                await trio.sleep(1)
                running.end.pulse.beat()  # as parts of a large table do
        assert len(world.launch.started) == 1


async def test_a_supervisor_that_slept_itself_blames_nobody(mock_clock: trio.testing.MockClock) -> None:
    world = SlotWorld()
    async with world.running():
        await settle()
        mock_clock.jump(60)  # in which nothing here ran, and no answer was read
        await settle()
        assert world.slot.serves
        assert not world.launch.last.killed.is_set()
        world.launch.last.hung = True
        for _ in range(7):
            mock_clock.jump(1)
            await settle()
        assert world.launch.started[0].killed.is_set()


# --- the end -------------------------------------------------------------------------------------------


async def test_a_drained_forwarder_is_not_replaced(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    async with world.running():
        await world.slot.drain(7.0)
        await world.slot.ended.wait()
        assert world.launch.last.told[-1] == StartDrain(7.0)
        assert (world.slot.info().state, world.slot.crashed) == ("dead", False)
        await trio.sleep(60)
        assert len(world.launch.started) == 1


async def test_a_forwarder_that_dies_while_it_drains_is_a_failure_and_not_replaced(
    autojump_clock: trio.abc.Clock,
) -> None:
    world = SlotWorld()
    async with world.running():
        forwarder = world.launch.last
        forwarder.pauses[StartDrain] = 60.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.slot.drain, 7.0)
            await settle()
            assert world.slot.info().state == "draining"
            forwarder.end("was killed by SIGSEGV")
        await world.slot.ended.wait()
        assert world.slot.crashed
        assert len(world.launch.started) == 1


@pytest.mark.parametrize("when", ["starting", "being brought up to date", "between two"])
async def test_a_drain_waits_for_no_forwarder_that_carries_nothing(autojump_clock: trio.abc.Clock, when: str) -> None:
    world = SlotWorld()
    if when == "starting":
        world.launch.failures = [9.0]
    elif when == "between two":
        world.launch.failures = ["crashed"] * 9
    else:
        world.launch.prepare = lambda forwarder: forwarder.pauses.update({SetTable: 9.0})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.slot.run)
        await trio.sleep(5)
        assert not world.slot.live
        begun = trio.current_time()
        await world.slot.drain(30.0)
        await world.slot.ended.wait()
        assert trio.current_time() == begun
        assert not world.slot.crashed


async def test_killing_ends_a_slot_for_good(autojump_clock: trio.abc.Clock) -> None:
    world = SlotWorld()
    async with world.running():
        world.slot.kill()
        await world.slot.ended.wait()
        assert not world.slot.crashed
        await trio.sleep(60)
        assert len(world.launch.started) == 1


# --- tables --------------------------------------------------------------------------------------------


async def test_a_table_is_applied_when_it_or_a_newer_one_is_in_force(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = SlotWorld()
    async with world.running():
        world.catalog.replace("p", [route("a")])
        assert await world.slot.set_table(world.catalog.table) is True
        assert world.slot.info().table_version == world.catalog.version
        later = world.catalog.table

        async def late(_: object) -> Applied:
            return Applied(later.version - 1)

        monkeypatch.setattr(world.slot, "ask", late)
        assert await world.slot.set_table(later) is False
