from __future__ import annotations

import logging

import pytest
from management_client import Client, body_of
from management_fake import TOKEN, FakeWorker

from trioproxy.config.schema import Config
from trioproxy.management.app import create_app

PRIVATE = [
    ("GET", "/v1/routes"),
    ("PUT", "/v1/routes"),
    ("PATCH", "/v1/routes"),
    ("GET", "/v1/routes/a/b"),
    ("PUT", "/v1/routes/a/b"),
    ("DELETE", "/v1/routes/a/b"),
    ("DELETE", "/v1/routes/a"),
    ("GET", "/v1/backends"),
    ("POST", "/v1/backends/a/b/c/drain"),
    ("GET", "/v1/connections"),
    ("DELETE", "/v1/connections/a"),
    ("GET", "/v1/worker"),
    ("GET", "/v1/forwarders"),
    ("GET", "/v1/certificates"),
    ("GET", "/v1/explain?url=/x"),
    ("GET", "/v1/events"),
    ("POST", "/v1/drain"),
    ("POST", "/v1/reload"),
]
PUBLIC = ["/livez", "/readyz", "/health", "/openapi.json", "/", "/static/dashboard.css", "/static/dashboard.js"]


@pytest.mark.parametrize(("method", "path"), PRIVATE)
async def test_a_call_below_v1_without_the_token_is_401_and_does_nothing(method: str, path: str) -> None:
    worker = FakeWorker()
    response = await Client(worker, token=None).call(method, path)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (await body_of(response))["code"] == "unauthorized"
    assert worker.calls == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        f"token {TOKEN}",
        TOKEN,
        "Bearer \u00fc\u00ff",
        f"Bearer {TOKEN} {TOKEN}",
    ],
)
async def test_any_other_authorization_is_401(header: str) -> None:
    client = Client(FakeWorker(), token=None)
    assert (await client.get("/v1/worker", headers={"Authorization": header})).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_not_case_sensitive(scheme: str) -> None:
    client = Client(FakeWorker(), token=None)
    assert (await client.get("/v1/worker", headers={"Authorization": f"{scheme} {TOKEN}"})).status_code == 200


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/routes/a/b/c"])
async def test_below_v1_nobody_learns_what_exists_without_the_token(path: str) -> None:
    assert (await Client(FakeWorker(), token=None).get(path)).status_code == 401
    assert (await Client(FakeWorker()).get(path)).status_code == 404


@pytest.mark.parametrize("path", PUBLIC)
async def test_probes_the_document_and_the_page_need_no_token(path: str) -> None:
    assert (await Client(FakeWorker(), token=None).get(path)).status_code == 200


@pytest.mark.parametrize(("public", "status"), [(True, 200), (False, 401)])
async def test_metrics_need_the_token_as_configured(public: bool, status: int) -> None:
    worker = FakeWorker(Config.model_validate({"management": {"public_metrics": public}}))
    assert (await Client(worker, token=None).get("/metrics")).status_code == status
    assert (await Client(worker).get("/metrics")).status_code == 200


async def test_head_and_options_are_no_way_around_the_token() -> None:
    client = Client(FakeWorker(), token=None)
    for method in ("HEAD", "OPTIONS", "TRACE", "POST"):
        assert (await client.call(method, "/v1/worker")).status_code == 401


async def test_an_empty_token_is_refused_because_everybody_has_it() -> None:
    with pytest.raises(ValueError, match="token is empty"):
        create_app(FakeWorker(), token="")


async def test_a_token_that_is_not_ascii_works() -> None:
    client = create_app(FakeWorker(), token="pässword").test_client()
    assert (await client.get("/v1/worker", headers={"Authorization": "Bearer pässword"})).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/", "/v1/worker", "/v1/nothing", "/nothing"])
async def test_every_response_forbids_sniffing_and_sharing(path: str) -> None:
    response = await Client(FakeWorker()).get(path, headers={"Origin": "https://evil.example"})
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert len(response.headers["X-Request-Id"]) == 16
    assert not [name for name in response.headers.keys() if name.lower().startswith("access-control-")]  # noqa: SIM118


async def test_an_unknown_path_or_method_is_a_problem_document() -> None:
    client = Client(FakeWorker())
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/routes/", 404, "not_found"),
        ("GET", "/v1//routes", 404, "not_found"),
        ("POST", "/livez", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/routes", 405, "method_not_allowed"),
    ):
        response = await client.call(method, path)
        assert (response.status_code, response.content_type) == (status, "application/problem+json"), path
        body = await body_of(response)
        assert (body["code"], body["status"]) == (code, status)
        assert body["request_id"] == response.headers["X-Request-Id"]
        if status == 405:
            assert response.headers["Allow"]


async def test_a_bug_is_500_without_details_and_logged_with_them(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    worker.write_error = ZeroDivisionError("the secret is 42")
    response = await Client(worker).get("/v1/backends")
    assert response.status_code == 500
    body = await body_of(response)
    assert body["code"] == "internal_error"
    assert "42" not in body["detail"]
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert body["request_id"] in record.getMessage()
    assert record.exc_info is not None
    assert "the secret is 42" in str(record.exc_info[1])


async def test_changes_are_logged_and_the_token_never_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = Client(FakeWorker())
    response = await client.delete("/v1/routes/s1/with%0Anewline")
    (record,) = (record for record in caplog.records if record.name == "trioproxy.management.app")
    assert record.getMessage().startswith("DELETE '/v1/routes/s1/with\\nnewline' -> 404")
    assert response.headers["X-Request-Id"] in record.getMessage()
    assert TOKEN not in caplog.text
