"""Deadlines from configured waits."""

from __future__ import annotations

import math

import trio


def deadline_after(seconds: float) -> float:
    """The instant, on trio's clock, at which a wait of this many seconds is over; 0 means never."""
    return trio.current_time() + seconds if seconds else math.inf
