from __future__ import annotations

import pytest
import trio

from trioproxy.config.schema import Config
from trioproxy.control import channel
from trioproxy.control.channel import ControlClient, memory_control, serve_commands
from trioproxy.control.messages import Answer, Applied, Command, Done, SetConfig, SetTable, StartDrain
from trioproxy.errors import ControlError
from trioproxy.routing.table import Table


def table(version: int) -> SetTable:
    return SetTable(Table.build((), version=version))


class Executor:
    """The forwarder's side: notes commands; tables are answered with their version."""

    def __init__(self) -> None:
        self.seen: list[Command] = []

    async def __call__(self, command: Command) -> Answer:
        self.seen.append(command)
        return Applied(command.table.version) if isinstance(command, SetTable) else Done()


async def start(nursery: trio.Nursery) -> tuple[ControlClient, Executor]:
    mine, theirs = memory_control()
    client, executor = ControlClient(mine), Executor()
    await nursery.start(client.run)
    await nursery.start(serve_commands, executor, theirs)
    return client, executor


async def test_a_command_is_executed_and_its_answer_comes_back() -> None:
    async with trio.open_nursery() as nursery:
        client, executor = await start(nursery)
        assert await client.ask(StartDrain(3.0)) == Done()
        assert await client.ask(table(7)) == Applied(7)
        assert executor.seen[0] == StartDrain(3.0)
        nursery.cancel_scope.cancel()


async def test_commands_are_executed_in_the_order_they_were_asked() -> None:
    async with trio.open_nursery() as nursery:
        client, executor = await start(nursery)
        async with trio.open_nursery() as askers:
            for grace in range(20):
                askers.start_soon(client.ask, StartDrain(float(grace)))
                await trio.testing.wait_all_tasks_blocked()
        assert executor.seen == [StartDrain(float(grace)) for grace in range(20)]
        nursery.cancel_scope.cancel()


async def test_of_waiting_tables_only_the_newest_is_sent_and_answers_all_who_wait() -> None:
    mine, theirs = memory_control()
    client, executor = ControlClient(mine), Executor()
    answers: list[Answer] = []

    async def ask(command: Command) -> None:
        answers.append(await client.ask(command))

    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        for version in (1, 2, 4, 3, 5):  # nobody serves yet: 1 is on its way, the others wait
            nursery.start_soon(ask, table(version))
            await trio.testing.wait_all_tasks_blocked()
        await nursery.start(serve_commands, executor, theirs)
        await trio.testing.wait_all_tasks_blocked()
        assert [command.table.version for command in executor.seen if isinstance(command, SetTable)] == [1, 5]
        assert answers == [Applied(1)] + [Applied(5)] * 4
        nursery.cancel_scope.cancel()


async def test_an_older_table_does_not_take_the_place_of_a_newer_one() -> None:
    mine, theirs = memory_control()
    client, executor = ControlClient(mine), Executor()
    async with trio.open_nursery() as nursery:
        for version in (9, 8):
            nursery.start_soon(client.ask, table(version))
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.run)
        nursery.start_soon(serve_commands, executor, theirs)
        await trio.testing.wait_all_tasks_blocked()
        (command,) = executor.seen
        assert isinstance(command, SetTable)
        assert command.table.version == 9
        nursery.cancel_scope.cancel()


async def test_a_caller_who_gives_up_does_not_disturb_the_others() -> None:
    mine, theirs = memory_control()
    client, executor = ControlClient(mine), Executor()
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with trio.move_on_after(0):
            await client.ask(StartDrain(1.0))
        await nursery.start(serve_commands, executor, theirs)
        assert await client.ask(StartDrain(2.0)) == Done()
        assert executor.seen == [StartDrain(1.0), StartDrain(2.0)]
        nursery.cancel_scope.cancel()


async def test_asking_a_forwarder_that_is_gone_is_an_error() -> None:
    async with trio.open_nursery() as nursery:
        client, _ = await start(nursery)
        nursery.cancel_scope.cancel()
    with pytest.raises(ControlError, match="is gone"):
        await client.ask(StartDrain(1.0))


async def test_everybody_who_waits_is_told_when_the_forwarder_goes() -> None:
    mine, theirs = memory_control()
    client = ControlClient(mine)
    told: list[str] = []

    async def ask(command: Command) -> None:
        with pytest.raises(ControlError) as caught:
            await client.ask(command)
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        for command in (StartDrain(1.0), StartDrain(2.0), table(1)):
            nursery.start_soon(ask, command)
        await nursery.start(client.run)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.commands.aclose()
        await theirs.answers.aclose()
    assert told == ["the forwarder went away before it answered"] * 3


async def test_a_client_that_asks_nothing_notices_all_the_same_that_the_forwarder_went() -> None:
    mine, theirs = memory_control()
    client = ControlClient(mine)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await theirs.answers.aclose()
        # The nursery ends because `run` returned.


async def test_serving_ends_when_the_supervisor_is_gone() -> None:
    mine, theirs = memory_control()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_commands, Executor(), theirs)
        await mine.commands.aclose()


async def test_a_supervisor_that_goes_before_its_answer_is_no_error() -> None:
    mine, theirs = memory_control()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_commands, Executor(), theirs)
        await mine.commands.send(StartDrain(1.0))
        await mine.answers.aclose()


async def test_the_number_of_waiting_commands_is_bounded() -> None:
    mine, _theirs = memory_control()
    client = ControlClient(mine)
    async with trio.open_nursery() as nursery:
        for _ in range(channel.MAX_WAITING):
            nursery.start_soon(client.ask, SetConfig(Config()))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ControlError, match="does not keep up"):
            await client.ask(StartDrain(1.0))
        nursery.cancel_scope.cancel()
