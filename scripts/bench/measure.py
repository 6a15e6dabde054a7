"""Measuring: A B A B …, with an eye on who used the cores meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

from bench.errors import BenchError
from bench.machine import Cores, busy_seconds
from bench.process import Running
from bench.result import Result, Sample

CPU = "cpu_seconds"
"""Of the proxy, in one sample."""
SHARE = "core_share"
"""How much of its core the proxy used."""
OTHERS = "others_share"
"""How much of the proxies' core went to somebody else."""

BUSY = 0.9  # of its core: a proxy that uses less was waiting for something
NEAR = 0.8  # of what the load generator reaches without a proxy
FOREIGN = 0.1  # of the core: others who use more disturb

Measurement = Callable[[], Awaitable[Sample]]


class Meter:
    """CPU time of a proxy with all its processes (None: of nobody) and use of its cores, from now until `read`."""

    def __init__(self, process: Running | None, cores: Cores) -> None:
        self._process = process
        self._cores = cores.proxy
        self._wall, self._cpu, self._busy = self._now()

    def _now(self) -> tuple[float, dict[int, float], float]:
        cpu = self._process.cpu_seconds() if self._process else {}
        return time.perf_counter(), cpu, busy_seconds(self._cores)

    def read(self) -> Sample:
        """CPU seconds so far, and the shares of the cores. Raises BenchError when a process came or went meanwhile."""
        wall, cpu, busy = self._now()
        if self._process and cpu.keys() != self._cpu.keys():
            raise BenchError(f"{self._process.name}: a process started or ended during a measurement")
        used = sum(cpu.values()) - sum(self._cpu.values())
        core_seconds = (wall - self._wall) * len(self._cores)
        return {CPU: used, SHARE: used / core_seconds, OTHERS: max(0.0, busy - self._busy - used) / core_seconds}


async def interleave(
    contenders: Mapping[str, Measurement], *, rounds: int, progress: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Measure each contender once per round, always in the same order."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(1, rounds + 1):
        for name, measure in contenders.items():
            progress(f"round {number} of {rounds}: {name}")
            samples[name].append(await measure())
    return samples


def note_limits(result: Result, *, metric: str, direct: str) -> None:
    """Say where something else than the proxy was measured: the load generator, or other users of the core."""
    limit = median(result.values(direct, metric))
    for name in result.samples:
        if name == direct:
            continue
        reached = median(result.values(name, metric))
        share = median(result.values(name, SHARE))
        others = median(result.values(name, OTHERS))
        if reached > NEAR * limit:
            result.notes.append(
                f"{name}: {reached / limit:.0%} of what load generator and backend reach without a proxy, which "
                f"limit it; only its figures per CPU second count"
            )
        elif share < BUSY and others <= FOREIGN:
            result.notes.append(
                f"{name} used {share:.0%} of its core: load generator or backend limited it; only its figures per CPU "
                f"second count"
            )
        if others > FOREIGN:
            result.notes.append(f"{name}: other processes used {others:.0%} of its core")
