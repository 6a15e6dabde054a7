"""The store is killed in the middle of writing, again and again, and must never lose or halve a change."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import trio

from trioproxy.providers.store import RouteStore
from trioproxy.routing.route import Route

KILLS = 10
ROUTES_PER_CHANGE = 5
LIMIT = 60.0

# Writes change after change and acknowledges each one; every change moves all routes to its own number.
WRITER = f"""
import sys
from pathlib import Path
import trio
from trioproxy.providers.store import RouteStore
from trioproxy.routing.route import Route

async def main():
    store = await RouteStore.open(Path(sys.argv[1]))
    number = store.version
    while True:
        number += 1
        routes = [
            Route(session_id=f"s{{n}}", service="v", backends=(), metadata={{"number": number}})
            for n in range({ROUTES_PER_CHANGE})
        ]
        if number % 3 == 0:
            await store.replace(routes, version=number)
        else:
            await store.apply(upsert=routes, remove=[(f"s{{n}}", "v") for n in range(2)], version=number)
        sys.stdout.write(f"{{number}}\\n")
        sys.stdout.flush()

trio.run(main)
"""


def numbers_of(routes: list[Route]) -> list[int]:
    return [route.metadata["number"] for route in routes]


async def write_until_killed(path: Path, acknowledgements: int, delay: float) -> int:
    """Run the writer, kill it `delay` seconds after that many acknowledgements, and return the last number it gave."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    said = b""
    try:
        async with process.stdout:
            while said.count(b"\n") < acknowledgements:
                piece = await process.stdout.receive_some()
                assert piece, "the writer ended by itself"
                said += piece
            await trio.sleep(delay)
            process.send_signal(signal.SIGKILL)
            async for piece in process.stdout:
                said += piece
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    # What follows the last line break was cut off by the kill and acknowledges nothing.
    return int(said[: said.rindex(b"\n")].split(b"\n")[-1])


async def test_killed_at_any_instant_the_store_holds_every_acknowledged_change_and_no_half_of_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "routes.db"
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with trio.fail_after(LIMIT):
        for kill in range(KILLS):
            about = f"kill {kill} with seed {seed}"
            acknowledged = await write_until_killed(path, chance.randint(1, 40), chance.uniform(0, 0.01))
            async with await RouteStore.open(path) as store:
                numbers = numbers_of(await store.load())
                # One more may be on disk than was acknowledged: the kill came between the commit and the word.
                assert store.version in (acknowledged, acknowledged + 1), about
                assert numbers == [store.version] * ROUTES_PER_CHANGE, about
