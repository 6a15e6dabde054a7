"""A client of the management app that holds every answer against the app's own OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from management_fake import TOKEN, FakeWorker
from quart import Response
from quart_trio import QuartTrio

from trioproxy.management.app import create_app


class Client:
    """Calls the app in memory. Every answer to a documented path must be one that the document announces."""

    def __init__(self, worker: FakeWorker, *, token: str | None = TOKEN) -> None:
        self.app: QuartTrio = create_app(worker, token=TOKEN)
        self.document: dict[str, Any] = {}
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}

    async def get(self, path: str, **how: Any) -> Response:
        return await self.call("GET", path, **how)

    async def put(self, path: str, **how: Any) -> Response:
        return await self.call("PUT", path, **how)

    async def patch(self, path: str, **how: Any) -> Response:
        return await self.call("PATCH", path, **how)

    async def post(self, path: str, **how: Any) -> Response:
        return await self.call("POST", path, **how)

    async def delete(self, path: str, **how: Any) -> Response:
        return await self.call("DELETE", path, **how)

    async def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **how: Any) -> Response:
        if not self.document:
            plain = self.app.test_client()
            self.document = json.loads(await (await plain.get("/openapi.json")).get_data())
        client = self.app.test_client()
        response = await client.open(path, method=method, headers={**self._headers, **(headers or {})}, **how)
        await self._check(method, path.partition("?")[0], response)
        return response

    async def _check(self, method: str, path: str, response: Response) -> None:
        operation = self._operation(method, path)
        if operation is None:
            return
        assert str(response.status_code) in operation["responses"], (method, path, response.status_code)
        announced = operation["responses"][str(response.status_code)]
        for name in ("ETag", "Retry-After", "WWW-Authenticate"):
            assert name not in response.headers or name in announced["headers"], (name, method, path)
        data = await response.get_data()
        if "content" not in announced:
            assert data == b"", (method, path)
            return
        ((media, content),) = announced["content"].items()
        kind = response.content_type.partition(";")[0]
        assert kind == media or (media.endswith("/*") and kind.startswith(media[:-1])), (method, path, kind)
        if "json" in media:
            schema = {**content["schema"], "components": self.document["components"]}
            Draft202012Validator(schema).validate(json.loads(data))

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        parts = path.split("/")
        matching = [
            template
            for template in self.document["paths"]
            if len(names := template.split("/")) == len(parts)
            and all(name == part or (name.startswith("{") and part) for name, part in zip(names, parts, strict=True))
        ]
        exact = min(matching, key=lambda template: template.count("{"), default=None)
        return self.document["paths"][exact].get(method.lower()) if exact is not None else None


async def body_of(response: Response) -> Any:
    return json.loads(await response.get_data())
