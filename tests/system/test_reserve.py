"""Forwarder processes that are started before anybody needs them."""

from __future__ import annotations

import sys

import pytest
import trio

import trioproxy
from trioproxy.config.schema import Config
from trioproxy.control.codec import decode, encode
from trioproxy.control.messages import Hello, Start
from trioproxy.control.wire import lean
from trioproxy.errors import ControlError
from trioproxy.process.reserve import Recruit, Reserve


async def say_hello(recruit: Recruit) -> Hello:
    """What it answers to a Start of another version: a Hello, and then it ends."""
    await recruit.frames.send(encode(Start("another", 0, lean(Config()), (), 0, 1)))
    frame = await recruit.frames.receive()
    assert frame is not None
    return decode(frame, Hello)


async def test_one_that_was_started_ahead_is_taken_and_works() -> None:
    with trio.fail_after(20):
        async with Reserve([]) as reserve:
            await reserve.fill(1)
            (ready,) = reserve._ready
            recruit = await reserve.take()
            assert recruit is ready
            assert not reserve._ready
            assert (await say_hello(recruit)).version == trioproxy.__version__
            assert await recruit.process.wait() == 1
            await recruit.dismiss()


async def test_when_none_is_left_another_one_is_started() -> None:
    with trio.fail_after(20):
        async with Reserve([]) as reserve:
            await reserve.fill(1)
            one, other = await reserve.take(), await reserve.take()
            assert one.process.pid != other.process.pid
            await one.dismiss()
            await other.dismiss()
            assert None not in (one.process.returncode, other.process.returncode)


async def test_who_was_not_taken_ends_with_the_reserve() -> None:
    with trio.fail_after(20):
        async with Reserve([]) as reserve:
            await reserve.fill(2)
            processes = [recruit.process for recruit in reserve._ready]
            assert [process.poll() for process in processes] == [None, None]
        assert all(process.returncode is not None for process in processes)


async def test_a_cancelled_start_leaves_no_process_behind() -> None:
    with trio.fail_after(20), trio.CancelScope() as scope:
        async with Reserve([]) as reserve:
            await reserve.fill(1)
            processes = [recruit.process for recruit in reserve._ready]
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert [process.returncode is not None for process in processes] == [True]


async def test_one_ends_by_itself_when_the_supervisor_goes_away() -> None:
    with trio.fail_after(20):
        async with Reserve([]) as reserve:
            await reserve.fill(1)
            recruit = await reserve.take()
            await recruit.frames.aclose()
            assert await recruit.process.wait() == 0


async def test_who_cannot_be_started_is_an_error_for_the_one_who_takes_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with trio.fail_after(20):
        async with Reserve([]) as reserve:
            await reserve.fill(2)
            assert [record.getMessage() for record in caplog.records] == ["a forwarder is not started ahead"]
            with pytest.raises(ControlError, match="cannot be started: No such file"):
                await reserve.take()
