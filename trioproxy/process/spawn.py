"""Starting forwarders as processes of their own."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

import trio

import trioproxy
from trioproxy.control.codec import decode
from trioproxy.control.messages import Hello, Refused, SetConfig, Start
from trioproxy.control.tables import TableEncoder
from trioproxy.control.wire import Copy, lean, send_start, supervisor_end
from trioproxy.errors import ControlError
from trioproxy.net.loads import Loads
from trioproxy.process.launch import Running
from trioproxy.process.reserve import GONE_SECONDS, Recruit, Reserve

_LOG = logging.getLogger("trioproxy.process.spawn")


class ProcessLaunch:
    """Runs one process of the reserve per call.

    `settings` tells what is in force, `copy` gives it the listening sockets of that. `loads_descriptor`, which the
    reserve passes on, was made by `Loads.create` for so many `forwarders`; `loads` is a view of it.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], SetConfig],
        reserve: Reserve,
        copy: Copy,
        loads: Loads,
        loads_descriptor: int,
        forwarders: int,
    ) -> None:
        self._settings = settings
        self._reserve = reserve
        self._copy = copy
        self._loads = loads
        self._loads_descriptor = loads_descriptor
        self._forwarders = forwarders
        self._tables = TableEncoder()

    async def __call__(self, index: int, *, task_status: trio.TaskStatus[Running]) -> str | None:
        """See Launch."""
        recruit = await self._reserve.take()
        process = recruit.process
        try:
            settings = self._settings()
            await self._greet(recruit, index, settings)
            end = supervisor_end(recruit.frames, self._tables, self._copy, recruit.known)
            task_status.started(Running(process.pid, end, settings, process.kill))
            return how_it_ended(await process.wait())
        finally:
            with trio.move_on_after(GONE_SECONDS, shield=True) as limit:
                await recruit.dismiss()
            if limit.cancelled_caught:
                _LOG.error("a killed forwarder does not go away", extra={"forwarder": index})
            self._loads.clear(index)

    async def _greet(self, recruit: Recruit, index: int, settings: SetConfig) -> None:
        start = Start(
            version=trioproxy.__version__,
            index=index,
            config=lean(settings.config),
            listeners=settings.listeners,
            loads=self._loads_descriptor,
            forwarders=self._forwarders,
        )
        try:
            await send_start(recruit.frames, start, self._copy)
            frame = await recruit.frames.receive()
        except trio.BrokenResourceError:
            frame = None
        if frame is None:
            raise ControlError(how_it_ended(await recruit.process.wait()) or "ended before it took commands")
        answer = decode(frame, object)
        if isinstance(answer, Refused):
            raise ControlError(f"cannot work: {'; '.join(answer.problems)}")
        if not isinstance(answer, Hello) or answer.version != trioproxy.__version__:
            raise ControlError("is of another version: the program was exchanged, and this worker needs a restart")


def how_it_ended(code: int) -> str | None:
    """An exit code, as a sentence without its subject; None for 0."""
    if code < 0:
        number = -code  # real-time signals have no name
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return f"was killed by {name}"
    return f"ended with exit code {code}" if code else None
