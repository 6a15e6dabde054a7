"""Reading what callers send: JSON bodies and query strings, bounded, checked, and refused with reasons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar, cast

import trio
from pydantic import BaseModel, ValidationError
from quart import request
from quart_trio.wrappers.request import TrioBody, TrioRequest
from werkzeug.exceptions import RequestEntityTooLarge

from trioproxy.control.collector import let_go, many_objects
from trioproxy.management.mistakes import mistakes
from trioproxy.management.problems import Mistake, Problem, bad_request

MIB = 1024 * 1024
MAX_BODY_BYTES = 64 * MIB
"""No call takes more; what a handler does not read is never kept beyond this."""
STALL_SECONDS = 10.0
"""How long a body may pause (408)."""
LINGER_SECONDS = 3.0
"""How long the rest of a refused body is read and thrown away."""

M = TypeVar("M", bound=BaseModel)


class BoundedBody(TrioBody):
    """A request body that holds at most `maximum` unread bytes, and drops what is beyond."""

    def __init__(self, _expected: int | None, maximum: int | None) -> None:
        # A Content-Length that is too large must not fail the first read: JsonBody says so in its own words,
        # and the body can still be read to its end, so that the client gets to see the answer.
        super().__init__(None, maximum)


class Request(TrioRequest):
    """A request with a bounded body."""

    body_class = BoundedBody


class JsonBody(Generic[M]):
    """A JSON request body that one call takes. `limit` is in bytes.

    `listed` names the field that may also be sent bare, as a list. `optional` names fields of the model that the
    path already has, so that the body may leave them out. `check` finds the mistakes that a model cannot know of.
    """

    def __init__(
        self,
        model: type[M],
        *,
        limit: int,
        listed: str | None = None,
        optional: tuple[str, ...] = (),
        check: Callable[[M], list[Mistake]] | None = None,
    ) -> None:
        self.model = model
        self.limit = limit
        self.listed = listed
        self.optional = optional
        self._check = check

    async def read(self, **from_path: str) -> M:
        """The body as the model. Raises Problem: 400, 408, 413 or 415. `from_path` fills the optional fields."""
        if request.mimetype != "application/json":
            raise Problem(415, "unsupported_media_type", "send JSON, with Content-Type: application/json")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Problem(415, "unsupported_media_type", "send the body as it is, without a Content-Encoding")
        data = await _collect(self.limit)
        # A large body takes seconds to check: not on the thread that carries traffic.
        with many_objects() if len(data) > MIB else nullcontext():
            return await trio.to_thread.run_sync(partial(self._parse, data, from_path))

    def _parse(self, data: bytes, from_path: dict[str, str]) -> M:
        value = self._complete(parse_json(data), from_path)
        try:
            body = self.model.model_validate(value)
        except ValidationError as error:
            raise bad_request("the body is not valid", *mistakes(error, value, self.model)) from None
        if self._check and (found := self._check(body)):
            raise bad_request("the body is not valid", *found)
        if self.listed and isinstance(value, dict):
            let_go(cast(dict[str, list[object]], value)[self.listed])
        return body

    def _complete(self, value: object, from_path: dict[str, str]) -> object:
        if self.listed and isinstance(value, list):
            return {self.listed: cast(list[object], value)}
        if not from_path or not isinstance(value, dict):
            return value
        fields: dict[str, object] = {**from_path, **value}
        wrong = [
            Mistake(field=name, message=f"contradicts the path, which says {named!r}")
            for name, named in from_path.items()
            if fields[name] != named
        ]
        if wrong:
            raise bad_request("the body names another route than the path", *wrong)
        return fields


class Query(Generic[M]):
    """The query parameters that one call takes."""

    def __init__(self, model: type[M]) -> None:
        self.model = model

    def read(self) -> M:
        """The query as the model. Raises Problem 400, also for parameters that the call does not know."""
        given: dict[str, str] = {}
        for name, value in request.args.items(multi=True):
            if name in given:
                raise bad_request("the query is not valid", Mistake(field=name, message="stands twice"))
            given[name] = value
        try:
            return self.model.model_validate(given)
        except ValidationError as error:
            raise bad_request("the query is not valid", *mistakes(error, given, self.model)) from None


def parse_json(data: bytes) -> Any:
    """Parse strict JSON (RFC 8259, I-JSON's rules on names and text included). Raises Problem 400."""
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 (byte {error.start})") from None
    except UnicodeEncodeError:
        raise bad_request("the body has half of a surrogate pair, which is no text") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply") from None
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    return value


async def discard_body() -> None:
    """Read the rest of a refused body, LINGER_SECONDS at most.

    Closing a connection with unread data resets it, and the client would lose the answer that says why.
    """
    with trio.move_on_after(LINGER_SECONDS):
        try:
            async for _ in request.body:
                pass
        except RequestEntityTooLarge:
            return  # more came at once than BoundedBody keeps


async def _collect(limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        _too_large(limit)
    data = bytearray()
    chunks = aiter(request.body)
    try:
        while True:
            with trio.fail_after(STALL_SECONDS):
                data += await anext(chunks)
            if len(data) > limit:
                _too_large(limit)
    except StopAsyncIteration:
        return bytes(data)
    except trio.TooSlowError:
        raise Problem(408, "body_timeout", f"no byte of the body came for {STALL_SECONDS:g} s") from None


def _too_large(limit: int) -> NoReturn:
    raise Problem(413, "body_too_large", f"this call takes at most {limit // MIB} MiB")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice[:80]!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> Callable[[str], Any]:
    raise ValueError(f"{name} is not a JSON number")
