from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio
from supervisor_fake import World, route

from trioproxy.config.schema import Config
from trioproxy.control.messages import DropPrepared, PrepareConfig, SetTable
from trioproxy.errors import ConfigError


def config(**sections: object) -> Config:
    return Config.model_validate(sections)


async def test_a_reload_brings_the_new_configuration_everywhere() -> None:
    world = World(config(limits={"connections": 5}))
    async with world.running():
        world.next_config = config(limits={"connections": 6}, routes=[route("static").model_dump()])
        assert await world.worker.reload() == ()
        assert world.worker.config.limits.connections == 6
        assert world.settings.in_force() in world.plane.commands
        assert SetTable(world.catalog.table) in world.plane.commands
        assert world.applied == [world.worker.config]
        assert world.tls.loaded == [world.worker.config.tls]
        assert world.catalog.table.get(("static", "v")) is not None
        world.lifecycle.start_drain()


async def test_routes_that_are_gone_from_the_configuration_go() -> None:
    world = World(config(routes=[route("a").model_dump(), route("b").model_dump()]))
    async with world.running():
        world.next_config = config(routes=[route("b").model_dump()])
        await world.worker.reload()
        assert list(world.catalog.table.routes) == [("b", "v")]
        world.lifecycle.start_drain()


async def test_a_wrong_configuration_changes_nothing() -> None:
    world = World(config(limits={"connections": 5}))
    async with world.running():
        before = world.worker.config
        world.next_config = ConfigError(["line 3: wrong"])
        with pytest.raises(ConfigError, match="line 3: wrong"):
            await world.worker.reload()
        assert world.worker.config is before
        assert world.tls.loaded == []
        world.lifecycle.start_drain()


async def test_a_wrong_certificate_changes_nothing() -> None:
    world = World(config(limits={"connections": 5}))
    async with world.running():
        before = world.worker.config
        world.tls.failure = "no PEM"
        world.next_config = config(limits={"connections": 6}, routes=[route().model_dump()])
        with pytest.raises(ConfigError, match="no PEM"):
            await world.worker.reload()
        assert world.worker.config is before
        assert world.catalog.table.get(("s", "v")) is None
        assert world.applied == []
        world.lifecycle.start_drain()


async def test_a_broken_routes_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text('{"routes": []}')
    world = World(config(providers={"file": {"path": str(file), "interval": "1h"}}))
    async with world.running():
        before = world.worker.config
        file.write_text("{")
        world.next_config = before.model_copy(update={"routes": (route("static"),)})
        with pytest.raises(ConfigError, match=r"routes\.json"):
            await world.worker.reload()
        assert world.worker.config is before
        assert world.catalog.table.get(("static", "v")) is None
        world.lifecycle.start_drain()


async def test_a_changed_routes_file_is_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text('{"routes": []}')
    world = World(config(providers={"file": {"path": str(file), "interval": "1h"}}))
    async with world.running():
        file.write_text(f'{{"routes": [{route("f").model_dump_json()}]}}')
        await world.worker.reload()
        assert list(world.catalog.table.routes) == [("f", "v")]
        world.lifecycle.start_drain()


async def test_a_routes_file_can_come_move_and_go(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(f'{{"routes": [{route("first").model_dump_json()}]}}')
    second.write_text(f'{{"routes": [{route("second").model_dump_json()}]}}')
    world = World()
    async with world.running():
        for file, keys in ((first, [("first", "v")]), (second, [("second", "v")]), (None, [])):
            world.next_config = config(providers={"file": {"path": str(file)}} if file else {})
            async with world.worker.events() as events:
                await world.worker.reload()
                while list(world.catalog.table.routes) != keys:
                    await anext(events)
        world.lifecycle.start_drain()


async def test_a_new_routes_file_that_is_broken_changes_nothing(tmp_path: Path) -> None:
    world = World()
    async with world.running():
        for path, text in ((tmp_path / "missing.json", None), (tmp_path / "broken.json", "{")):
            if text is not None:
                path.write_text(text)
            world.next_config = config(providers={"file": {"path": str(path)}})
            with pytest.raises(ConfigError, match=path.name):
                await world.worker.reload()
        assert world.worker.config.providers.file is None
        world.lifecycle.start_drain()


async def test_what_only_a_restart_changes_is_named_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    old = config(worker={"id": "a", "state_dir": "/a"})
    world = World(old)
    async with world.running():
        world.next_config = config(
            worker={"id": "b", "state_dir": "/b", "processes": 3, "drain_timeout": 7},
            management={"bind": "127.0.0.1:2", "token": "12345678"},
            log={"access": "off", "level": "error"},
        )
        names = (
            "worker.id",
            "worker.state_dir",
            "worker.processes",
            "management.bind",
            "management.token",
            "log.access",
        )
        assert await world.worker.reload() == names
        now = world.worker.config
        assert (now.worker.id, now.management) == ("a", old.management)
        assert (now.worker.drain_timeout, now.log.level, now.log.access) == (7.0, "error", "stdout")
        # It is so until the restart, and said each time.
        assert await world.worker.reload() == names
        world.lifecycle.start_drain()
    (first, _) = (record for record in caplog.records if "need a restart" in record.message)
    assert vars(first)["keys"] == list(names)


async def test_forwarders_are_told_of_listeners_that_come_go_and_change() -> None:
    world = World(config(listeners=[{"name": "a", "bind": "0.0.0.0:5050"}, {"name": "b", "bind": "127.0.0.1:1"}]))
    async with world.running():
        kept, _ = world.sockets.handles
        wanted = [{"name": "c", "bind": "127.0.0.1:2"}, {"name": "a", "bind": "0.0.0.0:5050", "tls": "off"}]
        world.next_config = config(listeners=wanted)
        assert await world.worker.reload() == ()
        told = [command for command in world.plane.commands if not isinstance(command, SetTable)][-2:]
        assert world.sockets.handles[1] == kept
        assert told == [PrepareConfig(world.worker.config, world.sockets.handles), world.settings.in_force()]
        states = [event.detail for event in world.events._events if event.kind == "listener"]
        assert [(one["name"], one["state"]) for one in states] == [("b", "removed"), ("c", "added"), ("a", "changed")]
        world.lifecycle.start_drain()


async def test_an_address_that_cannot_be_had_changes_nothing() -> None:
    world = World()
    async with world.running():
        before = world.settings.in_force()
        world.sockets.failure = "listener 'b' cannot listen on 127.0.0.1:1: it is taken"
        world.next_config = config(limits={"connections": 5})
        with pytest.raises(ConfigError, match="it is taken"):
            await world.worker.reload()
        assert world.settings.in_force() == before
        world.lifecycle.start_drain()


async def test_what_one_forwarder_refuses_is_dropped_everywhere() -> None:
    world = World()
    async with world.running():
        before = world.settings.in_force()
        world.plane.refuses = PrepareConfig
        world.next_config = config(listeners=[{"name": "b", "bind": "127.0.0.1:1"}])
        with pytest.raises(ConfigError, match="no way"):
            await world.worker.reload()
        assert world.settings.in_force() == before
        assert world.plane.commands[-1] == DropPrepared()
        assert len(world.sockets.dropped) == 1
        world.lifecycle.start_drain()


async def test_a_reload_that_a_signal_asked_for_is_done_and_mistakes_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(config(limits={"connections": 5}))
    async with world.running():
        await world.notifier.wait_for("READY=1")
        world.next_config = ConfigError(["line 3: wrong"])
        world.lifecycle.request_reload()
        await world.notifier.wait_for("RELOADING=1", "READY=1")
        world.next_config = config(limits={"connections": 6})
        world.lifecycle.request_reload()
        await world.notifier.wait_for("RELOADING=1", "READY=1")
        assert world.worker.config.limits.connections == 6
        world.lifecycle.start_drain()
    await world.notifier.wait_for("STOPPING=1")
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert vars(record)["problems"] == ["line 3: wrong"]
    assert world.clean


async def test_a_reload_tells_of_the_certificates_in_use() -> None:
    world = World()
    async with world.running():
        await world.worker.reload()
        async with world.worker.events(after=0) as events:
            async for event in events:
                if event.kind == "certificate":
                    assert event.detail == {"names": [("a.example",)]}
                    break
        assert [info.names for info in world.worker.certificates()] == [("a.example",)]
        world.lifecycle.start_drain()


async def test_two_reloads_at_once_are_done_one_after_the_other() -> None:
    world = World()
    async with world.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.worker.reload)
            nursery.start_soon(world.worker.reload)
        assert len(world.applied) == 2
        world.lifecycle.start_drain()
