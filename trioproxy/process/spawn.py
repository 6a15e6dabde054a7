"""Starting forwarders as processes of their own."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL

import trio

import trioproxy
from trioproxy.control.codec import decode
from trioproxy.control.descriptors import DescriptorFrames
from trioproxy.control.messages import Hello, Refused, SetConfig, Start
from trioproxy.control.tables import TableEncoder
from trioproxy.control.wire import Copy, control_sockets, lean, send_start, supervisor_end
from trioproxy.errors import ControlError
from trioproxy.net.loads import Loads
from trioproxy.process.launch import Running

GONE_SECONDS = 5.0
"""How long a killed process may take to be gone; only one that hangs in the kernel takes any time."""

_LOG = logging.getLogger("trioproxy.process.spawn")


class ProcessLaunch:
    """Starts one process per call. `settings` tells what is in force, `copy` gives it the listening sockets of that.

    `loads_descriptor` was made by `Loads.create` for so many `forwarders`; `loads` is a view of it.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], SetConfig],
        copy: Copy,
        loads: Loads,
        loads_descriptor: int,
        forwarders: int,
    ) -> None:
        self._settings = settings
        self._copy = copy
        self._loads = loads
        self._loads_descriptor = loads_descriptor
        self._forwarders = forwarders
        self._tables = TableEncoder()

    async def __call__(self, index: int, *, task_status: trio.TaskStatus[Running]) -> str | None:
        """See Launch."""
        try:
            frames, theirs = control_sockets()
        except OSError as error:
            raise _not_started(error) from None
        process: trio.Process | None = None
        try:
            with theirs:
                process = await self._spawn(theirs)
            settings = self._settings()
            await self._greet(frames, process, index, settings)
            end = supervisor_end(frames, self._tables, self._copy)
            task_status.started(Running(process.pid, end, settings, process.kill))
            return how_it_ended(await process.wait())
        finally:
            with trio.move_on_after(GONE_SECONDS, shield=True) as limit:
                await trio.aclose_forcefully(frames)
                if process is not None:
                    process.kill()
                    await process.wait()
            if limit.cancelled_caught:
                _LOG.error("a killed forwarder does not go away", extra={"forwarder": index})
            self._loads.clear(index)

    async def _spawn(self, control: socket.socket) -> trio.Process:
        try:
            return await trio.lowlevel.open_process(
                [*interpreter(), "-m", "trioproxy.process.child", "--control-fd", str(control.fileno())],
                stdin=DEVNULL,
                pass_fds=[control.fileno(), self._loads_descriptor],
            )
        except OSError as error:
            raise _not_started(error) from None

    async def _greet(self, frames: DescriptorFrames, process: trio.Process, index: int, settings: SetConfig) -> None:
        start = Start(
            version=trioproxy.__version__,
            index=index,
            config=lean(settings.config),
            listeners=settings.listeners,
            loads=self._loads_descriptor,
            forwarders=self._forwarders,
        )
        try:
            await send_start(frames, start, self._copy)
            frame = await frames.receive()
        except trio.BrokenResourceError:
            frame = None
        if frame is None:
            raise ControlError(how_it_ended(await process.wait()) or "ended before it took commands")
        answer = decode(frame, object)
        if isinstance(answer, Refused):
            raise ControlError(f"cannot work: {'; '.join(answer.problems)}")
        if not isinstance(answer, Hello) or answer.version != trioproxy.__version__:
            raise ControlError("is of another version: the program was exchanged, and this worker needs a restart")


def _not_started(error: OSError) -> ControlError:
    return ControlError(f"cannot be started: {error.strerror}")


def interpreter() -> list[str]:
    """The command that starts this Python, such that it finds this very program and nothing else by its name."""
    root = str(Path(trioproxy.__file__).parents[1])
    # With -m Python looks into the working directory first, where anybody's file may be called like a module. It has
    # to where this program was started from there.
    elsewhere = root in sys.path[1:] or sys.flags.safe_path
    return [sys.executable, "-P"] if elsewhere else [sys.executable]


def how_it_ended(code: int) -> str | None:
    """An exit code, as a sentence without its subject; None for 0."""
    if code < 0:
        number = -code  # real-time signals have no name
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"was killed by {name}"
    return f"ended with exit code {code}" if code else None
