"""Forwarder processes: those that were forked ahead of need, and those that are started when it comes."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Protocol

import trio

import trioproxy
from trioproxy.control.descriptors import DescriptorFrames
from trioproxy.control.wire import control_sockets
from trioproxy.errors import ControlError
from trioproxy.routing.table import Table

GONE_SECONDS = 5.0
"""How long a killed process may take to be gone; only one that hangs in the kernel takes any time."""

_LOG = logging.getLogger("trioproxy.process.reserve")


class Process(Protocol):
    """A child process, as far as it is looked after here; see trio.Process."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    @property
    def returncode(self) -> int | None:
        """How it ended, once it was waited for."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    async def wait(self) -> int:
        """How it ended, once it has."""
        ...


@dataclass(frozen=True, slots=True)
class Recruit:
    """A process that waits for its Start, and the way to it. `known` is the table that it has already."""

    process: Process
    frames: DescriptorFrames
    known: Table | None = None

    async def dismiss(self) -> None:
        """Kill it and wait until it is gone. Callers in a hurry to end shield it, for `GONE_SECONDS`."""
        await trio.aclose_forcefully(self.frames)
        self.process.kill()
        await self.process.wait()


class Reserve(trio.abc.AsyncResource):
    """Has some processes ready, and starts others, which get `passed` descriptors. Closing ends those nobody took."""

    def __init__(self, passed: Sequence[int], ready: Sequence[Recruit] = ()) -> None:
        self._passed = tuple(passed)
        self._ready = list(ready)

    async def fill(self, count: int) -> None:
        """Have so many ready, as far as they can be started: whoever takes one learns why it cannot."""
        try:
            while len(self._ready) < count:
                self._ready.append(await self._spawn())
        except ControlError as error:
            _LOG.warning("a forwarder is not started ahead", extra={"reason": str(error)})

    async def take(self) -> Recruit:
        """A process that was started ahead, or else a new one. Raises ControlError when it cannot be started."""
        if not self._ready:
            return await self._spawn()
        await trio.lowlevel.checkpoint()
        return self._ready.pop(0)

    async def aclose(self) -> None:
        """End what is left."""
        for recruit in self._ready:
            with trio.move_on_after(GONE_SECONDS, shield=True) as limit:
                await recruit.dismiss()
            if limit.cancelled_caught:
                _LOG.error("a killed forwarder does not go away", extra={"pid": recruit.process.pid})
        self._ready.clear()
        await trio.lowlevel.checkpoint()

    async def _spawn(self) -> Recruit:
        try:
            frames, theirs = control_sockets()
        except OSError as error:
            raise _not_started(error) from None
        try:
            with theirs:
                return Recruit(await self._start(theirs), frames)
        except BaseException:
            with trio.move_on_after(GONE_SECONDS, shield=True):
                await trio.aclose_forcefully(frames)
            raise

    async def _start(self, control: socket.socket) -> trio.Process:
        try:
            return await trio.lowlevel.open_process(
                [*interpreter(), "-m", "trioproxy.process.child", "--control-fd", str(control.fileno())],
                stdin=DEVNULL,
                pass_fds=[control.fileno(), *self._passed],
            )
        except OSError as error:
            raise _not_started(error) from None


def _not_started(error: OSError) -> ControlError:
    return ControlError(f"cannot be started: {error.strerror}")


def interpreter() -> list[str]:
    """The command that starts this Python, such that it finds this very program and nothing else by its name."""
    root = str(Path(trioproxy.__file__).parents[1])
    # With -m Python looks into the working directory first, where anybody's file may be called like a module. It has
    # to where this program was started from there.
    elsewhere = root in sys.path[1:] or sys.flags.safe_path
    return [sys.executable, "-P"] if elsewhere else [sys.executable]
