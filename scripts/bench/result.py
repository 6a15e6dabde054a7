"""What a row of the benchmark found out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.figures import Spread, ratio

Sample = dict[str, float]
"""One round of one contender: figures by the key of their metric."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that each contender has."""

    key: str
    title: str
    compared: bool = True  # else shown only


@dataclass(frozen=True, slots=True)
class Target:
    """What the ratio of ours to a peer's should be, or our own figure (peer None). `below`: at most, else at least."""

    subject: str
    peer: str | None
    metric: str
    must: float
    stretch: float | None = None
    below: bool = False

    def judge(self, value: float) -> str:
        """How far the ratio got."""
        for name, limit in (("stretch met", self.stretch), ("met", self.must)):
            if limit is not None and (value <= limit if self.below else value >= limit):
                return name
        return "not met"

    def __str__(self) -> str:
        sign = "≤" if self.below else "≥"
        return f"{sign} {self.must:g}" + ("" if self.stretch is None else f", stretch {sign} {self.stretch:g}")


@dataclass(frozen=True, slots=True)
class Result:
    """One row: every contender's samples, in order of rounds. `subjects` are ours, the others are peers."""

    key: str
    title: str
    subjects: tuple[str, ...]
    metrics: tuple[Metric, ...]
    samples: dict[str, list[Sample]]
    targets: tuple[Target, ...] = ()
    uncompared: frozenset[str] = frozenset()  # contenders that are no proxies
    notes: list[str] = field(default_factory=list[str])

    def values(self, contender: str, metric: str) -> list[float]:
        """One figure of all rounds; empty when the contender does not have it."""
        return [sample[metric] for sample in self.samples[contender] if metric in sample]

    def ratios(self) -> dict[tuple[str, str, str], Spread]:
        """Ours to each peer's, by subject, peer and metric."""
        peers = [name for name in self.samples if name not in self.subjects and name not in self.uncompared]
        return {
            (subject, peer, metric.key): ratio(mine, theirs)
            for subject in self.subjects
            for peer in peers
            for metric in self.metrics
            if metric.compared
            and (mine := self.values(subject, metric.key))
            and (theirs := self.values(peer, metric.key))
        }

    def target(self, subject: str, peer: str | None, metric: str) -> Target | None:
        """The target of a ratio, if it has one."""
        wanted = (subject, peer, metric)
        return next((one for one in self.targets if (one.subject, one.peer, one.metric) == wanted), None)

    def as_json(self) -> dict[str, Any]:
        """For the JSON report."""
        return {
            "key": self.key,
            "title": self.title,
            "metrics": {metric.key: metric.title for metric in self.metrics},
            "samples": self.samples,
            "ratios": [
                {"subject": subject, "peer": peer, "metric": metric, **asdict(spread)}
                for (subject, peer, metric), spread in self.ratios().items()
            ],
            "targets": [asdict(target) for target in self.targets],
            "notes": self.notes,
        }
