"""Starting forwarders as processes of their own."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import DEVNULL

import trio

import trioproxy
from trioproxy.config.schema import Config, ListenerConfig
from trioproxy.control.codec import decode, encode
from trioproxy.control.frames import FrameStream
from trioproxy.control.messages import Hello, Refused, Start
from trioproxy.control.tables import TableEncoder
from trioproxy.control.wire import control_sockets, lean, supervisor_end
from trioproxy.errors import ControlError
from trioproxy.net.loads import Loads
from trioproxy.process.launch import Running

GONE_SECONDS = 5.0
"""How long a killed process may take to be gone; only one that hangs in the kernel takes any time."""

_LOG = logging.getLogger("trioproxy.process.spawn")


class ProcessLaunch:
    """Starts one process per call, on listening sockets that stay bound here.

    `loads_descriptor` was made by `Loads.create` for so many `forwarders`; `loads` is a view of it.
    """

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        sockets: Sequence[tuple[ListenerConfig, socket.socket]],
        loads: Loads,
        loads_descriptor: int,
        forwarders: int,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._loads = loads
        self._loads_descriptor = loads_descriptor
        self._forwarders = forwarders
        self._tables = TableEncoder()

    async def __call__(self, index: int, *, task_status: trio.TaskStatus[Running]) -> str | None:
        """See Launch."""
        frames, theirs = control_sockets()
        process: trio.Process | None = None
        try:
            with theirs:
                process = await self._spawn(theirs)
            config = self._config()
            await self._greet(frames, process, index, config)
            end = supervisor_end(frames, self._tables)
            task_status.started(Running(process.pid, end, config, process.kill))
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
        passed = [control.fileno(), self._loads_descriptor, *(sock.fileno() for _, sock in self._sockets)]
        try:
            return await trio.lowlevel.open_process(
                [*interpreter(), "-m", "trioproxy.process.child", "--control-fd", str(control.fileno())],
                stdin=DEVNULL,
                pass_fds=passed,
            )
        except OSError as error:
            raise ControlError(f"cannot be started: {error.strerror}") from None

    async def _greet(self, frames: FrameStream, process: trio.Process, index: int, config: Config) -> None:
        start = Start(
            version=trioproxy.__version__,
            index=index,
            config=lean(config),
            listeners=tuple(sock.fileno() for _, sock in self._sockets),
            loads=self._loads_descriptor,
            forwarders=self._forwarders,
        )
        try:
            await frames.send(encode(start))
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
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" if code else None
