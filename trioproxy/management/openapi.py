"""The OpenAPI 3.1 document, made from the same records that route the calls."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from quart import Response
from quart_schema import HttpSecurityScheme, Info, QuartSchema
from quart_schema.openapi import OpenAPIProvider
from quart_trio import QuartTrio
from werkzeug.routing.rules import Rule

from trioproxy import __version__
from trioproxy.management.bodies import JsonBody
from trioproxy.management.calls import Answer, Call
from trioproxy.management.problems import CONTENT_TYPE, ProblemBody
from trioproxy.routing.route import Backend, Name

Json = dict[str, Any]

_SCHEME = "token"
_PATH_PARAMETERS = {
    "session_id": "The session.",
    "service": "The service of the session.",
    "backend_id": "The backend's id, as listings show it.",
    "connection_id": "The connection's id, as /v1/connections shows it.",
    "action": "drain: no new requests; disable: neither new requests nor health checks; enable: undo both.",
    "name": "The file.",
}
_NAME: Json = TypeAdapter[Any](Name).json_schema()
_PATH_SCHEMAS = {"session_id": _NAME, "service": _NAME, "backend_id": Backend.model_json_schema()["properties"]["id"]}
"""What else is known of them than that they are strings."""
_EVERY_RESPONSE = {"X-Request-Id": "Names this request in the log."}
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "The scheme that is wanted: Bearer."},
    412: {"ETag": "The version of the table now, in quotes."},
    503: {"Retry-After": "With `overloaded`: seconds to wait before trying again."},
}
_TOKEN_WANTED = "No token came, or not the right one."  # noqa: S105 - a sentence, not a secret
_BUG = "A bug in trioproxy; it is in the log under the request id."


class Specification:
    """The call /openapi.json."""

    def __init__(self) -> None:
        self._text = b""

    def describe(self, app: QuartTrio, calls: Mapping[str, Call]) -> None:
        """Write the document. `calls` are the app's calls by endpoint; every rule of the app must be there."""

        class Provider(_Provider):
            known = calls

        class Extension(QuartSchema):
            openapi_provider_class = Provider

        extension = Extension(
            app,
            openapi_path=None,
            info=Info(
                title="trioproxy management API",
                version=__version__,
                description="Routes, traffic and state of one worker. Errors are problem documents (RFC 9457).",
            ),
            security_schemes={_SCHEME: HttpSecurityScheme(scheme="bearer")},
        )
        self._text = json.dumps(extension.openapi_provider.schema()).encode()

    async def openapi(self) -> Response:
        """Get this document."""
        return Response(self._text, 200, content_type="application/json")


def openapi_calls(specification: Specification) -> tuple[Call, ...]:
    """The call /openapi.json."""
    answers = {200: Answer("OpenAPI 3.1.", media="application/json")}
    return (Call("GET", "/openapi.json", specification.openapi, "pages", answers, public=True),)


class _Provider(OpenAPIProvider):
    """quart-schema walks the rules and puts the document together; what a rule says is said by its Call."""

    known: Mapping[str, Call]
    _schemas: Mapping[tuple[str, JsonSchemaMode], Json]

    def schema(self) -> Json:
        """Build the whole document. Takes some 100 ms."""
        # All models in one go: a model that is both taken and given becomes two components, `-Input` and `-Output`.
        wanted: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {}
        for call in self.known.values():
            for model in (call.body and call.body.model, call.query and call.query.model):
                if model is not None:
                    wanted[_key(model), "validation"] = TypeAdapter(model)
            for answer in call.answers.values():
                if answer.model is not None:
                    wanted[_key(answer.model), "serialization"] = TypeAdapter(answer.model)
        wanted[_key(ProblemBody), "serialization"] = TypeAdapter(ProblemBody)
        schemas, shared = TypeAdapter[Any].json_schemas(
            [(key, mode, adapter) for (key, mode), adapter in wanted.items()],
            ref_template="#/components/schemas/{model}",
        )
        self._schemas = schemas
        self._shared: Json = shared.get("$defs", {})
        whole: Json = {**super().schema()}  # pyright: ignore[reportUnknownMemberType]
        whole["components"]["schemas"] = self._shared
        return whole

    def build_paths(self, rule: Rule) -> tuple[Json, Json]:
        """Describe one rule."""
        call = self.known[rule.endpoint]
        summary, _, description = (inspect.getdoc(call.view) or "").partition("\n")
        operation: Json = {
            "operationId": re.sub(r"\W+", "_", call.endpoint.lower()).strip("_"),
            "summary": summary,
            "description": description.strip(),
            "tags": [call.tag],
            "security": [] if call.public else [{_SCHEME: []}],
            "parameters": [*self._path_parameters(rule), *self._query_parameters(call), *_header_parameters(call)],
            "responses": self._responses(call),
        }
        if call.body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": self._body_schema(call.body)}},
            }
        path = re.sub(r"<(?:[^:>]*:)?([^>]+)>", r"{\1}", rule.rule)
        return {path: {call.method.lower(): operation}}, {}

    def _path_parameters(self, rule: Rule) -> list[Json]:
        found: list[Json] = []
        for name, converter in rule._converters.items():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            parameter: Json = {**self.build_path_parameter(name, converter)}  # pyright: ignore[reportUnknownMemberType]
            parameter["schema"] = {**parameter["schema"], **_PATH_SCHEMAS.get(name, {})}
            found.append({**parameter, "description": _PATH_PARAMETERS[name]})
        return found

    def _query_parameters(self, call: Call) -> list[Json]:
        if call.query is None:
            return []
        schema = self._resolve(call.query.model)
        return [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": of_field.pop("description", ""),
                "schema": of_field,
            }
            for name, of_field in ((name, dict(value)) for name, value in schema["properties"].items())
        ]

    def _body_schema(self, body: JsonBody[Any]) -> Json:
        reference = self._schemas[_key(body.model), "validation"]
        if body.listed:
            bare = self._resolve(body.model)["properties"][body.listed]
            return {"anyOf": [reference, bare]}
        if body.optional:
            schema = dict(self._resolve(body.model))
            schema["required"] = [name for name in schema["required"] if name not in body.optional]
            return schema
        return reference

    def _resolve(self, model: type[BaseModel]) -> Json:
        reference: str = self._schemas[_key(model), "validation"]["$ref"]
        return self._shared[reference.rpartition("/")[2]]

    def _responses(self, call: Call) -> Json:
        responses: Json = {str(status): self._answer(answer) for status, answer in call.answers.items()}
        refusals = {**call.refusals, 500: _BUG}
        if not call.public:
            refusals[401] = _TOKEN_WANTED
        problem = {CONTENT_TYPE: {"schema": self._schemas[_key(ProblemBody), "serialization"]}}
        for status, text in sorted(refusals.items()):
            headers = _headers({**_PROBLEM_HEADERS.get(status, {}), **_EVERY_RESPONSE})
            responses[str(status)] = {"description": text, "headers": headers, "content": problem}
        return responses

    def _answer(self, answer: Answer) -> Json:
        described: Json = {
            "description": answer.description,
            "headers": _headers({**answer.headers, **_EVERY_RESPONSE}),
        }
        if answer.media is not None:
            schema: Json = {"type": "object"} if answer.media == "application/json" else {"type": "string"}
            if answer.model is not None:
                schema = self._schemas[_key(answer.model), "serialization"]
            described["content"] = {answer.media: {"schema": schema}}
        return described


def _key(model: Any) -> str:
    return f"{model.__module__}.{model.__qualname__}"


def _headers(texts: Mapping[str, str]) -> Json:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}


def _header_parameters(call: Call) -> list[Json]:
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in call.headers.items()
    ]
