"""Where the CPU time of a request goes: py-spy samples a forwarder under load."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from bench import contenders as by
from bench.answers import check_all
from bench.bench import ANSWER, Bench
from bench.errors import BenchError
from bench.load import wrk
from bench.measure import CPU, Meter
from bench.peer import Proxy
from bench.process import run_to_end
from bench.report import table
from bench.stacks import Shares, sum_up

SERVICE = "http"
RATE = 250  # samples per second: each one stops the process for some milliseconds
SECONDS = 20
SHOWN = 10


async def profile(bench: Bench) -> str:
    """The ten largest parts and functions of a request with browser headers, as Markdown. Raises BenchError."""
    async with (
        bench.answering_backend() as backend,
        bench.proxies([by.TRIOPROXY], backend=backend) as proxies,
    ):
        proxy = proxies[by.TRIOPROXY.name]
        await check_all(proxies, SERVICE, wrk.read_headers(wrk.BROWSER))
        bench.progress("warm-up")
        await _load(bench, proxy, bench.plan.seconds)
        bench.progress("what a request costs")
        meter = Meter(proxy.process, bench.cores)
        load = await _load(bench, proxy, bench.plan.seconds)
        cost = meter.read()[CPU] / load.requests
        bench.progress(f"sampling for {SECONDS} s")
        shares = await _sample(bench, proxy)
    return _show(shares, cost)


async def _load(bench: Bench, proxy: Proxy, seconds: int) -> wrk.HttpLoad:
    return await wrk.request(
        proxy.url(SERVICE), headers=wrk.BROWSER, body=ANSWER, seconds=seconds, cores=bench.cores.load
    )


async def _sample(bench: Bench, proxy: Proxy) -> Shares:
    [forwarder] = [pid for pid in proxy.process.pids() if pid != proxy.process.pid]
    output = bench.folder / "stacks"
    command = [
        *(str(Path(sys.executable).with_name("py-spy")), "record", "--native", "--full-filenames"),
        *("--format", "raw", "--output", str(output), "--rate", str(RATE), "--duration", str(SECONDS)),
        *("--pid", str(forwarder)),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_load, bench, proxy, SECONDS + 2)
        await run_to_end(command, cores=bench.cores.load)
    lines = await trio.to_thread.run_sync(output.read_text)
    shares = sum_up(lines.splitlines())
    if not shares.samples:
        raise BenchError("py-spy took no sample")
    return shares


def _show(shares: Shares, cost: float) -> str:
    head = (
        f"### where the time of a request goes\n\n12 browser headers, one forwarder; {cost * 1e6:.0f} µs of CPU each "
        f"when nobody samples. {shares.samples} samples of py-spy."
    )
    tables: list[str] = []
    for title, counted in (("part", shares.parts), ("function", shares.functions)):
        lines = [["share", "µs", title]]
        for name, count in counted.most_common(SHOWN):
            share = count / shares.samples
            lines.append([f"{share:.1%}", f"{share * cost * 1e6:.1f}", name])
        tables.append(table(lines))
    return "\n\n".join([head, *tables]) + "\n"
