"""What makes a measurement worthless."""

from __future__ import annotations


class BenchError(Exception):
    """A process did not start, died, or answered something wrong. The text is for the person at the terminal."""
