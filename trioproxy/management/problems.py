"""How the management API says no: RFC 9457 problem documents."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, Field
from quart import Response, g
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from trioproxy.errors import ProviderError, TrioproxyError

CONTENT_TYPE = "application/problem+json"
MAX_MISTAKES = 50
"""Mistakes that one answer lists; a file with one column wrong would otherwise repeat itself 100 000 times."""

_CODES = {
    HTTPStatus.REQUEST_TIMEOUT: "body_timeout",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}
_DETAILS = {
    HTTPStatus.NOT_FOUND: "no call has this path; /openapi.json lists those there are",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; the Allow header lists those it takes",
}
_log = logging.getLogger(__name__)


class Mistake(BaseModel):
    """One thing wrong with a request: where it stands, and what is allowed there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str = Field(description='Path of the value: "routes[3].backends[0].port"; "" is the body as a whole.')
    message: str


class ProblemBody(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = "about:blank"
    title: str
    status: int
    code: str = Field(description="What went wrong, for programs.")
    detail: str = Field(description="What went wrong, for people.")
    request_id: str = Field(description="Also the X-Request-Id header, and in the log.")
    errors: list[Mistake] | None = Field(default=None, description="Mistakes in the request, one by one.")
    problems: list[str] | None = Field(default=None, description="Mistakes in the configuration, one by one.")


class Problem(TrioproxyError):
    """An answer that is an error. `detail` and everything else here is shown to the caller."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mistake] = (),
        problems: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.problems = problems
        self.headers = headers or {}


def bad_request(detail: str, *mistakes: Mistake) -> Problem:
    """400, with the mistakes one by one; the detail is followed by the first of them."""
    if mistakes:
        first = mistakes[0]
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        detail = f"{detail}: {f'{first.field}: ' if first.field else ''}{first.message}{more}"
    return Problem(400, "bad_request", detail, errors=mistakes[:MAX_MISTAKES])


def overloaded(detail: str) -> Problem:
    """503, try again."""
    return Problem(503, "overloaded", detail, headers={"Retry-After": "1"})


def answer(problem: Problem) -> Response:
    """The response that carries this problem."""
    body = ProblemBody(
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        code=problem.code,
        detail=problem.detail,
        request_id=g.request_id,
        errors=list(problem.errors) or None,
        problems=list(problem.problems) or None,
    )
    text = body.model_dump_json(exclude_none=True)
    return Response(text, problem.status, dict(problem.headers), content_type=CONTENT_TYPE)


class Answers:
    """Error handlers: every error of a call becomes a problem document, and those that are bugs are logged.

    They are async though none waits, because quart runs plain functions in a thread.
    """

    def register(self, app: QuartTrio) -> None:
        """Let these handle the app's errors."""
        app.register_error_handler(Problem, self.on_problem)
        app.register_error_handler(ProviderError, self.on_provider_error)
        app.register_error_handler(HTTPException, self.on_http_exception)
        app.register_error_handler(Exception, self.on_bug)

    async def on_problem(self, problem: Problem) -> Response:
        """Answer what a call raised on purpose."""
        return answer(problem)

    async def on_provider_error(self, error: ProviderError) -> Response:
        """Answer a change that could not be kept."""
        return answer(Problem(503, "not_stored", f"the change was not made: {error}"))

    async def on_http_exception(self, error: HTTPException) -> Response:
        """Answer what quart refuses by itself: 404, 405 and the like."""
        status = HTTPStatus(error.code or 500)
        code = _CODES.get(status) or re.sub(r"[^a-z]+", "_", status.phrase.lower())
        detail = _DETAILS.get(status) or error.description or status.phrase
        headers = {name: value for name, value in error.get_headers() if name.lower() == "allow"}
        return answer(Problem(status, code, detail, headers=headers))

    async def on_bug(self, error: Exception) -> Response:
        """Answer anything else."""
        _log.error("management call failed (request %s)", g.request_id, exc_info=error)
        return answer(Problem(500, "internal_error", "a bug in trioproxy; the log has more under this request_id"))
