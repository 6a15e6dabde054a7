"""How many retries a service may be given: a share of its requests, so that one that is dead is not stormed."""

from __future__ import annotations

import math

WINDOW = 10.0
"""Seconds that are looked back."""
FLOOR = 10
"""Retries in a window that are allowed however few requests there are: one kernel that restarts is no storm."""


class RetryBudget:
    """The retries of one route in one forwarder, held against its requests of the last `WINDOW` seconds.

    Requests are not told one by one: the budget is shown their running total, when a retry is asked for and, with
    `turn`, when `turns_at` has passed. It keeps two windows and takes the older one to be evenly spread, as its part
    that still counts is. Times are in seconds, of any clock that does not go back.
    """

    __slots__ = ("_base", "_before", "_spent", "_spent_before", "turns_at")

    def __init__(self) -> None:
        self.turns_at = -math.inf
        """When the current window is over: the next request should say so."""
        self._base = 0  # total of requests when the current window began
        self._before = 0  # requests of the window before
        self._spent = 0  # retries in the current window
        self._spent_before = 0

    def turn(self, now: float, requests: int) -> None:
        """Begin the next window. `now` is not before `turns_at`; so many requests came before it."""
        if now < self.turns_at + WINDOW:
            self._before, self._spent_before = requests - self._base, self._spent
            self.turns_at += WINDOW
        else:  # nothing came for a whole window, and how old what came before is cannot be told
            self._before = self._spent_before = 0
            self.turns_at = now + WINDOW
        self._base, self._spent = requests, 0

    def allows(self, now: float, requests: int, share: float) -> bool:
        """Whether one more retry stays within this share of the requests, of which so many came so far.

        A share of 0 allows none.
        """
        if now >= self.turns_at:
            self.turn(now, requests)
        left = (self.turns_at - now) / WINDOW  # of the window before
        counted = requests - self._base + self._before * left
        spent = self._spent + self._spent_before * left
        return share > 0 and spent + 1 <= max(FLOOR, share * counted)

    def spend(self) -> None:
        """A retry that was just allowed takes place."""
        self._spent += 1
