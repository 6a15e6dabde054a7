from __future__ import annotations

import os

import pytest
from management_client import Client, body_of
from management_fake import FakeWorker, backend, connection, route

from trioproxy.config.schema import Config
from trioproxy.control.worker import CertificateInfo, ProviderInfo, Readiness
from trioproxy.errors import ConfigError

CERTIFICATE = CertificateInfo(("a.example", "b.example"), 1000.0, 2000.0, "test authority", "0a", False, "/etc/a.pem")


async def test_livez_is_200_even_when_the_worker_is_not_ready() -> None:
    worker = FakeWorker()
    worker.ready = Readiness(ready=False, reasons=("draining",))
    response = await Client(worker).get("/livez")
    assert (response.status_code, await body_of(response)) == (200, {"alive": True})


async def test_readyz_says_whether_and_why_not() -> None:
    worker = FakeWorker()
    client = Client(worker)
    response = await client.get("/readyz")
    assert (response.status_code, await body_of(response)) == (200, {"ready": True, "reasons": []})
    worker.ready = Readiness(ready=False, reasons=("draining", "no forwarder lives"))
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert await body_of(response) == {"ready": False, "reasons": ["draining", "no forwarder lives"]}


async def test_health_says_how_the_worker_is_and_nothing_secret() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    worker.known_providers = [ProviderInfo("store", True, 1, 1000.0)]
    client = Client(worker)
    body = await body_of(await client.get("/health"))
    assert body["status"] == "ok"
    assert body["table_version"] == worker.catalog.version
    assert body["providers"] == [{"name": "store", "up": True, "routes": 1}]
    assert body["forwarders"] == {"ready": 1}
    assert 99 < body["uptime"] < 200

    worker.known_providers.append(ProviderInfo("file", False, 0, None, "/etc/secret.toml: is not TOML"))
    response = await client.get("/health")
    assert response.status_code == 200
    assert (await body_of(response))["status"] == "degraded"
    assert b"secret" not in await response.get_data()

    worker.ready = Readiness(ready=False, reasons=("draining",))
    response = await client.get("/health")
    assert response.status_code == 503
    body = await body_of(response)
    assert (body["status"], body["ready"], body["reasons"]) == ("unavailable", False, ["draining"])


async def test_worker_says_who_it_is() -> None:
    config = Config.model_validate(
        {
            "worker": {"id": "w1"},
            "listeners": [{"name": "web", "bind": "0.0.0.0:5050"}, {"name": "plain", "bind": "[::]:80", "tls": "off"}],
            "management": {"token": "do-not-show-me"},
        }
    )
    worker = FakeWorker(config)
    worker.catalog.replace("store", [route(), route("s2")])
    worker.known_providers = [ProviderInfo("file", False, 0, None, "/etc/routes.toml: is not TOML")]
    response = await Client(worker).get("/v1/worker")
    body = await body_of(response)
    assert (body["id"], body["routes"], body["table_version"]) == ("w1", 2, worker.catalog.version)
    assert body["synced"] is True
    assert body["started_at"] == worker.started_at
    assert body["listeners"] == [
        {"name": "web", "bind": "0.0.0.0:5050", "tls": True},
        {"name": "plain", "bind": "[::]:80", "tls": False},
    ]
    assert body["providers"][0]["error"] == "/etc/routes.toml: is not TOML"
    assert b"do-not-show-me" not in await response.get_data()


async def test_forwarders_and_certificates_are_listed() -> None:
    worker = FakeWorker()
    worker.known_certificates = [CERTIFICATE]
    client = Client(worker)
    (forwarder,) = (await body_of(await client.get("/v1/forwarders")))["forwarders"]
    assert (forwarder["pid"], forwarder["state"], forwarder["restarts"]) == (4711, "ready", 2)
    (certificate,) = (await body_of(await client.get("/v1/certificates")))["certificates"]
    assert certificate["names"] == ["a.example", "b.example"]
    assert (certificate["not_after"], certificate["source"]) == (2000.0, "/etc/a.pem")


async def test_explain_passes_the_url_on_and_refuses_what_is_none() -> None:
    client = Client(FakeWorker())
    response = await client.get("/v1/explain?url=https%3A%2F%2Fw%2Fa%2Fb%2F%3Fx%3D1%26y")
    assert response.status_code == 200
    body = await body_of(response)
    assert body["url"] == "https://w/a/b/?x=1&y"
    assert (body["outcome"], body["status"], body["code"]) == ("refuse", 404, "no_route")
    for query, says in (("?url=ftp://x", "neither"), ("", "is missing"), ("?url=", "at least 1")):
        response = await client.get(f"/v1/explain{query}")
        assert response.status_code == 400
        (mistake,) = (await body_of(response))["errors"]
        assert mistake["field"] == "url"
        assert says in mistake["message"]


async def test_drain_begins_and_answers_at_once() -> None:
    worker = FakeWorker()
    response = await Client(worker).post("/v1/drain")
    assert (response.status_code, await body_of(response)) == (202, {"status": "draining"})
    assert worker.calls == ["start_drain"]


async def test_an_upgrade_begins_and_answers_at_once() -> None:
    worker = FakeWorker()
    response = await Client(worker).post("/v1/upgrade")
    assert (response.status_code, await body_of(response)) == (202, {"status": "upgrading", "pid": os.getpid()})
    assert worker.calls == ["start_upgrade"]


async def test_an_upgrade_that_cannot_be_is_refused_with_the_reason() -> None:
    worker = FakeWorker()
    worker.no_upgrade = "an upgrade is running already"
    response = await Client(worker).post("/v1/upgrade")
    assert response.status_code == 409
    body = await body_of(response)
    assert (body["code"], body["detail"]) == ("conflict", worker.no_upgrade)


async def test_reload_answers_when_it_is_done() -> None:
    worker = FakeWorker()
    worker.needs_restart = ("worker.id",)
    response = await Client(worker).post("/v1/reload")
    assert response.status_code == 202
    assert await body_of(response) == {"status": "reloaded", "needs_restart": ["worker.id"]}
    assert worker.calls == ["reload"]


async def test_reload_of_a_wrong_configuration_lists_what_is_wrong() -> None:
    worker = FakeWorker()
    worker.reload_error = ConfigError(["a.toml: [limits].connections: is too small", "a.toml: [x]: unknown key"])
    response = await Client(worker).post("/v1/reload")
    assert response.status_code == 400
    body = await body_of(response)
    assert body["code"] == "bad_config"
    assert body["problems"] == worker.reload_error.problems


async def test_backends_are_listed_and_filtered() -> None:
    worker = FakeWorker()
    worker.backends = (
        backend("s1", state="draining", in_flight=3),
        backend("s1", "ssh", state="unhealthy", last_error="connect_failed", last_error_at=5.0),
        backend("gone"),
    )
    worker.catalog.replace("store", [route("s1"), route("s1", "ssh"), route("unused")])
    client = Client(worker)
    listed = (await body_of(await client.get("/v1/backends")))["backends"]
    assert [(b["session_id"], b["service"], b["state"]) for b in listed] == [
        ("s1", "jupyter", "draining"),
        ("s1", "ssh", "unhealthy"),
        ("unused", "jupyter", "healthy"),
    ]
    assert listed[1]["last_error"] == "connect_failed"
    only = (await body_of(await client.get("/v1/backends?session_id=s1&service=ssh")))["backends"]
    assert [b["service"] for b in only] == ["ssh"]
    assert (await client.get("/v1/backends?limit=3")).status_code == 400


@pytest.mark.parametrize(("action", "state"), [("drain", "draining"), ("disable", "disabled"), ("enable", "enabled")])
async def test_a_backend_is_drained_disabled_and_enabled(action: str, state: str) -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(backends=({"host": "::1", "port": 80}, {"host": "unix:/run/a/b.sock"}))])
    client = Client(worker)
    for identity in ("::1:80", "run~a~b.sock"):
        response = await client.post(f"/v1/backends/s1/jupyter/{identity}/{action}")
        assert response.status_code == 200
        assert await body_of(response) == {
            "session_id": "s1",
            "service": "jupyter",
            "backend_id": identity,
            "state": state,
        }
        assert worker.backend_states[("s1", "jupyter"), identity] == state


async def test_a_backend_or_an_action_that_does_not_exist_is_404() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    client = Client(worker)
    for path in ("s1/jupyter/other/drain", "s2/jupyter/10.0.0.5:8888/drain", "s1/jupyter/10.0.0.5:8888/explode"):
        assert (await client.post(f"/v1/backends/{path}")).status_code == 404
    assert worker.backend_states == {}


async def test_connections_are_listed_oldest_first_up_to_the_limit() -> None:
    worker = FakeWorker()
    worker.live = tuple(connection(f"c{age}", 1000.0 - age) for age in (5, 30, 10))
    client = Client(worker)
    body = await body_of(await client.get("/v1/connections?limit=2"))
    assert body["total"] == 3
    assert [c["id"] for c in body["connections"]] == ["c30", "c10"]
    assert len((await body_of(await client.get("/v1/connections")))["connections"]) == 3
    for limit in ("0", "10001", "many", "-1"):
        assert (await client.get(f"/v1/connections?limit={limit}")).status_code == 400


async def test_a_connection_is_closed_once() -> None:
    worker = FakeWorker()
    worker.live = (connection("c1", 1000.0),)
    client = Client(worker)
    assert (await client.delete("/v1/connections/c1")).status_code == 204
    assert worker.closed == ["c1"]
    assert (await client.delete("/v1/connections/c2")).status_code == 404


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    client = Client(worker)
    for path in ("/livez", "/v1/routes", "/v1/worker", "/v1/events"):
        response = await client.call("HEAD", path)
        assert response.status_code == 200
        assert await response.get_data() == b""
    assert worker.watchers == []
