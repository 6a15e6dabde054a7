"""Requests at a steady rate, whatever becomes of them: what was asked, by whom it was answered, and what went wrong.

The rate does not wait for answers, as that of many people does not, so a service that hangs meets no fewer requests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import counting_backend
import trio
from forwarders import dial
from processes import eventually
from worker import Worker

from trioproxy.testing import Wire
from trioproxy.testing.wire import Response

AT_ONCE = 150
"""Requests on their way. More than that wait for their turn, so that a bad end is one of the test only."""
REUSED = 25
"""Requests of a connection, so that each forwarder gets its share of new ones."""
PATIENCE = 20.0
POST_EVERY = 4
"""Every fourth request is a POST."""
BODY = b"x" * 700


@dataclass
class Person:
    """Who keeps a cookie, and asks for one thing at a time. `pins` are all the cookies so far."""

    cookie: bytes = b""
    pins: list[bytes] = field(default_factory=list[bytes])
    busy: bool = False


@dataclass
class Shot:
    """One request. Times on trio's clock; `error` is empty when it was answered as it should be."""

    id: str
    method: str
    began: float
    person: Person | None = None
    ended: float = 0.0
    status: int = 0
    port: int = 0  # of the backend that has answered
    code: str = ""  # of an answer of the worker itself
    error: str = "is not over"


class OpenLoad:
    """The requests of a block, in the order in which they ended."""

    def __init__(self, worker: Worker, path: str, name: str, people: int) -> None:
        self._worker = worker
        self._path = path
        self._name = name
        self._idle: list[tuple[Wire, int]] = []
        self._room = trio.Semaphore(AT_ONCE)
        self.people = [Person() for _ in range(people)]
        self.shots: list[Shot] = []
        self.stopped = False

    async def run(self, rate: float) -> None:
        """Ask until it is stopped, and wait for the answers."""
        due = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in count():
                await trio.sleep_until(due)
                due = max(due + 1 / rate, trio.current_time() - 0.1)  # a machine that stood still owes no flood
                if self.stopped:
                    break
                person = next((one for one in self.people if not one.busy), None)
                if self.people and person is None:
                    continue
                await self._room.acquire()
                method = "GET" if number % POST_EVERY else "POST"
                shot = Shot(f"{self._name}{number}", method, trio.current_time(), person)
                if person is not None:
                    person.busy = True
                    self.people.append(self.people.pop(self.people.index(person)))
                nursery.start_soon(self._shoot, shot)
        for wire, _ in self._idle:
            await trio.aclose_forcefully(wire.stream)

    async def _shoot(self, shot: Shot) -> None:
        wire, used = self._idle.pop() if self._idle else (None, 0)
        ends = True
        try:
            with trio.fail_after(PATIENCE):
                wire = wire or await dial(self._worker)
                await wire.send(self._request(shot))
                answer = await wire.read_response()
            self._read(shot, answer)
            ends = used + 1 == REUSED or b"close" in answer.values("connection")
        except (EOFError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            shot.error = repr(error)
        shot.ended = trio.current_time()
        self.shots.append(shot)
        if shot.person is not None:
            shot.person.busy = False
        self._room.release()
        if wire is not None and ends:
            await trio.aclose_forcefully(wire.stream)
        elif wire is not None:
            self._idle.append((wire, used + 1))

    def _request(self, shot: Shot) -> bytes:
        cookie = shot.person.cookie if shot.person is not None else b""
        head = f"{shot.method} {self._path}{shot.id} HTTP/1.1\r\nHost: worker\r\n".encode() + cookie
        if shot.method == "GET":
            return head + b"\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY

    @staticmethod
    def _read(shot: Shot, answer: Response) -> None:
        shot.status = answer.status
        if b"application/problem+json" in answer.values("content-type"):
            shot.code = json.loads(answer.body)["code"]
        if answer.status == 200:
            shot.port = int(answer.body.partition(b" ")[0])
            whole = counting_backend.LINE % (shot.port, shot.id.encode()) * counting_backend.REPEATED
            shot.error = "" if answer.body == whole else f"half an answer, {len(answer.body)} bytes"
        else:
            shot.error = f"{answer.status} {shot.code}"
        if shot.person is not None:
            for line in answer.values("set-cookie"):
                shot.person.cookie = b"Cookie: " + line.partition(b";")[0] + b"\r\n"
                shot.person.pins.append(line)

    # --- what is made of it ----------------------------------------------------------------------------

    def failures(self, method: str = "") -> list[Shot]:
        """What went wrong so far, with this method or any."""
        return [shot for shot in self.shots if shot.error and method in ("", shot.method)]

    async def more(self, wanted: int) -> list[Shot]:
        """Wait for the end of so many more requests, well or not; they, and who has ended with them."""
        start = len(self.shots)
        await eventually(lambda: len(self.shots) >= start + wanted, seconds=60)
        return self.shots[start:]

    async def until(self, wanted: Callable[[list[Shot]], bool], *, last: int = 1) -> None:
        """Wait until it holds for so many requests that have ended last, all of them later than now."""
        start = len(self.shots)
        await eventually(
            lambda: len(self.shots) >= start + last and wanted(self.shots[-last:]),
            seconds=60,
        )


def share(shots: list[Shot], port: int) -> float:
    """The part of these that a backend has answered."""
    return sum(shot.port == port for shot in shots) / len(shots)


@asynccontextmanager
async def open_load(
    worker: Worker, path: str, *, name: str = "r", rate: float = 200, people: int = 0
) -> AsyncGenerator[OpenLoad]:
    """So many requests per second for the time of the block, a quarter of them POST; whose, if there are `people`."""
    load = OpenLoad(worker, path, name, people)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, rate)
        try:
            yield load
        except Exception as error:  # noqa: BLE001 - raised below, outside the nursery
            failure = error
            nursery.cancel_scope.cancel()
        load.stopped = True
    if failure is not None:
        raise failure
