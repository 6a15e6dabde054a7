"""All the forwarders of a worker, as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from trioproxy.control.messages import Answer, Command, GetReport, Report
from trioproxy.control.worker import ForwarderInfo
from trioproxy.errors import ControlError
from trioproxy.process.fold import fold_backends
from trioproxy.process.ledger import Ledger
from trioproxy.process.slot import Slot
from trioproxy.routing.table import Table

ANSWER_SECONDS = 5.0
"""How long a forwarder may take to answer a question."""
REPORT_SECONDS = 2.0
"""How long it may take to tell its figures; those it told last are good enough."""
CUT_SECONDS = 2.0
"""How long forwarders have for cutting their connections and writing the rest of their log."""

_LOG = logging.getLogger("trioproxy.process.fleet")


class Fleet:
    """Asks all forwarders and folds their answers."""

    def __init__(self, slots: Sequence[Slot], ledger: Ledger) -> None:
        self._slots = slots
        self._ledger = ledger
        self._ended = trio.Event()
        self.failure: str | None = None
        """Why no forwarder came up at the start, as a sentence without its subject."""

    @property
    def serves(self) -> bool:
        """Whether at least one forwarder carries traffic."""
        return any(slot.serves for slot in self._slots)

    @property
    def crashed(self) -> bool:
        """Whether a forwarder has failed in a way that no other can make good."""
        return any(slot.crashed for slot in self._slots)

    def infos(self) -> list[ForwarderInfo]:
        """The forwarders, by index."""
        return [slot.info() for slot in self._slots]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all forwarders running until they have drained.

        Started when each of them carries traffic or has failed to once; look at `failure` then.
        """
        failures: list[str | None] = []

        async def start(slot: Slot, nursery: trio.Nursery) -> None:
            failures.append(await nursery.start(slot.run))

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for slot in self._slots:
                    starting.start_soon(start, slot, nursery)
            self.failure = None if None in failures else failures[0]
            task_status.started()
        self._ended.set()

    async def wait_ended(self) -> None:
        """Wait until every forwarder has ended for good."""
        await self._ended.wait()

    async def set_table(self, table: Table) -> bool:
        """Hand a table to every live forwarder; whether all of them serve it, or a newer one, now."""
        applied: list[bool] = []

        async def send(slot: Slot) -> None:
            done = await slot.set_table(table)
            if done is not None:
                applied.append(done)

        async with trio.open_nursery() as nursery:
            for slot in self._live():
                nursery.start_soon(send, slot)
        return bool(applied) and all(applied)

    async def ask(self, command: Command) -> list[Answer]:
        """The answers of those forwarders that answer within `ANSWER_SECONDS`, in no order."""
        return [answer for _, answer in await self._ask(command, ANSWER_SECONDS)]

    async def report(self, *, connections: bool = False) -> Report:
        """The figures of all forwarders, folded; of one that does not answer, what it has told last."""
        reports: list[Report] = []
        for slot, answer in await self._ask(GetReport(connections=connections), REPORT_SECONDS):
            if isinstance(answer, Report):
                self._ledger.note(slot.index, answer)
                reports.append(answer)
        return Report(
            table_version=min((report.table_version for report in reports), default=0),
            draining=any(report.draining for report in reports),
            metrics=self._ledger.metrics(),
            backends=fold_backends(report.backends for report in reports),
            activity=self._ledger.activity(),
            connections=tuple(one for report in reports for one in report.connections),
        )

    async def drain(self, grace: float, patience: float = 0.0) -> None:
        """Tell every forwarder to drain (see StartDrain); returns when they know, or `ANSWER_SECONDS` are over."""
        with trio.move_on_after(ANSWER_SECONDS):
            async with trio.open_nursery() as nursery:
                for slot in self._slots:
                    nursery.start_soon(slot.drain, grace, patience)

    async def cut(self) -> None:
        """End every forwarder and its connections: with `CUT_SECONDS` for doing it in good order, and then at once."""
        with trio.move_on_after(CUT_SECONDS):
            await self.drain(0.0)
            await self.wait_ended()
        for slot in self._slots:
            if not slot.ended.is_set():
                _LOG.error("a forwarder did not end in time", extra={"forwarder": slot.index})
                slot.kill()

    def _live(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.live]

    async def _ask(self, command: Command, seconds: float) -> list[tuple[Slot, Answer]]:
        answers: list[tuple[Slot, Answer]] = []

        async def ask(slot: Slot) -> None:
            try:
                answers.append((slot, await slot.ask(command)))
            except ControlError as error:
                _LOG.debug("a forwarder did not answer", extra={"forwarder": slot.index, "error": str(error)})

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for slot in self._live():
                    nursery.start_soon(ask, slot)
        return answers
