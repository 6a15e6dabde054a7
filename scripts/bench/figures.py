"""Numbers of several rounds: medians, ranges, ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round: the two of one round were measured one after the other, so they share the noise."""
    return Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])


def show(value: float) -> str:
    """Three significant digits, large numbers in thousands, millions …"""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / float(limit if limit > 1e4 else 1e3):.3g}{unit}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show_spread(spread: Spread) -> str:
    """Median (lowest to highest)."""
    return f"{show(spread.median)} ({show(spread.low)} to {show(spread.high)})"
