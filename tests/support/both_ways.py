"""Plays the same bytes the short way and the long way, and tells all that anybody could see of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest
import trio
from path_scene import in_use
from trio.testing import wait_all_tasks_blocked

from trioproxy.config.schema import Config
from trioproxy.control.messages import CloseConnection, SetConfig, StartDrain
from trioproxy.proxy.express import Express
from trioproxy.testing import Harness, MemoryBackend, Wire, open_proxy
from trioproxy.testing.pipe import PipeEnd

CONFIG: dict[str, Any] = {
    "timeouts": {"head": "20s", "keep_alive": "40s", "stall": "50s", "response_head": "30s", "connect": "3s"},
    "limits": {"head_bytes": "2KiB", "header_count": 20, "body_bytes": "1KiB"},
}
GRACE = 5.0  # seconds of a drain
AFTERWARDS = 200.0  # seconds in which everything has to end: longer than any timeout
TIMES = ("id", "began", "started_at", "total_seconds", "wait_seconds", "upstream_head_seconds")
"""Fields of a record that differ between any two plays."""
_ID = re.compile(rb"\b[0-9a-f]{12}-[0-9a-f]+\b")


@dataclass
class Stage:
    """What an act may use. `wire` is the connection of the one who acts."""

    harness: Harness
    client: Wire
    wire: Wire
    backends: list[MemoryBackend]

    @property
    def pipe(self) -> PipeEnd:
        assert isinstance(self.wire.stream, PipeEnd)
        return self.wire.stream


Deed = Callable[[Stage], None]
Act = bytes | float | Deed
"""Bytes to send, seconds to wait, or something to do."""


def end(stage: Stage) -> None:
    stage.pipe.end()


def reset(stage: Stage) -> None:
    stage.pipe.reset()


def hang_up(stage: Stage) -> None:
    stage.pipe.end()
    stage.pipe._close()


def operator(stage: Stage) -> None:
    for connection in list(stage.harness.proxy.live):
        stage.harness.proxy.execute(CloseConnection(connection.id))


def drain(stage: Stage) -> None:
    stage.harness.proxy.execute(StartDrain(GRACE))


def no_routes(stage: Stage) -> None:
    stage.harness.set_routes([])


def other_config(stage: Stage) -> None:
    timeouts = {**CONFIG["timeouts"], "keep_alive": "2s", "response_head": "2s", "stall": "2s"}
    stage.harness.proxy.execute(SetConfig(Config.model_validate({**CONFIG, "timeouts": timeouts})))


def refusing(stage: Stage) -> None:
    for backend in stage.backends:
        backend.accepting = False


def by_client(deed: Deed) -> Deed:
    """The client does it, whoever's turn it is."""

    def act(stage: Stage) -> None:
        deed(replace(stage, wire=stage.client))

    return act


@dataclass(frozen=True)
class Play:
    """`client` acts in turn, and each request that reaches a backend is answered with the next of `answers`."""

    client: Sequence[Act]
    answers: Sequence[Sequence[Act]]
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    backends: int = 1
    capacity: int = 256 * 1024  # bytes that the client's connection holds each way
    reads_after: float = 0.0  # seconds, before which the client reads nothing


@dataclass
class Seen:
    """What the client and the backends got, what was noted, and what is left."""

    client: bytes = b""
    how: str = "open"  # the client's connection at the end
    asked: list[bytes] = field(default_factory=list[bytes])
    records: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    backends: list[Any] = field(default_factory=list[Any])
    left: dict[str, Any] = field(default_factory=dict[str, Any])


async def assert_same(play: Play) -> int:
    """Play both ways: everybody has to see the same, and nothing may be left. How many went the short way."""
    taken = 0
    begin = Express._begin

    def counting(express: Express, *args: Any) -> Any:
        nonlocal taken
        begun = begin(express, *args)
        taken += begun is not None
        return begun

    def declining(*_: Any) -> None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Express, "_begin", counting)
        short = await see(play)
        patch.setattr(Express, "_begin", declining)
        long = await see(play)
    assert short.left == {}
    assert short == long
    return taken


async def see(play: Play) -> Seen:
    """Play it once."""
    seen = Seen()
    with trio.fail_after(10_000):
        async with open_proxy(config={**CONFIG, **play.config}) as harness:
            backends = [harness.network.listen(f"kernel{number}", 8888) for number in range(play.backends)]
            harness.set_routes([backends[0].route("s", "web", backends=[one.as_backend() for one in backends])])
            client = await harness.connect(capacity=play.capacity)
            stage = Stage(harness, client, client, backends)
            async with trio.open_nursery() as nursery:
                answers = iter(play.answers)
                for backend in backends:
                    nursery.start_soon(_listen, backend, stage, answers, seen)
                nursery.start_soon(_read, client, play.reads_after, seen)
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await _act(play.client, stage)
                await trio.sleep(AFTERWARDS)
                await wait_all_tasks_blocked()
                seen.left = {name: count for name, count in in_use(harness).items() if count}
                seen.left |= harness.proxy.pool._rooms
                nursery.cancel_scope.cancel()
            _note(harness, seen)
    return seen


async def _act(acts: Sequence[Act], stage: Stage) -> None:
    for one in acts:
        if isinstance(one, float):
            await trio.sleep(one)
            continue
        if isinstance(one, bytes):
            await stage.wire.send(one)
        else:
            one(stage)
        await wait_all_tasks_blocked()


async def _listen(backend: MemoryBackend, stage: Stage, answers: Iterator[Sequence[Act]], seen: Seen) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_serve, await backend.accept(), stage, answers, seen)


async def _serve(wire: Wire, stage: Stage, answers: Iterator[Sequence[Act]], seen: Seen) -> None:
    acting = replace(stage, wire=wire)
    with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
        # Once it has ended its side, what still comes must not be taken for a request that it answers.
        while not (acting.pipe.closed or acting.pipe._out.ended):
            request = await wire.read_head()
            if length := re.search(rb"\r\nContent-Length: (\d+)", request):
                request += await wire.read_exactly(int(length[1]))
            seen.asked.append(_ID.sub(b"ID", request))
            await _act(next(answers, ()), acting)


async def _read(client: Wire, after: float, seen: Seen) -> None:
    await trio.sleep(after)
    got = b""
    try:
        while data := await client.receive():
            got += data
        seen.how = "ended"
    except trio.BrokenResourceError:
        seen.how = "reset"
    except trio.ClosedResourceError:
        seen.how = "closed by the client"
    finally:
        seen.client = _ID.sub(b"ID", got)


def _note(harness: Harness, seen: Seen) -> None:
    report = harness.report()
    seen.records = [
        {key: value for key, value in asdict(record).items() if key not in TIMES} for record in harness.records
    ]
    seen.metrics = {
        name: (
            one.requests,
            one.bytes_in,
            one.bytes_out,
            one.retries,
            *map(_count, (one.seconds, one.upstream_head_seconds)),
        )
        for name, one in report.metrics.services.items()
    }
    seen.metrics |= report.metrics.errors
    seen.backends = [
        (one.backend_id, one.in_flight, one.requests, one.failures, one.last_error) for one in report.backends
    ]


def _count(histogram: Any) -> int:
    return sum(histogram.counts)
