"""What a call of the management API is: one record that routing, authentication and the OpenAPI document all read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack

import trio
from pydantic import BaseModel
from quart import Response

from trioproxy.management.bodies import JsonBody, Query
from trioproxy.management.problems import overloaded

WORKER_SECONDS = 15.0
"""How long a call waits for the worker before it answers 503."""

Tag = Literal["routes", "traffic", "worker", "health", "pages"]
Args = TypeVarTuple("Args")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One way a call may end well. `model` is what pydantic knows of the body; None = the media type says it all."""

    description: str
    model: Any = None
    media: str | None = "application/json"  # None = no body
    headers: Mapping[str, str] = field(default_factory=dict[str, str])  # name -> what it says


@dataclass(frozen=True, slots=True)
class Call:
    """One method of one path. `refusals` are its problem answers, besides those that every call may give."""

    method: Literal["GET", "PUT", "PATCH", "POST", "DELETE"]
    rule: str  # in werkzeug's syntax
    view: Callable[..., Awaitable[Response]]
    tag: Tag
    answers: Mapping[int, Answer]
    refusals: Mapping[int, str] = field(default_factory=dict[int, str])
    body: JsonBody[Any] | None = None
    query: Query[Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])  # request headers it reads
    public: bool = False  # needs no token

    @property
    def endpoint(self) -> str:
        """The name quart knows this call by."""
        return f"{self.method} {self.rule}"


async def ask(call: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
    """Await the worker, WORKER_SECONDS at most. Raises Problem 503."""
    try:
        with trio.fail_after(WORKER_SECONDS):
            return await call(*args)
    except trio.TooSlowError:
        raise overloaded(f"the worker did not answer within {WORKER_SECONDS:g} s") from None


async def tell(call: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
    """Await a change of the worker, WORKER_SECONDS at most, to its end even if the caller hangs up.

    Raises Problem 503; whether the change was made is then not known.
    """
    try:
        with trio.fail_after(WORKER_SECONDS, shield=True):
            return await call(*args)
    except trio.TooSlowError:
        raise overloaded(f"the worker did not finish within {WORKER_SECONDS:g} s; look before trying again") from None


def reply(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(model.model_dump_json(), status, dict(headers or {}), content_type="application/json")


def no_body(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """A response without a body: 204 or 304."""
    response = Response(b"", status, dict(headers or {}))
    response.headers.remove("Content-Type")
    response.headers.remove("Content-Length")  # RFC 9110 §8.6: not with 204, and not 0 with 304
    return response
