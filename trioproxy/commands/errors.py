"""Why a command failed."""

from __future__ import annotations

from trioproxy.errors import TrioproxyError


class CommandError(TrioproxyError):
    """A command could not do what it was asked for. The text is one sentence for the person at the terminal."""
