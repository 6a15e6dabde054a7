"""Whether a request that failed may be sent again."""

from __future__ import annotations

from trioproxy.errors import ProxyError, Retry

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""RFC 9110 §9.2.1, less TRACE, which is not served."""
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""RFC 9110 §9.2.2, less TRACE, which is not served."""


def may_retry(error: ProxyError, *, method: bytes, tries: int, attempts: int, body_is_whole: bool) -> bool:
    """Decide after `tries` tries of at most 1 + `attempts`.

    `body_is_whole`: everything the request consists of is still at hand, so that it can be sent again.

    A kept connection that closed before a byte came back has most likely idled out as we wrote, yet the backend
    may have read the request: RFC 9110 §9.2.2 forbids a proxy to repeat what is not idempotent, so that case
    needs an idempotent method too. What never left (UNSENT) is safe with any method.
    """
    if tries > attempts or not body_is_whole:
        return False
    if error.retry is Retry.UNSENT:
        return True
    return error.retry is Retry.REUSED and method in IDEMPOTENT
