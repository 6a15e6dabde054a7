"""What a second forwarder process is worth."""

from __future__ import annotations

import trio

from bench import contenders as by
from bench.answers import check_all
from bench.bench import ANSWER, Bench
from bench.load import wrk
from bench.measure import CPU, SHARE, Measurement, Meter, interleave
from bench.peer import Proxy
from bench.result import Metric, Result, Sample, Target

RATE = "per_second"
PER_CPU = "per_cpu_second"
CAPACITY = "forwarders_per_cpu_second"
SERVICE = "http"
METRICS = (
    Metric(CAPACITY, "forwarders * requests/CPU s"),
    Metric(PER_CPU, "requests/CPU s"),
    Metric(RATE, "requests/s"),
    Metric(SHARE, "share of both cores", compared=False),
)


async def two_forwarders(bench: Bench) -> Result:
    """One and two of them; both cores are shared with load generator and backend.

    With a core for each, n forwarders carry n times what they carry in a second of their CPU time: that is compared,
    as there are no cores left over here to let them show it.
    """
    shared = Bench(bench.plan, bench.cores.shared(), bench.folder)
    peers = [by.TRIOPROXY, by.TRIOPROXY_TWO]
    async with shared.answering_backend() as backend, shared.proxies(peers, backend=backend) as proxies:
        await check_all(proxies, SERVICE, wrk.read_headers(wrk.BROWSER))
        bench.progress("warm-up")
        async with trio.open_nursery() as nursery:
            for proxy in proxies.values():
                nursery.start_soon(_load, shared, proxy, bench.plan.warm_up)
        contenders = {
            peer.name: _measurement(shared, proxies[peer.name], count) for count, peer in enumerate(peers, start=1)
        }
        samples = await interleave(contenders, rounds=bench.plan.rounds, progress=bench.progress)
    return Result(
        "forwarders",
        "two forwarder processes and one, 12 browser headers, both cores shared with load generator and backend",
        (by.TRIOPROXY_TWO.name,),
        METRICS,
        samples,
        (Target(by.TRIOPROXY_TWO.name, by.TRIOPROXY.name, CAPACITY, 1.7, 1.9),),
        notes=["CPU seconds are those of the supervisor and all forwarders"],
    )


def _measurement(bench: Bench, proxy: Proxy, forwarders: int) -> Measurement:
    async def measure() -> Sample:
        meter = Meter(proxy.process, bench.cores)
        load = await _load(bench, proxy, bench.plan.seconds)
        sample = meter.read() | {RATE: load.requests / load.seconds}
        sample[PER_CPU] = load.requests / sample[CPU]
        sample[CAPACITY] = forwarders * sample[PER_CPU]
        return sample

    return measure


async def _load(bench: Bench, proxy: Proxy, seconds: int) -> wrk.HttpLoad:
    return await wrk.request(
        proxy.url(SERVICE), headers=wrk.BROWSER, body=ANSWER, seconds=seconds, cores=bench.cores.load
    )
