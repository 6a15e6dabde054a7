"""The report: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Spread, show, show_spread
from bench.result import Result

ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When, where and how it was measured."""

    date: str
    command: str
    plan: dict[str, object]
    machine: dict[str, str]
    versions: dict[str, str]
    contenders: dict[str, str]

    def text(self) -> str:
        """As Markdown."""
        return "\n".join(
            (
                f"{self.date}, `{self.command}`",
                "",
                "- machine: " + ", ".join(f"{name} {value}" for name, value in self.machine.items()),
                "- versions: " + ", ".join(f"{name} {value}" for name, value in self.versions.items()),
                "- contenders: " + "; ".join(f"{name} = {says}" for name, says in self.contenders.items()),
            )
        )


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it can be read as text too; the first line is its head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join((shown[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *shown[1:]))


def show_result(result: Result) -> str:
    """One row of the benchmark: figures, ratios, notes."""
    parts = [f"### {result.title}", _figures(result)]
    if result.ratios():
        parts.append(_ratios(result))
    if any(target.peer is None for target in result.targets):
        parts.append(_bounds(result))
    if result.notes:
        parts.append("\n".join(f"- {note}" for note in result.notes))
    return "\n\n".join(parts) + "\n"


def _figures(result: Result) -> str:
    lines = [["", *(metric.title for metric in result.metrics)]]
    for name in result.samples:
        found = [result.values(name, metric.key) for metric in result.metrics]
        lines.append([name, *(_show(values) for values in found)])
    return table(lines)


def _show(values: list[float]) -> str:
    if not any(values):
        return ABSENT
    spread = Spread.of(values)
    return show_spread(spread) if len(values) > 1 else show_spread(spread).partition(" (")[0]


def _ratios(result: Result) -> str:
    metrics = [metric for metric in result.metrics if metric.compared]
    lines = [["ratio", *(metric.title for metric in metrics), "target", ""]]
    ratios = result.ratios()
    for subject, peer in dict.fromkeys((subject, peer) for subject, peer, _ in ratios):
        found = {metric.key: ratios.get((subject, peer, metric.key)) for metric in metrics}
        targets = [one for key in found if (one := result.target(subject, peer, key))]
        judged = [one.judge(reached.median) for one in targets if (reached := found[one.metric])]
        lines.append(
            [
                f"{subject} : {peer}",
                *(_show_ratio(spread) for spread in found.values()),
                " / ".join(map(str, targets)),
                " / ".join(judged),
            ]
        )
    return table(lines)


def _bounds(result: Result) -> str:
    """Our own figures beside what they should be."""
    titles = {metric.key: metric.title for metric in result.metrics}
    lines = [["", "", "target", ""]]
    for target in result.targets:
        if target.peer is None:
            spread = Spread.of(result.values(target.subject, target.metric))
            figure = f"{show(spread.median)} {titles[target.metric]}"
            lines.append([target.subject, figure, str(target), target.judge(spread.median)])
    return table(lines)


def _show_ratio(spread: Spread | None) -> str:
    if spread is None:
        return ABSENT
    if spread.low == spread.high:
        return f"{spread.median:.2f}"
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def write_json(file: Path, circumstances: Circumstances, results: Sequence[Result]) -> None:
    """Everything, with every sample."""
    document = {
        "date": circumstances.date,
        "command": circumstances.command,
        "plan": circumstances.plan,
        "machine": circumstances.machine,
        "versions": circumstances.versions,
        "contenders": circumstances.contenders,
        "rows": [result.as_json() for result in results],
    }
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
