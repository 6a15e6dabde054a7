"""What a live worker says of itself, judged by other people's tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from backends import echo_backend, websocket_backend
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from processes import run
from websockets.trio.client import connect
from worker import Worker, running_worker

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


async def make_traffic(worker: Worker, echo_port: int, ws_port: int) -> None:
    await worker.route("s", "app", echo_port)
    await worker.route("s", "ws", ws_port)
    await worker.route("s", "down", 1)
    await worker.route("s", "empty", backends=[])
    async with worker.client() as client:
        for url in (worker.http, worker.https):
            for path in ("/s/app/", "/s/down/", "/s/empty/", "/nobody/home/", "/s/app"):
                await client.get(f"{url}{path}")
            await client.post(f"{url}/s/app/", content=b"x" * 1000)
            await client.request("BREW", f"{url}/s/app/")
    async with connect(f"{worker.http.replace('http', 'ws')}/s/ws/", proxy=None) as websocket:
        await websocket.send("hello")
        await websocket.recv()


@needs_promtool
async def test_promtool_has_nothing_to_say_about_the_metrics(tmp_path: Path) -> None:
    async with echo_backend() as echo, websocket_backend() as ws, running_worker(tmp_path) as worker:
        for traffic in (False, True):
            if traffic:
                await make_traffic(worker, echo.port, ws.port)
            metrics = await worker.call("GET", "/metrics")
            checked = await run(["promtool", "check", "metrics"], stdin=metrics.content)
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
        answered = 'trioproxy_requests_total{method="GET",service="app",status="200"} 2'
        assert answered in metrics.text


async def test_the_openapi_document_is_valid_and_true(tmp_path: Path) -> None:
    async with echo_backend() as echo, websocket_backend() as ws, running_worker(tmp_path) as worker:
        await make_traffic(worker, echo.port, ws.port)
        document = (await worker.call("GET", "/openapi.json")).json()
        OpenAPIV31SpecValidator(document).validate()  # pyright: ignore[reportUnknownMemberType]
        asked = 0
        for path, operations in document["paths"].items():
            if "get" not in operations or "{" in path or path == "/v1/events":
                continue
            query = "?url=/s/app/" if path == "/v1/explain" else ""
            answer = await worker.call("GET", f"{path}{query}")
            assert answer.status_code == 200, (path, answer.text)
            announced = operations["get"]["responses"]["200"]
            for media, content in announced["content"].items():
                if "json" in media:
                    schema = {**content["schema"], "components": document["components"]}
                    Draft202012Validator(schema).validate(answer.json())  # pyright: ignore[reportUnknownMemberType]
            asked += 1
        assert asked >= 8


async def test_the_token_is_needed_for_what_is_not_public(tmp_path: Path) -> None:
    async with running_worker(tmp_path) as worker:
        worker.token = "not the token"
        assert (await worker.call("GET", "/v1/routes")).status_code == 401
        assert (await worker.call("POST", "/v1/drain")).status_code == 401
        for public in ("/livez", "/readyz", "/health", "/metrics", "/openapi.json", "/"):
            assert (await worker.call("GET", public)).status_code == 200
