"""Which socket belongs to which listener, over reloads and from one generation to the next."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from trioproxy.config.schema import Config, ListenerConfig
from trioproxy.errors import StartError
from trioproxy.process.sockets import Inherited, Sockets, bind_all

ANY = "127.0.0.1:0"


def listener(name: str, bind: str = ANY, **options: object) -> ListenerConfig:
    return ListenerConfig.model_validate({"name": name, "bind": bind, **options})


def config(*listeners: ListenerConfig) -> Config:
    return Config.model_validate(
        {"management": {"bind": ANY}, "listeners": [one.model_dump(exclude_unset=True) for one in listeners]}
    )


@contextmanager
def bound(*listeners: ListenerConfig) -> Generator[Sockets]:
    with closing(bind_all(config(*listeners))) as sockets:
        yield sockets


def numbers(sockets: Sockets) -> dict[str, int]:
    return {one.config.name: one.sock.fileno() for one in sockets.listeners}


def test_where_several_have_the_same_address_the_name_tells_them_apart() -> None:
    with bound(listener("a"), listener("b")) as sockets:
        before = numbers(sockets)
        gone = sockets.adopt(sockets.plan([listener("b"), listener("c", tls="off")]))
        # c is a by another name: the address is what it was.
        assert gone == []
        assert numbers(sockets) == {"b": before["b"], "c": before["a"]}
        assert [one.config.tls for one in sockets.listeners] == ["auto", "off"]


def test_what_goes_is_closed_and_what_comes_is_bound() -> None:
    with bound(listener("a"), listener("b")) as sockets:
        handles = sockets.handles
        (gone,) = sockets.adopt(sockets.plan([listener("b")]))
        assert gone.config.name == "a"
        assert gone.sock.fileno() == -1
        assert sockets.copy(handles[0]) is None
        sockets.adopt(sockets.plan([listener("b"), listener("new")]))
        assert sockets.handles[0] == handles[1]
        assert sockets.handles[1] not in handles


def test_a_copy_is_another_descriptor_of_the_same_socket_and_does_not_block() -> None:
    with bound(listener("a")) as sockets:
        plan = sockets.plan([listener("a"), listener("planned")])
        for one in plan.listeners:
            copy = sockets.copy(one.handle)
            assert copy is not None
            with copy:
                assert copy.getsockname() == one.sock.getsockname()
                with pytest.raises(BlockingIOError):
                    copy.accept()
            with pytest.raises(BlockingIOError):
                one.sock.accept()
        sockets.drop(plan)
        assert sockets.copy(plan.listeners[1].handle) is None


def test_a_plan_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(listener("a")) as sockets, socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartError, match=f"listener 't' cannot listen on {taken}: address already in use"):
            sockets.plan([listener("u", f"unix:{path}"), listener("t", taken)])
        assert not path.exists()
        assert [one.config.name for one in sockets.listeners] == ["a"]


def test_an_inherited_descriptor_is_not_taken_over_while_running() -> None:
    with bound(listener("a")) as sockets, socket.create_server(("127.0.0.1", 0)) as given:
        bind = f"fd:{given.fileno()}"
        with pytest.raises(StartError, match=f"listener 'f' {bind} cannot be taken over while running"):
            sockets.plan([listener("f", bind)])


def test_a_successor_takes_over_what_it_has_in_its_configuration_and_closes_the_rest() -> None:
    with bound(listener("a"), listener("b")) as old:
        left = Inherited([(one.config, one.sock.dup()) for one in old.listeners], (ANY, old.management.dup()))
        a, b = (sock for _, sock in left.listeners)
        with closing(bind_all(config(listener("b"), listener("new", "127.0.0.2:0")), left)) as sockets:
            assert sockets.listeners[0].sock is b
            assert sockets.listeners[1].sock.getsockname()[0] == "127.0.0.2"
            assert a.fileno() == -1
            assert sockets.management is left.management[1]


def test_a_successor_with_another_management_address_binds_it() -> None:
    with bound(listener("a")) as old:
        left = Inherited([], ("127.0.0.1:6040", old.management.dup()))
        with closing(bind_all(config(listener("a")), left)) as sockets:
            assert left.management[1].fileno() == -1
            assert sockets.management.getsockname() != old.management.getsockname()
