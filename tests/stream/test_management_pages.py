from __future__ import annotations

import re
from typing import cast

import pytest
from management_client import Client
from management_fake import FakeWorker, backend, route

from trioproxy.control.worker import CertificateInfo, ProviderInfo
from trioproxy.management.metrics import gauges_of


async def text_of(client: Client, path: str) -> str:
    return cast(bytes, await (await client.get(path)).get_data()).decode()


@pytest.mark.parametrize("path", ["/", "/static/dashboard.css", "/static/dashboard.js"])
async def test_the_page_may_load_nothing_from_elsewhere(path: str) -> None:
    response = await Client(FakeWorker(), token=None).get(path)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(rb"https?://\w", await response.get_data())


async def test_the_page_has_no_inline_script_or_style_that_its_policy_would_block() -> None:
    page = await text_of(Client(FakeWorker()), "/")
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", page)
    assert "innerHTML" not in await text_of(Client(FakeWorker()), "/static/dashboard.js")


async def test_the_page_asks_only_for_what_the_api_has_and_finds_what_it_draws_on() -> None:
    client = Client(FakeWorker())
    page, script = await text_of(client, "/"), await text_of(client, "/static/dashboard.js")
    for asset in re.findall(r'(?:href|src)="([^"]+)"', page):
        assert (await client.get("/" + asset)).status_code == 200
    asked = set(re.findall(r"[\"`](v1/\w+)", script))
    assert asked >= {"v1/worker", "v1/routes", "v1/backends", "v1/connections", "v1/forwarders", "v1/certificates"}
    assert {"/" + path for path in asked} <= client.document["paths"].keys()
    drawn = set(re.findall(r'(?:byId|draw)\(\s*"(\w+)"', script))
    assert drawn <= set(re.findall(r'id="(\w+)"', page))


@pytest.mark.parametrize("name", ["dashboard.html", "app.py", "..%2Fapp.py", "%2e%2e/app.py"])
async def test_no_other_file_is_served(name: str) -> None:
    assert (await Client(FakeWorker()).get(f"/static/{name}")).status_code == 404


async def test_metrics_are_text_format_0_0_4_whatever_is_asked_for() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    worker.counters.service("jupyter").requests["GET", 200] += 3
    for accept in ("*/*", "application/openmetrics-text; version=1.0.0"):
        response = await Client(worker).get("/metrics", headers={"Accept": accept})
        assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
        text = (await response.get_data()).decode()
        assert 'trioproxy_requests_total{method="GET",service="jupyter",status="200"} 3.0\n' in text
        assert "trioproxy_routes 1.0\n" in text
        assert "trioproxy_forwarder_restarts_total 2.0\n" in text


async def test_gauges_are_what_the_worker_says() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(), route("unused")])
    worker.backends = (backend(state="draining"), backend("gone", state="disabled"))
    worker.known_providers = [ProviderInfo("store", True, 2, 900.0), ProviderInfo("file", False, 0, None, "gone")]
    worker.known_certificates = [
        CertificateInfo(("a", "b"), 0.0, 500.0, "i", "1", False, "rsa.pem"),
        CertificateInfo(("b",), 0.0, 400.0, "i", "2", False, "ecdsa.pem"),
    ]
    gauges = gauges_of(worker, await worker.report(), now=1000.0)
    assert (gauges.routes, gauges.table_version) == (2, worker.catalog.version)
    assert gauges.backends == {"healthy": 1, "draining": 1}
    assert (gauges.providers["store"].up, gauges.providers["store"].sync_age) == (True, 100.0)
    assert (gauges.providers["file"].up, gauges.providers["file"].sync_age) == (False, None)
    assert gauges.certificates == {"a": 500.0, "b": 400.0}
    assert (gauges.forwarders, gauges.forwarder_restarts) == ({"ready": 1}, 2)
