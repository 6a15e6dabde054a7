"""An upgrade: a new generation of the whole program takes over the sockets, and this one drains."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from trioproxy.control.descriptors import DescriptorFrames
from trioproxy.control.worker import UpgradeInfo
from trioproxy.errors import ControlError
from trioproxy.process.custody import Custody
from trioproxy.process.events import EventLog
from trioproxy.process.inheritance import dump, parse
from trioproxy.process.lifecycle import Lifecycle
from trioproxy.process.notify import Notifier
from trioproxy.process.spawn import how_it_ended
from trioproxy.routing.catalog import Catalog

PREPARE_SECONDS = 60.0
"""How long a new generation may take to read its configuration and to have its forwarders ready."""
LET_GO_SECONDS = 20.0
"""How long calls of the management API may keep this one from letting go."""
READY_SECONDS = 30.0
"""How long the new generation may take, from when it is let, to serve."""
END_SECONDS = 5.0
"""How long one that failed may take to end by itself, or when killed."""

Bequeath = Callable[[Mapping[str, str], int], tuple[dict[str, str], list[int]]]
"""The environment of a successor, and the descriptors it inherits; told this one's, and its end of the channel."""

_LOG = logging.getLogger("trioproxy.process.upgrade")


class Upgrade:
    """Carries out upgrades, one at a time. `forbidden` says why this process can have none, if that is so.

    `left` tells what the next generation has to know besides, as JSON. `quiet` is entered for the time of it: the
    configuration stays what it is.
    """

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        custody: Custody,
        catalog: Catalog,
        left: Callable[[], dict[str, Any]],
        events: EventLog,
        notifier: Notifier,
        bequeath: Bequeath,
        quiet: Callable[[], AbstractAsyncContextManager[None]],
        status: Callable[[], str],
        forbidden: str | None,
    ) -> None:
        self._lifecycle = lifecycle
        self._custody = custody
        self._catalog = catalog
        self._left = left
        self._events = events
        self._notifier = notifier
        self._bequeath = bequeath
        self._quiet = quiet
        self._status = status
        self._forbidden = forbidden
        self.info = UpgradeInfo("none")

    def request(self) -> str | None:
        """Begin one, soon; or the reason why not."""
        refusal = self._refusal()
        if refusal is None:
            self._lifecycle.request_upgrade()
            self.info = UpgradeInfo("running")
        return refusal

    def _refusal(self) -> str | None:
        if self._lifecycle.draining.is_set():
            return "this worker is shutting down"
        if self.info.state == "running":
            return "an upgrade is running already"
        return self._forbidden

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out what was asked for, until one has succeeded."""
        if self.info.state == "running":  # we are started again
            self.info = UpgradeInfo("failed", "it met a bug; the log says more")
        task_status.started()
        while not self._lifecycle.handed_over:
            await self._lifecycle.upgrade_wanted.wait()
            if self._forbidden is not None:
                _LOG.error("no upgrade is possible", extra={"reason": self._forbidden})
            elif not self._lifecycle.draining.is_set():
                self.info = UpgradeInfo("running")
                await self._upgrade()
            self._lifecycle.upgrade_wanted = trio.Event()  # also one that was asked for while it ran

    async def _upgrade(self) -> None:
        _LOG.info("upgrading: starting a new generation")
        self._events.add("upgrade", state="started")
        self._notifier.reloading()
        failure: str | None = "this worker is shutting down"
        async with self._quiet(), trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_draining, nursery.cancel_scope)
            failure = await self._start_next()
            nursery.cancel_scope.cancel()
        if failure is None:
            return
        _LOG.error("the upgrade failed, and this generation goes on", extra={"reason": failure})
        self._events.add("upgrade", state="failed", reason=failure)
        self.info = UpgradeInfo("failed", failure)
        if not self._lifecycle.draining.is_set():
            self._notifier.ready(self._status())

    async def _cancel_when_draining(self, scope: trio.CancelScope) -> None:
        await self._lifecycle.draining.wait()
        if not self._lifecycle.handed_over:
            scope.cancel()

    async def _start_next(self) -> str | None:
        """Start a new generation and hand over to it; why it failed, or None."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        frames = DescriptorFrames(ours)
        process: trio.Process | None = None
        handed_over = False
        try:
            with theirs:
                environ, descriptors = self._bequeath(os.environ, theirs.fileno())
                command = [sys.executable, *sys.orig_argv[1:]]
                process = await trio.lowlevel.open_process(command, env=environ, pass_fds=descriptors)
            failure = await self._hand_over(frames, process)
            handed_over = failure is None
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        else:
            return failure
        finally:
            with trio.move_on_after(2 * END_SECONDS, shield=True):
                await trio.aclose_forcefully(frames)
                if process is not None and not handed_over:
                    with trio.move_on_after(END_SECONDS):
                        await process.wait()
                    process.kill()
                    await process.wait()

    async def _hand_over(self, frames: DescriptorFrames, process: trio.Process) -> str | None:
        failure = await self._await_state("prepared", frames, process, PREPARE_SECONDS)
        if failure is not None:
            process.kill()
            return failure
        with trio.move_on_after(LET_GO_SECONDS) as limit:
            await self._custody.let_go()
        if limit.cancelled_caught:
            failure = f"calls of the management API did not end within {LET_GO_SECONDS:g} s"
        else:
            failure = await self._tell_left(frames)
            failure = failure or await self._await_state("ready", frames, process, READY_SECONDS)
        if failure is None:
            _LOG.info("a new generation serves: this one drains", extra={"successor": process.pid})
            self._notifier.hand_over(process.pid, self._status())
            self._lifecycle.hand_over()
            return None
        process.kill()
        problem = await self._custody.take_back()
        if problem is not None:
            _LOG.error("the routes set over the API cannot be read again", extra={"error": problem})
        return failure

    async def _tell_left(self, frames: DescriptorFrames) -> str | None:
        try:
            await frames.send(dump({"state": "yours", "version": self._catalog.version, **self._left()}))
        except (trio.BrokenResourceError, ControlError):
            return "ended before it could take over"
        return None

    async def _await_state(
        self, state: str, frames: DescriptorFrames, process: trio.Process, seconds: float
    ) -> str | None:
        """Wait until the new generation says so; why it does not, or None."""
        with trio.move_on_after(seconds):
            try:
                frame = await frames.receive()
            except ControlError as error:
                return str(error)
            if frame is None:
                with trio.move_on_after(END_SECONDS):
                    await process.wait()
                return how_it_ended(process.returncode or 0) or "ended before it served"
            message = parse(frame)
            if message.get("state") == state:
                return None
            return str(message.get("problem", "says what makes no sense"))
        return f"did not say within {seconds:g} s that it was {state}"
