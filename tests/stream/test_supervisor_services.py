from __future__ import annotations

from functools import partial

import pytest
import trio
from supervisor_fake import FakeListener, FakePlane

from trioproxy.control.channel import memory_control
from trioproxy.control.messages import Done, StartAccepting
from trioproxy.process import services
from trioproxy.process.forwarder import run_forwarder
from trioproxy.process.services import keep_running, run_essential


class Flaky:
    """Crashes after `lifetimes[n]` seconds the n-th time it runs; then it runs on."""

    def __init__(self, *lifetimes: float) -> None:
        self._lifetimes = list(lifetimes)
        self.starts: list[float] = []

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.starts.append(trio.current_time())
        number = len(self.starts) - 1
        if number < len(self._lifetimes):
            if self._lifetimes[number]:
                task_status.started()
            await trio.sleep(self._lifetimes[number])
            raise ZeroDivisionError("flaky")
        task_status.started()
        await trio.sleep_forever()


def gaps(service: Flaky) -> list[float]:
    return [later - earlier for earlier, later in zip(service.starts, service.starts[1:], strict=False)]


async def test_a_crashed_service_is_started_again_after_pauses_that_double(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    service = Flaky(0, 0, 0, 0, 0, 0, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(keep_running, "flaky", service)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert gaps(service) == [1, 2, 4, 8, 16, services.LONGEST_PAUSE, services.LONGEST_PAUSE]
    assert caplog.text.count("ZeroDivisionError: flaky") == 7


async def test_a_service_that_ran_for_long_starts_from_the_first_pause_again(autojump_clock: trio.abc.Clock) -> None:
    service = Flaky(0, 0, services.STEADY_AFTER, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(keep_running, "flaky", service)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert gaps(service) == [1, 2, services.STEADY_AFTER + services.FIRST_PAUSE, 2]


async def test_nobody_waits_for_a_service_that_crashes_at_its_start(autojump_clock: trio.abc.Clock) -> None:
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(keep_running, "flaky", Flaky(0))
        assert trio.current_time() == begun
        nursery.cancel_scope.cancel()


async def test_a_crash_inside_a_service_s_own_nursery_counts_the_same(autojump_clock: trio.abc.Clock) -> None:
    starts: list[float] = []

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            starts.append(trio.current_time())
            task_status.started()
            if len(starts) == 1:
                nursery.start_soon(trio.open_tcp_stream, "", "not a port")
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(keep_running, "nested", service)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert len(starts) == 2


async def test_a_service_that_ends_is_not_started_again(autojump_clock: trio.abc.Clock) -> None:
    starts: list[float] = []

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        starts.append(trio.current_time())
        task_status.started()

    await keep_running("short", service)
    assert len(starts) == 1


async def test_an_essential_service_that_crashes_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    crashes: list[str] = []
    await run_essential("flaky", Flaky(0.001), lambda: crashes.append("crashed"))
    assert crashes == ["crashed"]
    assert "ZeroDivisionError: flaky" in caplog.text


async def test_an_essential_service_that_cannot_start_fails_the_start() -> None:
    crashes: list[str] = []
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await run_essential("flaky", Flaky(0), lambda: crashes.append("crashed"))
    assert crashes == []


async def test_a_forwarder_whose_supervisor_is_gone_drains(autojump_clock: trio.abc.Clock) -> None:
    log: list[str] = []
    plane, listener = FakePlane(log), FakeListener(log)
    mine, theirs = memory_control()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(run_forwarder, plane, [listener], theirs, grace=lambda: 7.0))
        await mine.commands.send(StartAccepting())
        assert await mine.answers.receive() == Done()
        await trio.testing.wait_all_tasks_blocked()
        listener.connect(trio.sleep_forever)
        begun = trio.current_time()
        await mine.commands.aclose()
    assert log == ["accepting", "forwarder told to drain", "accepting no more"]
    assert trio.current_time() == begun + 7
