"""Many routes: in a process of its own, so that the benchmark itself stays small.

    python -m bench.many lookup --rounds N
    python -m bench.many store --folder STATE_DIRECTORY --backend PORT

`lookup` prints seconds per look-up as JSON, a list of rounds for each table. `store` fills a state directory.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from trioproxy.http1.head import RequestHead
from trioproxy.http1.parse import parse_request
from trioproxy.providers.store import RouteStore
from trioproxy.proxy.router import Router
from trioproxy.routing.route import Route
from trioproxy.routing.table import Table

FEW = 10
MANY = 100_000
LOOKUPS = 20_000
SEED = 1
SERVICE = "jupyter"


def session(number: int) -> str:
    """Name of one of them."""
    return f"session-{number:06d}"


def routes(count: int, backend: int) -> Iterator[Route]:
    """Routes as a coordinator would set them, all to one backend."""
    for number in range(count):
        backends = [{"host": "127.0.0.1", "port": backend}]
        yield Route.model_validate({"session_id": session(number), "service": SERVICE, "backends": backends})


def lookup(rounds: int) -> dict[str, list[float]]:
    """Seconds per look-up of a request's route in turn: few routes, many with few of them asked for, many with any."""
    everything = list(routes(MANY, 8888))
    few, many = (Router(Table.build(everything[:count], version=1)) for count in (FEW, MANY))
    chosen = random.Random(SEED)
    contenders = {
        name: (router, _heads(chosen.choices(range(asked), k=LOOKUPS)))
        for name, router, asked in (("few", few, FEW), ("same", many, FEW), ("any", many, MANY))
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (router, heads) in contenders.items():
            began = time.perf_counter()
            for head in heads:
                router.match(head)
            found[name].append((time.perf_counter() - began) / LOOKUPS)
    return found


def _heads(numbers: Sequence[int]) -> list[RequestHead]:
    lines = (f"GET /{session(number)}/{SERVICE}/lab/tree HTTP/1.1\r\nHost: worker\r\n\r\n" for number in numbers)
    return [parse_request(line.encode(), header_count=100) for line in lines]


async def store(folder: Path, backend: int) -> None:
    """Put them where a worker finds them at its start."""
    async with await RouteStore.open(folder / "routes.sqlite3") as opened:
        await opened.replace(list(routes(MANY, backend)), version=1)


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["lookup", "store"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--backend", type=int)
    arguments = parser.parse_args()
    if arguments.what == "lookup":
        print(json.dumps(lookup(arguments.rounds)))
    else:
        arguments.folder.mkdir(mode=0o700)
        trio.run(store, arguments.folder, arguments.backend)


if __name__ == "__main__":
    main()
