"""What a large table costs: the look-up, a change, a start."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import trio

from bench import contenders as by
from bench.bench import ANSWER, Bench
from bench.errors import BenchError
from bench.many import MANY, SERVICE, session
from bench.peer import Peer, Place, Proxy, free_port, start
from bench.process import run_to_end
from bench.result import Metric, Result, Sample, Target

NONE = "no stored routes"
FEW = "10 routes"
FULL = f"{MANY:,} routes".replace(",", " ")
ANY = f"{FULL}, any asked for"
SAME = f"{FULL}, 10 asked for"
LOOKUP, CHANGE, START, MEMORY = "nanoseconds", "milliseconds", "seconds", "mib"
LOOKUP_ROUNDS = 5
CONNECTIONS = 4  # enough for both forwarders to have some
GIVE_UP_SECONDS = 5.0
_PROCESSES = "processes = 2, both cores shared with everything else"


async def lookup(bench: Bench) -> Result:
    """Which route a request goes to, without the rest of the request.

    Routes that are seldom asked for are not in the processor's caches: what that costs is the difference of the two.
    """
    bench.progress("tables")
    command = bench.module("bench.many", "lookup", "--rounds", str(LOOKUP_ROUNDS))
    found: dict[str, list[float]] = json.loads(await run_to_end(command, cores=bench.cores.proxy))
    samples = {
        name: [{LOOKUP: one * 1e9} for one in found[key]] for name, key in ((FEW, "few"), (SAME, "same"), (ANY, "any"))
    }
    return Result(
        "route-lookup",
        "look-up of a request's route, inside one process",
        (ANY, SAME),
        (Metric(LOOKUP, "ns"),),
        samples,
        (Target(ANY, FEW, LOOKUP, 1.2, 1.0, below=True),),
    )


async def change(bench: Bench) -> Result:
    """A PUT of a new route, until a request to it is answered by its backend."""
    samples: dict[str, list[Sample]] = {}
    shared = Bench(bench.plan, bench.cores.shared(), bench.folder)
    database, port = await _stored(shared)
    async with shared.answering_backend(port=port) as backend, AsyncExitStack() as stack:
        workers = {FULL: await stack.enter_async_context(_worker(shared, FULL, backend, database))}
        if bench.plan.full:
            workers[NONE] = await stack.enter_async_context(_worker(shared, NONE, backend, None))
        for number in range(bench.plan.rounds):
            for name, proxy in workers.items():
                bench.progress(f"round {number + 1} of {bench.plan.rounds}: {name}")
                first = MANY + number * bench.plan.changes
                numbers = range(first, first + bench.plan.changes)
                found = await trio.to_thread.run_sync(_changes, proxy, backend, numbers)
                samples.setdefault(name, []).extend(found)
    return Result(
        "route-change",
        "one route set over the management API, from PUT until it serves",
        (FULL,),
        (Metric(CHANGE, "ms"),),
        samples,
        (Target(FULL, None, CHANGE, 20, 3, below=True),),
        notes=[_PROCESSES, "each time one request through the new route is counted in, and its answer is checked"],
    )


async def cold_start(bench: Bench) -> Result:
    """From the command to the line that says it is ready; then a stored route must serve."""
    samples: dict[str, list[Sample]] = {NONE: [], FULL: []}
    shared = Bench(bench.plan, bench.cores.shared(), bench.folder)
    database, port = await _stored(shared)
    async with shared.answering_backend(port=port) as backend:
        for number in range(bench.plan.starts):
            folder = bench.folder / f"start-{number}"
            folder.mkdir()
            once = Bench(shared.plan, shared.cores, folder)
            for name, stored in ((NONE, None), (FULL, database)):
                bench.progress(f"start {number + 1} of {bench.plan.starts}: {name}")
                async with _worker(once, name, backend, stored) as proxy:
                    samples[name].append({START: proxy.process.start_seconds, MEMORY: proxy.process.memory() / 2**20})
                    if stored:
                        await trio.to_thread.run_sync(_serves, proxy, session(MANY - 1))
    return Result(
        "cold-start",
        "start of a worker with stored routes, until it is ready",
        (),
        (Metric(START, "s", compared=False), Metric(MEMORY, "MiB, all processes", compared=False)),
        samples,
        (Target(NONE, None, START, 1, below=True), Target(FULL, None, START, 3, below=True)),
        notes=[_PROCESSES],
    )


async def _stored(bench: Bench) -> tuple[Path, int]:
    """A database of so many routes, the same one for all rows, and the port of their backend."""
    folder = bench.folder.parent / f"stored-{MANY}"
    if not folder.exists():
        bench.progress(f"storing {FULL}")
        command = bench.module("bench.many", "store", "--folder", str(folder), "--backend", str(port := free_port()))
        await run_to_end(command, cores=bench.cores.proxy)
        (folder / "port").write_text(str(port), encoding="ascii")
    return folder / "routes.sqlite3", int((folder / "port").read_text(encoding="ascii"))


@asynccontextmanager
async def _worker(bench: Bench, name: str, backend: int, database: Path | None) -> AsyncGenerator[Proxy]:
    """A worker with this name in messages, and a copy of this database."""

    def command(place: Place) -> list[str]:
        if database:
            (place.folder / "state").mkdir(mode=0o700)
            shutil.copy(database, place.folder / "state")
        return list(by.TRIOPROXY_TWO.command(place))

    peer: Peer = replace(by.TRIOPROXY_TWO, name=name, command=command)
    async with start(peer, backend=backend, folder=bench.folder, cores=bench.cores.proxy) as proxy:
        yield proxy


def _changes(proxy: Proxy, backend: int, numbers: range) -> list[Sample]:
    """So many new routes, one after the other. Raises BenchError when one does not serve."""
    token = (proxy.place.folder / "state/management.token").read_text(encoding="ascii").strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"backends": [{"host": "127.0.0.1", "port": backend}]})
    samples: list[Sample] = []
    with ExitStack() as stack:
        management = stack.enter_context(closing(_connect(proxy.place.management)))
        clients = [stack.enter_context(closing(_connect(proxy.port))) for _ in range(CONNECTIONS)]
        for number in numbers:
            began = time.perf_counter()
            status, text = _ask(management, "PUT", f"/v1/routes/{session(number)}/{SERVICE}", body, headers)
            if status >= 300:
                raise BenchError(f"a route was refused with {status}: {text!r}")
            client = clients[number % CONNECTIONS]
            while not _answered(client, session(number)):
                if time.perf_counter() > began + GIVE_UP_SECONDS:
                    raise BenchError("a route that was set does not serve")
            samples.append({CHANGE: (time.perf_counter() - began) * 1000})
            if not all(_answered(other, session(number)) for other in clients):
                raise BenchError("a route that was set serves on one connection and not on another")
    return samples


def _serves(proxy: Proxy, name: str) -> None:
    with closing(_connect(proxy.port)) as client:
        if not _answered(client, name):
            raise BenchError("a stored route does not serve")


def _answered(client: http.client.HTTPConnection, name: str) -> bool:
    """Whether the backend answers behind this route."""
    return _ask(client, "GET", f"/{name}/{SERVICE}/", None, {}) == (200, ANSWER.encode())


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_SECONDS)


def _ask(
    connection: http.client.HTTPConnection, method: str, target: str, body: str | None, headers: dict[str, str]
) -> tuple[int, bytes]:
    connection.request(method, target, body, headers)
    response = connection.getresponse()
    return response.status, response.read()
