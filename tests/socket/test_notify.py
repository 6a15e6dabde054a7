from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from trioproxy.process.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(10)
        yield path, sock


def test_the_service_manager_is_told_of_every_state(manager: tuple[str, socket.socket]) -> None:
    path, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    notifier.ready("serving")
    assert sock.recv(1000) == b"READY=1\nSTATUS=serving"
    notifier.reloading()
    first, second = sock.recv(1000).decode().splitlines()
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert second.removeprefix("MONOTONIC_USEC=").isdigit()
    notifier.stopping("draining")
    assert sock.recv(1000) == b"STOPPING=1\nSTATUS=draining"


async def test_whoever_hands_over_names_the_other_and_is_silent_from_then_on(
    manager: tuple[str, socket.socket],
) -> None:
    path, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})
    notifier.hand_over(4711, "serving")
    assert sock.recv(1000) == b"MAINPID=4711\nREADY=1\nSTATUS=serving"
    notifier.stopping("draining")
    await notifier.run_watchdog()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1000)


def test_an_abstract_socket_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0trioproxy-test-{os.getpid()}")
        sock.settimeout(10)
        Notifier({"NOTIFY_SOCKET": f"@trioproxy-test-{os.getpid()}"}).ready("x")
        assert sock.recv(1000) == b"READY=1\nSTATUS=x"


def test_a_service_manager_that_is_not_there_is_logged_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("x")
    assert "the service manager cannot be told" in caplog.text


def test_a_service_manager_that_does_not_read_does_not_hold_us_up(
    manager: tuple[str, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager[0]})
    for _ in range(5000):
        notifier.ready("x" * 100)
        if caplog.text:
            break
    assert "the service manager cannot be told" in caplog.text


def test_without_a_service_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"WATCHDOG_USEC": "1000000"})
    notifier.ready("x")
    assert notifier.watchdog is None
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "20000000"}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_signs_of_life_are_given_twice_as_often_as_asked(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/nowhere", **environ}).watchdog == seconds


async def test_signs_of_life_go_on_while_the_loop_turns(manager: tuple[str, socket.socket]) -> None:
    path, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"})
    async with trio.open_nursery() as nursery:
        await nursery.start(notifier.run_watchdog)
        for _ in range(3):
            assert await trio.to_thread.run_sync(sock.recv, 1000) == b"WATCHDOG=1"
        nursery.cancel_scope.cancel()


async def test_nobody_who_asks_for_no_signs_of_life_gets_them(manager: tuple[str, socket.socket]) -> None:
    await Notifier({"NOTIFY_SOCKET": manager[0]}).run_watchdog()
    manager[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        manager[1].recv(1000)
