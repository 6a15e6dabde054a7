"""A place for a forwarder: starts it, brings it up to date, watches it, and puts another in its place when it ends."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Literal

import trio

from trioproxy.control.channel import ControlClient
from trioproxy.control.messages import (
    Answer,
    Applied,
    Command,
    GetReport,
    Refused,
    Report,
    SetTable,
    StartAccepting,
    StartDrain,
)
from trioproxy.control.worker import ForwarderInfo
from trioproxy.errors import ControlError
from trioproxy.policy.backoff import Backoff
from trioproxy.process.events import EventLog
from trioproxy.process.launch import Launch, Running
from trioproxy.process.ledger import Ledger
from trioproxy.routing.table import Table

HELLO_SECONDS = 10.0
"""How long a forwarder may take until it takes commands."""
BEAT_SECONDS = 1.0
"""Between two heartbeats, which also bring its figures."""
SILENCE_SECONDS = 5.0
"""Without a sign of life, after which it is taken for hung."""
LEAVE_SECONDS = 5.0
"""How long it may go on after it has closed its control channel: a drained one writes the rest of its log."""
FIRST_PAUSE, LONGEST_PAUSE, STEADY_AFTER = 0.1, 30.0, 30.0
"""Seconds: see Backoff. One forwarder per slot and this pause are what makes a fork storm impossible."""

_LOG = logging.getLogger("trioproxy.process.slot")


class Slot:
    """One of the worker's forwarders, and those that come after it.

    `standing` tells the commands that bring any forwarder up to date, in order. `replaced` is False for one in the
    supervisor's own process: it can be neither killed nor started again. Until `gate` is set forwarders are brought up
    to date, and accept nothing. `clock` tells seconds since the epoch.

    `ended` is set when there is no forwarder and there will be none; `crashed` says whether that is a failure.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        standing: Callable[[], tuple[Command, ...]],
        ledger: Ledger,
        events: EventLog,
        index: int = 0,
        replaced: bool = True,
        gate: trio.Event | None = None,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._launch = launch
        self._standing = standing
        self._ledger = ledger
        self._events = events
        self.index = index
        self._replaced = replaced
        self._gate = gate
        self._clock = clock
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, STEADY_AFTER, rng)
        self._state: Literal["starting", "ready", "draining", "dead"] = "starting"
        self._running: Running | None = None
        self._client: ControlClient | None = None
        self._starting = trio.CancelScope()
        self._stopping = trio.Event()
        self._given_up = False
        self._failure: str | None = None
        self._started_at = clock()
        self._table_version = 0
        self._restarts = 0
        self.ended = trio.Event()
        self.crashed = False

    @property
    def live(self) -> bool:
        """Whether the forwarder is up to date and takes commands."""
        return self._client is not None

    @property
    def serves(self) -> bool:
        """Whether the forwarder carries traffic."""
        return self._state in ("ready", "draining")

    def info(self) -> ForwarderInfo:
        """How the forwarder fares."""
        pid = self._running.pid if self._running is not None else 0
        return ForwarderInfo(self.index, pid, self._state, self._table_version, self._started_at, self._restarts)

    async def run(self, *, task_status: trio.TaskStatus[str | None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a forwarder running until it has drained.

        Started when the first one carries traffic, with None, or when it has failed to, with the reason.
        """
        told = False

        def tell(failure: str | None) -> None:
            nonlocal told
            if not told:
                told = True
                task_status.started(failure)

        while True:
            begun = trio.current_time()
            self._state, self._started_at = "starting", self._clock()
            await self._run_one(tell)
            self._state, self._table_version = "dead", 0
            self._ledger.bury(self.index)
            if self._failure is None or self._given_up:
                break
            self._events.add("forwarder", index=self.index, state="dead", reason=self._failure)
            tell(self._failure)
            if not self._replaced or self._stopping.is_set():
                _LOG.error("a forwarder ended", extra={"forwarder": self.index, "reason": self._failure})
                self.crashed = True
                break
            pause = self._backoff.pause(trio.current_time() - begun)
            _LOG.error(
                "a forwarder ended and will be replaced",
                extra={"forwarder": self.index, "reason": self._failure, "pause": round(pause, 3)},
            )
            with trio.move_on_after(pause):
                await self._stopping.wait()
                break
            self._restarts += 1
        self.ended.set()
        tell(None)

    async def _run_one(self, tell: Callable[[str | None], None]) -> None:
        """Run one forwarder; `_failure` says afterwards why it ended, if that was no drain."""
        self._failure = None
        async with trio.open_nursery() as nursery:
            running = await self._start(nursery)
            if running is not None:
                self._running = running
                client = ControlClient(running.end)
                nursery.start_soon(self._carry, client, running)
                nursery.start_soon(self._attend, client, running, tell)
                if self._replaced:
                    nursery.start_soon(self._watch, running)
        self._running = self._client = None

    async def _start(self, nursery: trio.Nursery) -> Running | None:
        with trio.move_on_after(HELLO_SECONDS) as self._starting:
            if self._stopping.is_set():
                self._starting.cancel()
            try:
                return await nursery.start(self._forwarder, nursery.cancel_scope)
            except ControlError as error:
                self._failure = str(error)
        if self._starting.cancelled_caught:
            self._failure = f"did not say hello within {HELLO_SECONDS:g} s"
        return None

    async def _forwarder(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[Running]) -> None:
        ending = await self._launch(self.index, task_status=task_status)
        if self._failure is None:  # whoever killed it knows better
            self._failure = ending or (None if self._stopping.is_set() else "ended without being told to")
        scope.cancel()

    async def _carry(self, client: ControlClient, running: Running) -> None:
        """Carry commands and answers; when that comes to an end, so does the forwarder."""
        try:
            await client.run()
            with trio.move_on_after(LEAVE_SECONDS):
                await trio.sleep_forever()
            self._kill(running, "closed its control channel and did not end")
        except ControlError as error:
            self._kill(running, str(error))

    async def _attend(self, client: ControlClient, running: Running, tell: Callable[[str | None], None]) -> None:
        """Bring the forwarder up to date, let it accept, then ask for its figures, again and again."""
        try:
            await self._bring_up_to_date(client, running)
            # No checkpoint since it was: whatever changes from now on is sent to it as to the others.
            self._client = client
            if self._gate is not None and not self._gate.is_set():
                tell(None)
                await self._wait_at(self._gate, client)
            await client.ask(StartAccepting())
            if not self._stopping.is_set():
                self._state = "ready"
            self._events.add("forwarder", index=self.index, state="ready", pid=running.pid)
            tell(None)
            since = 0.0
            while self._replaced:
                asked_at = self._clock()
                report = await client.ask(GetReport(backends=False, active_since=since))
                if isinstance(report, Report):
                    self._ledger.note(self.index, report)
                    since = asked_at - BEAT_SECONDS
                await trio.sleep(BEAT_SECONDS)
        except ControlError as error:
            # Why it is gone, `_carry` or the forwarder's end will tell.
            _LOG.debug("a forwarder answers no more", extra={"forwarder": self.index, "error": str(error)})

    async def _wait_at(self, gate: trio.Event, client: ControlClient) -> None:
        while not gate.is_set():
            with trio.move_on_after(BEAT_SECONDS):
                await gate.wait()
            await client.ask(GetReport(backends=False))  # a sign of life

    async def _bring_up_to_date(self, client: ControlClient, running: Running) -> None:
        known: tuple[Command, ...] = (running.settings,)
        while (standing := self._standing()) != known:
            for command in standing:
                if command not in known:
                    self._note(command, await client.ask(command))
            known = standing

    async def _watch(self, running: Running) -> None:
        """Kill a forwarder that gives no sign of life any more."""
        pulse = running.end.pulse
        while (due := pulse.at + SILENCE_SECONDS) > trio.current_time():
            await trio.sleep_until(due)
            if trio.current_time() > due + BEAT_SECONDS:
                pulse.beat()  # we overslept: it may have answered, and we have not looked
        self._kill(running, f"gave no sign of life for {SILENCE_SECONDS:g} s")

    def _kill(self, running: Running, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        running.kill()

    # --- what others ask of it ---------------------------------------------------------------------------

    async def ask(self, command: Command) -> Answer:
        """Send a command and wait for the answer. Raises ControlError when no forwarder takes commands."""
        if self._client is None:
            raise ControlError("the forwarder is not there")
        return await self._client.ask(command)

    async def set_table(self, table: Table) -> bool | None:
        """Hand over a table; whether it, or a newer one, is in force now. None: the forwarder is gone."""
        command = SetTable(table)
        try:
            answer = await self.ask(command)
        except ControlError:
            return None
        self._note(command, answer)
        return isinstance(answer, Applied) and answer.version >= table.version

    def _note(self, command: Command, answer: Answer) -> None:
        if isinstance(answer, Applied):
            self._table_version = answer.version
        elif isinstance(answer, Refused):
            _LOG.error(
                "a forwarder refused a command",
                extra={"forwarder": self.index, "command": type(command).__name__, "problems": list(answer.problems)},
            )

    async def drain(self, grace: float, patience: float = 0.0) -> None:
        """Tell the forwarder to drain (see StartDrain), and start no other. One that is starting is ended."""
        await trio.lowlevel.checkpoint()
        self._stopping.set()
        if self._client is None:
            self.kill()
            return
        self._state = "draining"
        try:
            await self._client.ask(StartDrain(grace, patience))
        except ControlError as error:
            # It has ended. If not in good order, that is told as every end is.
            _LOG.debug("a forwarder cannot be told to drain", extra={"forwarder": self.index, "error": str(error)})

    def kill(self) -> None:
        """End the forwarder and its connections now, and start no other."""
        self._stopping.set()
        self._given_up = True
        self._starting.cancel()
        if self._running is not None:
            self._running.kill()
