"""Errors that say that this machine or process is at its end: no peer is to blame for them."""

from __future__ import annotations

import errno
from typing import Final, cast

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""No more files for this process or machine, no memory."""


def is_exhausted(error: BaseException | None) -> bool:
    """Whether the error, what caused it, or any of a group of causes is one of `EXHAUSTED`."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            return True
        if isinstance(error, BaseExceptionGroup):
            return any(map(is_exhausted, cast("BaseExceptionGroup[BaseException]", error).exceptions))
        error = error.__cause__
    return False
