"""The control channel between processes, both ends in this one."""

from __future__ import annotations

import os
import pickle
import random
import resource
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing

import pytest
import trio

from trioproxy.config.schema import Config
from trioproxy.control import frames
from trioproxy.control.channel import ControlClient, serve_commands
from trioproxy.control.codec import encode, seal
from trioproxy.control.descriptors import Arrivals
from trioproxy.control.frames import FrameStream, with_length
from trioproxy.control.messages import (
    Answer,
    Applied,
    Command,
    ConnectionInfo,
    Descriptor,
    Done,
    GetReport,
    PrepareConfig,
    Refused,
    Report,
    SetBackend,
    SetConfig,
    SetTable,
    StartAccepting,
    StartDrain,
)
from trioproxy.control.tables import PART, TableEncoder, TablePart
from trioproxy.control.wire import adopt_control, control_sockets, forwarder_end, supervisor_end
from trioproxy.errors import ControlError
from trioproxy.observe.metrics import Metrics
from trioproxy.routing.catalog import Catalog
from trioproxy.routing.route import Backend, Route
from trioproxy.routing.table import Table


def routes(count: int, port: int = 80) -> list[Route]:
    backend = Backend(host="10.0.0.1", port=port)
    return [Route(session_id=f"s{number}", service="v", backends=(backend,)) for number in range(count)]


def connection(number: int) -> ConnectionInfo:
    return ConnectionInfo(
        str(number), "192.0.2.1:1", "web", "idle", None, None, None, None, f"/{number:01000}", 0.0, 0, 0, 0
    )


class Executor:
    """The forwarder's side. `answer` is what it says to anything but a table."""

    def __init__(self) -> None:
        self.seen: list[Command] = []
        self.table = Table.build((), version=0)
        self.answer: Answer = Done()
        self.go_on = trio.Event()
        self.go_on.set()

    async def __call__(self, command: Command) -> Answer:
        self.seen.append(command)
        await self.go_on.wait()
        if isinstance(command, SetTable):
            self.table = command.table
            return Applied(command.table.version)
        return self.answer


class Link:
    """Both ends, talking."""

    def __init__(self, tables: TableEncoder | None = None, known: Table | None = None) -> None:
        self.ours, theirs = control_sockets()
        self.theirs = adopt_control(theirs)
        self.end = supervisor_end(self.ours, tables or TableEncoder(), known=known)
        self.client = ControlClient(self.end)
        self.executor = Executor()
        self.problem: ControlError | None = None
        self.ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.client.run(task_status=task_status)
        except ControlError as error:
            self.problem = error
        self.ended.set()


@asynccontextmanager
async def linked(
    tables: TableEncoder | None = None, *, serving: bool = True, known: Table | None = None
) -> AsyncGenerator[Link]:
    link = Link(tables, known)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run)
            if serving:
                await nursery.start(serve_commands, link.executor, forwarder_end(link.theirs, known=known))
            yield link
            await trio.aclose_forcefully(link.theirs)
            nursery.cancel_scope.cancel()


async def test_commands_and_answers_go_to_and_fro() -> None:
    async with linked() as link:
        for command in (StartAccepting(), SetBackend(("s", "v"), "b", "draining"), StartDrain(2.5)):
            assert await link.client.ask(command) == Done()
            assert link.executor.seen[-1] == command


async def test_a_report_comes_whole() -> None:
    async with linked() as link:
        report = Report(3, False, Metrics(), (), connections=tuple(connection(number) for number in range(5000)))
        link.executor.answer = report
        assert await link.client.ask(GetReport(connections=True)) == report


async def test_neither_routes_nor_secrets_travel_with_the_configuration() -> None:
    config = Config.model_validate(
        {"management": {"token": "a-secret-token"}, "routes": [route.model_dump() for route in routes(3)]}
    )
    async with linked() as link:
        await link.client.ask(SetConfig(config))
        (command,) = link.executor.seen
        assert isinstance(command, SetConfig)
        assert command.config.routes == ()
        assert command.config.management.token is None
        assert command.config.limits == config.limits


async def test_a_large_table_arrives_and_gives_signs_of_life_on_its_way() -> None:
    table = Table.build(routes(20 * PART), version=7)
    async with linked() as link:
        begun = link.end.pulse.at
        assert await link.client.ask(SetTable(table)) == Applied(7)
        assert link.executor.table.routes == table.routes
        assert link.end.pulse.at > begun
        assert [type(command) for command in link.executor.seen] == [SetTable]


async def test_a_table_that_nobody_takes_in_gives_no_sign_of_life() -> None:
    async with linked(serving=False) as link:
        with trio.move_on_after(0.1):
            await link.client.ask(SetTable(Table.build(routes(50 * PART), version=1)))
        await trio.testing.wait_all_tasks_blocked(0.1)  # the socket is full
        last = link.end.pulse.at
        await trio.sleep(0.1)  # nothing may come, and nothing tells when it has not come
        assert link.end.pulse.at == last


def sizes_sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each frame that is sent from now on, either way."""
    sent: list[int] = []
    send = FrameStream.send

    async def note(self: FrameStream, frame: bytes) -> None:
        sent.append(len(frame))
        await send(self, frame)

    monkeypatch.setattr(FrameStream, "send", note)
    return sent


async def test_later_tables_arrive_as_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(["p"])
    catalog.replace("p", routes(5000))
    async with linked() as link:
        assert await link.client.ask(SetTable(catalog.table)) == Applied(catalog.version)
        sent = sizes_sent(monkeypatch)
        catalog.change("p", upsert=routes(2, port=81), remove=[("s7", "v")])
        assert await link.client.ask(SetTable(catalog.table)) == Applied(catalog.version)
        assert link.executor.table.routes == catalog.table.routes
        assert len(sent) == 2  # a part and its answer
        assert sum(sent) < 2000


async def test_a_table_that_the_forwarder_knows_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(["p"])
    catalog.replace("p", routes(5000))
    sent = sizes_sent(monkeypatch)
    async with linked(known=catalog.table) as link:
        assert await link.client.ask(SetTable(catalog.table)) == Applied(catalog.version)
        assert link.executor.table.routes == catalog.table.routes
        catalog.change("p", remove=[("s7", "v")])
        assert await link.client.ask(SetTable(catalog.table)) == Applied(catalog.version)
        assert link.executor.table.routes == catalog.table.routes
    assert len(sent) == 4
    assert sum(sent) < 2000


async def test_an_older_table_than_the_last_one_changes_nothing() -> None:
    catalog = Catalog(["p"])
    async with linked() as link:
        tables = [catalog.table]
        for port in (1, 2, 3):
            catalog.replace("p", routes(3, port))
            tables.append(catalog.table)
        for table in (tables[2], tables[1], tables[3]):
            await link.client.ask(SetTable(table))
            assert link.executor.table.version == max(2, table.version)
        assert link.executor.table.routes == tables[3].routes


async def test_two_forwarders_with_different_pasts_come_to_the_same_table() -> None:
    chance = random.Random(5)
    catalog, tables = Catalog(["p"]), TableEncoder()
    async with linked(tables) as one, linked(tables) as other:
        for version in range(60):
            catalog.change("p", upsert=routes(chance.randrange(5), version + 1), remove=[(f"s{version % 7}", "v")])
            for link in (one, other):
                if chance.random() < 0.5:
                    await link.client.ask(SetTable(catalog.table))
        for link in (one, other):
            await link.client.ask(SetTable(catalog.table))
            assert link.executor.table.routes == catalog.table.routes
            assert link.executor.table.version == catalog.version


async def test_tables_are_conflated_while_one_is_on_its_way() -> None:
    catalog = Catalog(["p"])
    async with linked() as link, trio.open_nursery() as nursery:
        link.executor.go_on = trio.Event()
        for port in range(1, 20):
            catalog.replace("p", routes(3, port))
            nursery.start_soon(link.client.ask, SetTable(catalog.table))
            await trio.lowlevel.checkpoint()
        link.executor.go_on.set()
        await link.client.ask(SetTable(catalog.table))
        assert len(link.executor.seen) <= 3
        assert link.executor.table.routes == catalog.table.routes


async def test_an_answer_that_is_too_large_is_refused_and_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 100_000)
    async with linked() as link:
        many = tuple(connection(number) for number in range(1000))
        link.executor.answer = Report(3, False, Metrics(), (), connections=many)
        answer = await link.client.ask(GetReport(connections=True))
        assert isinstance(answer, Refused)
        assert "too large" in answer.problems[0]
        link.executor.answer = Done()
        assert await link.client.ask(StartAccepting()) == Done()


async def test_a_command_that_is_too_large_ends_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked() as link:
        monkeypatch.setattr(frames, "MAX_FRAME", 10)
        with pytest.raises(ControlError):
            await link.client.ask(StartDrain(1.0))
        await link.ended.wait()
        assert "too large" in str(link.problem)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (struct.pack("!I", frames.MAX_FRAME + 1), "is announced"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "is announced"),
        (struct.pack("!I", 7) + b"garbage", "is damaged"),
        (struct.pack("!I", 0), "is no record"),
        (with_length(seal(pickle.dumps(socket.socket))), "is no record"),
        (with_length(encode(StartAccepting())), "answered with a StartAccepting"),
        (with_length(encode(Done())), "what nobody asked"),
    ],
)
async def test_what_makes_no_sense_ends_the_channel_with_a_plain_error(data: bytes, problem: str) -> None:
    async with linked(serving=False) as link:
        await link.theirs._stream.send_all(data)
        await link.ended.wait()
        assert problem in str(link.problem)
        with pytest.raises(ControlError, match="is gone"):
            await link.client.ask(StartAccepting())


async def test_a_forwarder_that_goes_in_the_middle_of_an_answer_is_gone_and_nothing_worse() -> None:
    async with linked(serving=False) as link:
        await link.theirs._stream.send_all(struct.pack("!I", 1000) + b"half")
        await link.theirs.aclose()
        await link.ended.wait()
        assert link.problem is None


async def test_a_forwarder_that_goes_with_commands_unread_is_gone_and_nothing_worse() -> None:
    async with linked(serving=False) as link:
        with trio.move_on_after(0.1):
            await link.client.ask(StartAccepting())
        await link.theirs.aclose()
        await link.ended.wait()
        assert link.problem is None


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (b"garbage", "is damaged"),
        (encode(Done()), "commands with a Done"),
        (encode("stop"), "commands with a str"),
        (encode(TablePart(7, 8, True, (), (), last=True)), "based on version 7"),
    ],
)
async def test_a_forwarder_that_gets_garbage_says_so_and_stops_obeying(frame: bytes, problem: str) -> None:
    ours, theirs = control_sockets()
    executor = Executor()
    await ours.send(frame)
    with trio.fail_after(20), pytest.raises(ControlError, match=problem):
        await serve_commands(executor, forwarder_end(adopt_control(theirs)))
    assert executor.seen == []
    await ours.aclose()


# --- sockets that go along ------------------------------------------------------------------------------


class Listening:
    """Listening sockets by handle, as a supervisor has them."""

    def __init__(self, *handles: int) -> None:
        self.sockets = {handle: socket.create_server(("127.0.0.1", 0)) for handle in handles}

    def copy(self, handle: int) -> socket.socket | None:
        return self.sockets[handle].dup() if handle in self.sockets else None

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()


async def test_listening_sockets_are_there_when_the_command_that_names_them_is() -> None:
    config = Config.model_validate({"listeners": [{"name": name, "bind": f"unix:/{name}"} for name in "abc"]})
    arrivals = Arrivals()
    with closing(Listening(1, 3)) as listening:
        ours, theirs = control_sockets()
        client = ControlClient(supervisor_end(ours, TableEncoder(), listening.copy))
        seen: list[tuple[Command, list[object]]] = []

        async def execute(command: Command) -> Answer:
            await trio.lowlevel.checkpoint()
            taken = [arrivals.take(handle) for handle in (1, 2, 3)]
            seen.append((command, [sock and sock.getsockname() for sock in taken]))
            assert all(sock is None or not sock.get_inheritable() for sock in taken)
            for sock in taken:
                if sock is not None:
                    sock.close()
            return Done()

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(client.run)
                await nursery.start(serve_commands, execute, forwarder_end(adopt_control(theirs), arrivals))
                await client.ask(PrepareConfig(config, (1, 2, 3)))
                await client.ask(StartAccepting())
                await client.ask(SetConfig(config, (3, 2, 1)))
                nursery.cancel_scope.cancel()
        names = [listening.sockets[1].getsockname(), None, listening.sockets[3].getsockname()]
        # One that is gone since does not come, and the others are not taken for it.
        assert [(type(command), found) for command, found in seen] == [
            (PrepareConfig, names),
            (StartAccepting, [None, None, None]),
            (SetConfig, names),
        ]


async def test_a_socket_for_which_there_is_no_descriptor_left_is_missing_and_the_next_one_is_not() -> None:
    """The kernel drops what a process has no room for; the frames keep their order all the same."""
    ours, theirs = control_sockets()
    frames_of_forwarder = adopt_control(theirs)
    arrivals = Arrivals()
    with closing(Listening(1, 2)) as listening, trio.fail_after(20):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        with closing(listening.sockets[1].dup()) as copy:
            await ours.send_with(encode(Descriptor(1)), copy.fileno())
        await trio.testing.wait_all_tasks_blocked()
        resource.setrlimit(resource.RLIMIT_NOFILE, (copy_of_lowest(), limit[1]))
        try:
            assert await frames_of_forwarder.receive() is not None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        arrivals.put(1, frames_of_forwarder.take())
        await ours.send_with(encode(Descriptor(2)), listening.sockets[2].fileno())
        assert await frames_of_forwarder.receive() is not None
        arrivals.put(2, frames_of_forwarder.take())
        assert arrivals.take(1) is None
        second = arrivals.take(2)
        assert second is not None
        assert second.getsockname() == listening.sockets[2].getsockname()
        second.close()
        await ours.aclose()
        await frames_of_forwarder.aclose()


def copy_of_lowest() -> int:
    """The number that the next descriptor would have: a limit at which there is none."""
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number
