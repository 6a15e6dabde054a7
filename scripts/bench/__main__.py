"""The command line of the benchmark, behind `scripts/bench/run`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

import trio

from bench.bench import FULL, QUICK, Bench, Plan
from bench.contenders import ALL, CHP_FOLDER
from bench.errors import BenchError
from bench.machine import Cores, describe, pick_cores, raise_open_files, versions
from bench.profile import profile
from bench.report import Circumstances, show_result, write_json
from bench.result import Result
from bench.rows import bodies, forwarders, latency, memory, requests, resilience, routes, websockets

Row = Callable[[Bench], Awaitable[Result]]

ROWS: dict[str, Row] = {
    "requests-browser": requests.browser_requests,
    "requests-bare": requests.bare_requests,
    "requests-tls": requests.tls_requests,
    "requests-careful": resilience.care,
    "latency": latency.added_latency,
    "forwarders": forwarders.two_forwarders,
    "body-length": bodies.known_length,
    "body-chunked": bodies.chunked,
    "websocket-ping-pong": websockets.ping_pong,
    "memory-idle-http": memory.idle_connections,
    "memory-idle-websocket": memory.idle_websockets,
    "memory-growth": memory.growth,
    "route-lookup": routes.lookup,
    "route-change": routes.change,
    "cold-start": routes.cold_start,
}


FURTHER = frozenset({"requests-bare"})
"""Rows without a target, measured by --full or when asked for."""


def main() -> int:
    """Measure and report. Exit codes: 0 measured, 1 something was wrong, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    thoroughness = parser.add_mutually_exclusive_group()
    thoroughness.add_argument("--quick", action="store_true", help="under two minutes: what has a target (default)")
    thoroughness.add_argument("--full", action="store_true", help="under twenty minutes: all rows, all peers")
    thoroughness.add_argument("--profile", action="store_true", help="instead: where the time of a request goes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every sample to a file")
    parser.add_argument("--only", metavar="ROW", action="append", choices=list(ROWS), help="; ".join(ROWS))
    arguments = parser.parse_args()
    plan = FULL if arguments.full else QUICK
    names = arguments.only or [name for name in ROWS if plan.full or name not in FURTHER]
    rows = [ROWS[name] for name in names]
    # SIGTERM ends it like Ctrl-C does, through every `finally`; and Ctrl-C also where a shell has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    work = partial(_profile, plan) if arguments.profile else partial(_run, plan, rows, arguments.json)
    try:
        trio.run(work)
    except BenchError as error:
        print(f"scripts/bench/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def _prepare(plan: Plan) -> tuple[Cores, Circumstances]:
    cores = pick_cores()
    raise_open_files()
    os.sched_setaffinity(0, cores.load)
    return cores, Circumstances(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=" ".join(["scripts/bench/run", *sys.argv[1:]]),
        plan=asdict(plan),
        machine=describe(),
        contenders={peer.name: peer.says for peer in ALL},
        versions=versions(CHP_FOLDER / "node_modules/configurable-http-proxy"),
    )


async def _profile(plan: Plan) -> None:
    cores, circumstances = _prepare(plan)
    with tempfile.TemporaryDirectory(prefix="trioproxy-bench-") as folder:
        shown = await profile(Bench(plan, cores, Path(folder)))
    print(f"{circumstances.text()}\n\n{shown}")


async def _run(plan: Plan, rows: Sequence[Row], json_file: Path | None) -> None:
    cores, circumstances = _prepare(plan)
    print(circumstances.text() + "\n", flush=True)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="trioproxy-bench-") as folder:
        bench = Bench(plan, cores, Path(folder))
        for number, row in enumerate(rows):
            own = bench.folder / str(number)
            own.mkdir()
            result = await row(Bench(plan, cores, own))
            results.append(result)
            print(show_result(result), flush=True)
    if json_file is not None:
        write_json(json_file, circumstances, results)


if __name__ == "__main__":
    sys.exit(main())
