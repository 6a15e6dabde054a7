"""What care for backends costs a request that meets none of its reasons, on one core."""

from __future__ import annotations

import http.client
from pathlib import Path

import trio

from bench import contenders as by
from bench.answers import check_all
from bench.bench import Bench
from bench.errors import BenchError
from bench.load import wrk
from bench.measure import interleave
from bench.peer import Proxy, path
from bench.result import Result, Target
from bench.rows.requests import METRICS, PER_CPU, SERVICE, load_requests, measurement

CAREFUL = "careful"
STICKY = "careful-sticky"
TWO = "two"
PLAIN = "plain"


async def care(bench: Bench) -> Result:
    """One worker: a route with one backend and defaults, one with two, and such with all that can be asked for.

    A second backend is no care: it costs connections of its own, whatever is done with it.
    """
    targets = tuple(Target(name, TWO, PER_CPU, 0.95, None) for name in (CAREFUL, STICKY))
    async with (
        bench.answering_backend() as backend,
        bench.proxies([by.TRIOPROXY], backend=backend) as proxies,
    ):
        (proxy,) = proxies.values()
        pinned = bench.folder / "pinned.txt"
        await trio.to_thread.run_sync(_write_pinned, proxy, pinned)
        services = {
            PLAIN: (SERVICE, wrk.BROWSER),
            TWO: (TWO, wrk.BROWSER),
            CAREFUL: (CAREFUL, wrk.BROWSER),
            STICKY: (STICKY, pinned),
        }
        for service, headers in services.values():
            await check_all(proxies, service, wrk.read_headers(headers))
            await load_requests(bench, proxy.url(service), headers, bench.plan.warm_up)
        contenders = {
            name: measurement(bench, proxy.url(service), proxy.process, headers)
            for name, (service, headers) in services.items()
        }
        samples = await interleave(contenders, rounds=2 * bench.plan.rounds, progress=bench.progress)
    title = "requests with browser headers: health checks, ejection, retries, random_two or sticky, against defaults"
    return Result("requests-careful", title, (CAREFUL, STICKY), METRICS, samples, targets)


def _write_pinned(proxy: Proxy, file: Path) -> None:
    """The browser's header lines, with the cookie that the sticky route sets."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
    try:
        connection.request("GET", path(STICKY))
        cookie = connection.getresponse().headers.get("Set-Cookie", "").partition(";")[0]
    finally:
        connection.close()
    if not cookie:
        raise BenchError("the sticky route has set no cookie")
    lines = wrk.BROWSER.read_text(encoding="ascii").splitlines()
    file.write_text(
        "".join(f"{line}; {cookie}\n" if line.startswith("Cookie:") else f"{line}\n" for line in lines),
        encoding="ascii",
    )
