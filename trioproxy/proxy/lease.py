"""A backend chosen for one try, and what the try tells of it."""

from __future__ import annotations

import time

from trioproxy.errors import ProxyError, Retry, Side
from trioproxy.proxy.backend_stats import BackendStats
from trioproxy.proxy.turnout import Turnout
from trioproxy.routing.route import Backend


class Lease:
    """A backend chosen for one try: `served` or `failed` when it came to an end, and `release` exactly once.

    Neither is called when the client or this worker is why it ended: that says nothing of the backend. `pin` is to go
    into the client's cookie with the answer; None = nothing is.
    """

    __slots__ = ("_trial", "_turnout", "pin", "stats")

    def __init__(self, turnout: Turnout, stats: BackendStats, trial: bool = False, pin: str | None = None) -> None:
        self._turnout = turnout
        self.stats = stats
        self._trial = trial
        self.pin = pin

    @property
    def backend(self) -> Backend:
        """Whom to connect to."""
        return self.stats.backend

    def answered(self, status: int, seconds: float) -> None:
        """The head of its answer came, so many seconds after the request was sent; 101 included.

        `served` says so too: it is for answers whose end may be far away, and who waits for a trial to end.
        """
        stats, turnout = self.stats, self._turnout
        if self._trial and status not in turnout.ejections.rules.statuses:
            self._trial = False
            if turnout.ejections.success(stats):
                turnout.disturb()
        if stats.latency is not None:
            turnout.observe(stats, seconds)

    def served(self, status: int, seconds: float | None = None) -> None:
        """The backend did its part, with this status. `seconds`: as in `answered`, when that was not called."""
        stats = self.stats
        stats.outcomes += 1
        if seconds is not None and (self._trial or stats.latency is not None):
            self.answered(status, seconds)
        if stats.evidence is not None or status >= 500:
            self._weigh(status)

    def _weigh(self, status: int) -> None:
        stats, ejections = self.stats, self._turnout.ejections
        if status >= 500:
            counts = status in ejections.rules.statuses
            if counts:
                self._note_error(f"answered {status}")
            elif stats.evidence is not None:
                stats.evidence.in_a_row = 0
            if ejections.failure(stats, trial=self._trial, counts=counts):
                self._turnout.disturb()
        elif stats.evidence is not None:
            stats.evidence.in_a_row = 0

    def failed(self, error: ProxyError) -> None:
        """Remember an error that is the backend's own fault; hanging up an idle connection is none."""
        if error.side is not Side.UPSTREAM or error.retry is Retry.REUSED:
            return
        stats, turnout = self.stats, self._turnout
        stats.outcomes += 1
        self._note_error(f"{error.code}: {error.detail}")
        if turnout.ejections.failure(stats, trial=self._trial):
            turnout.disturb()

    def _note_error(self, what: str) -> None:
        self.stats.last_error = what
        self.stats.last_error_at = time.time()

    def release(self) -> None:
        """The try is over, however it ended."""
        stats = self.stats
        stats.in_flight -= 1
        if self._trial:
            self._give_up_trial()

    def _give_up_trial(self) -> None:
        """Nothing was learnt: the next request tries."""
        ejected = self.stats.ejected
        if ejected is not None and ejected.on_trial:
            ejected.on_trial = False
            self._turnout.disturb()
