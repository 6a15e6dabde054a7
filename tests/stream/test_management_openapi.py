from __future__ import annotations

import re
from typing import Any

from management_client import Client, body_of
from management_fake import FakeWorker
from openapi_spec_validator import OpenAPIV31SpecValidator

PARAMETER = re.compile(r"<(?:[^:>]*:)?([^>]+)>")


async def document_of(client: Client) -> dict[str, Any]:
    return await body_of(await client.get("/openapi.json"))


async def test_the_document_is_valid_openapi_3_1() -> None:
    document = await document_of(Client(FakeWorker()))
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")


async def test_the_document_has_exactly_the_paths_and_methods_that_the_app_serves() -> None:
    client = Client(FakeWorker())
    document = await document_of(client)
    served = {
        (PARAMETER.sub(r"{\1}", rule.rule), method.lower())
        for rule in client.app.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD"
    }
    documented = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert served == documented


async def test_the_document_has_the_calls_of_the_contract() -> None:
    paths = (await document_of(Client(FakeWorker())))["paths"]
    for path, methods in {
        "/livez": {"get"},
        "/readyz": {"get"},
        "/health": {"get"},
        "/metrics": {"get"},
        "/openapi.json": {"get"},
        "/": {"get"},
        "/v1/routes": {"get", "put", "patch"},
        "/v1/routes/{session_id}": {"delete"},
        "/v1/routes/{session_id}/{service}": {"get", "put", "delete"},
        "/v1/backends": {"get"},
        "/v1/backends/{session_id}/{service}/{backend_id}/{action}": {"post"},
        "/v1/connections": {"get"},
        "/v1/connections/{connection_id}": {"delete"},
        "/v1/worker": {"get"},
        "/v1/forwarders": {"get"},
        "/v1/certificates": {"get"},
        "/v1/explain": {"get"},
        "/v1/events": {"get"},
        "/v1/drain": {"post"},
        "/v1/reload": {"post"},
        "/v1/upgrade": {"post"},
    }.items():
        assert paths[path].keys() >= methods, path


async def test_the_document_asks_for_the_token_exactly_below_v1() -> None:
    document = await document_of(Client(FakeWorker()))
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["security"] == ([{"token": []}] if path.startswith("/v1/") else []), path
            assert ("401" in operation["responses"]) == path.startswith("/v1/"), path


async def test_the_document_says_what_parameters_headers_and_bodies_a_call_takes() -> None:
    paths = (await document_of(Client(FakeWorker())))["paths"]
    listing = {(p["name"], p["in"]) for p in paths["/v1/routes"]["get"]["parameters"]}
    assert listing == {
        ("session_id", "query"),
        ("service", "query"),
        ("inactive_since", "query"),
        ("If-None-Match", "header"),
    }
    assert ("If-Match", "header") in {(p["name"], p["in"]) for p in paths["/v1/routes"]["put"]["parameters"]}
    assert ("Last-Event-ID", "header") in {(p["name"], p["in"]) for p in paths["/v1/events"]["get"]["parameters"]}
    (action,) = (
        p
        for p in paths["/v1/backends/{session_id}/{service}/{backend_id}/{action}"]["post"]["parameters"]
        if p["name"] == "action"
    )
    assert sorted(action["schema"]["enum"]) == ["disable", "drain", "enable"]
    for path, methods in paths.items():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["name"] in ("session_id", "service", "backend_id") and parameter["in"] == "path":
                    assert parameter["schema"]["pattern"], path
                    assert parameter["schema"]["type"] == "string", path
    (url,) = paths["/v1/explain"]["get"]["parameters"]
    assert url["required"]
    one = paths["/v1/routes/{session_id}/{service}"]["put"]["requestBody"]
    assert one["required"]
    assert one["content"]["application/json"]["schema"]["required"] == ["backends"]
    for methods in paths.values():
        for operation in methods.values():
            assert operation["summary"].endswith("."), operation
            for problem in ("400", "401", "404", "409", "412", "413", "415"):
                if problem in operation["responses"]:
                    assert list(operation["responses"][problem]["content"]) == ["application/problem+json"]
