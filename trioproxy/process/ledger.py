"""What forwarders have counted, also those that are gone: no sum ever falls because one of them died."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from trioproxy.control.messages import Activity, Report
from trioproxy.observe.metrics import Metrics
from trioproxy.process.fold import fold_activity
from trioproxy.routing.route import RouteKey
from trioproxy.routing.table import Table


@dataclass(slots=True)
class _Page:
    """The last known figures of one forwarder."""

    metrics: Metrics = field(default_factory=Metrics)
    activity: dict[RouteKey, Activity] = field(default_factory=dict[RouteKey, Activity])


class Ledger:
    """Keeps the last figures of each forwarder, and the sums of the dead. `table` is the table in force."""

    def __init__(self, table: Callable[[], Table]) -> None:
        self._table = table
        self._pages: dict[int, _Page] = {}
        self._past = _Page()
        self._services: list[str] = []
        """Service labels in the order they came up: the first ones have a series of their own, for ever.

        Were it for the order in which figures are added up, a label could be folded into "other" all of a sudden.
        """

    def note(self, index: int, report: Report) -> None:
        """Take over a forwarder's figures: all of its metrics, and the activity that is news."""
        page = self._pages.setdefault(index, _Page())
        page.metrics = report.metrics
        page.activity |= report.activity
        if len(page.activity) > len(self._table().routes):
            page.activity = self._of_known_routes(page.activity)

    def bury(self, index: int) -> None:
        """A forwarder is gone: what it has counted stays, and nothing is open in it any more."""
        page = self._pages.pop(index, None)
        if page is None:
            return
        page.metrics.forget_gauges()
        self._past.metrics = self._sum([self._past.metrics, page.metrics])
        gone = {key: replace(one, connections=0) for key, one in page.activity.items()}
        self._past.activity = self._of_known_routes(fold_activity([self._past.activity, gone]))

    def metrics(self) -> Metrics:
        """The sums, over the living and the dead."""
        return self._sum([self._past.metrics, *(page.metrics for page in self._pages.values())])

    def activity(self) -> dict[RouteKey, Activity]:
        """What happened on each route of the table that had traffic, in the living and the dead."""
        found = fold_activity([self._past.activity, *(page.activity for page in self._pages.values())])
        return self._of_known_routes(found)

    def _sum(self, parts: list[Metrics]) -> Metrics:
        total = Metrics()
        for name in self._services:
            total.service(name)
        for part in parts:
            total.merge(part)
        self._services = list(total.services)
        return total

    def _of_known_routes(self, activity: Mapping[RouteKey, Activity]) -> dict[RouteKey, Activity]:
        table = self._table()
        return {key: one for key, one in activity.items() if table.get(key) is not None}
