"""Who may call: the bearer token."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from quart import request

from trioproxy.management.calls import Call
from trioproxy.management.problems import Problem

_UNAUTHORIZED = Problem(
    401,
    "unauthorized",
    "send the management token, as Authorization: Bearer <token>",
    headers={"WWW-Authenticate": "Bearer"},
)


class Guard:
    """Lets a request pass when its call is public or it has the token (RFC 6750 §2.1).

    Raises ValueError for an empty token, which everybody has.
    """

    def __init__(self, token: str, calls: Mapping[str, Call]) -> None:
        if not token:
            raise ValueError("the management token is empty")
        self._token = token.encode()
        self._calls = calls

    def check(self) -> None:
        """Check the request at hand. Raises Problem 401, the same whether the path exists or not."""
        call = self._calls.get(request.endpoint or "")
        # What is no call may be told so to everyone, except below /v1, where everything is the token's.
        public = call.public if call else not (request.path + "/").startswith("/v1/")
        if not public and not self._has_token():
            raise _UNAUTHORIZED

    def _has_token(self) -> bool:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        # Header text is bytes read as latin-1. compare_digest takes the same time however much of it is right.
        presented = credentials.strip().encode("latin-1", "replace")
        return scheme.lower() == "bearer" and hmac.compare_digest(presented, self._token)
