"""The growing share of a backend that is new or back."""

from __future__ import annotations

LEAST = 0.1
"""What it begins with, so that it gets something at all."""
STEPS = 20
"""In how many steps it grows: each costs the route a new arrangement."""


def grown(elapsed: float, duration: float) -> float:
    """The part of its full share after `elapsed` of `duration` seconds: from LEAST to 1, linear."""
    return 1.0 if elapsed >= duration else max(LEAST, elapsed / duration)
