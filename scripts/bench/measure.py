"""Measuring: A B A B …, with an eye on who used the cores meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

from bench.machine import Cores, core_busy_seconds
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
    """CPU time of a process (None: of nobody) and use of its core, from the beginning to `read`."""

    def __init__(self, process: Running | None, cores: Cores) -> None:
        self._process = process
        self._core = cores.proxy
        self._began = self._now()

    def _now(self) -> tuple[float, float, float]:
        cpu = self._process.cpu_seconds() if self._process else 0.0
        return time.perf_counter(), cpu, core_busy_seconds(self._core)

    def read(self) -> Sample:
        """CPU seconds so far, and the shares of the core."""
        wall, cpu, busy = (now - began for now, began in zip(self._now(), self._began, strict=True))
        return {CPU: cpu, SHARE: cpu / wall, OTHERS: max(0.0, busy - cpu) / wall}


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
