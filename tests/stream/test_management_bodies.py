from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from management_client import Client, body_of
from management_fake import TOKEN, FakeWorker

from trioproxy.management import bodies

ONE = "/v1/routes/s1/jupyter"
JSON = {"Content-Type": "application/json"}
GOOD: dict[str, Any] = {"backends": [{"host": "10.0.0.5", "port": 8888}]}


async def mistakes_of(body: Any, path: str = ONE, method: str = "PUT") -> dict[str, str]:
    worker = FakeWorker()
    response = await Client(worker).call(method, path, json=body)
    assert response.status_code == 400
    assert worker.calls == []
    problem = await body_of(response)
    assert problem["code"] == "bad_request"
    return {mistake["field"]: mistake["message"] for mistake in problem["errors"]}


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"backends": [{"host": "h"}]}, "backends[0]", "port is missing"),
        ({"backends": [{"port": 1}]}, "backends[0].host", "is missing"),
        ({"backends": [{"host": "h", "port": 70000}]}, "backends[0].port", "less than or equal to 65535"),
        ({"backends": [{"host": "h", "port": 1, "wieght": 1}]}, "backends[0].wieght", "host, port, weight, tls, id"),
        ({"backends": [{"host": "h", "port": 1, "tls": {"verfiy": 1}}]}, "backends[0].tls.verfiy", "ca_file"),
        ({"backends": None}, "backends", "tuple"),
        ({"balance": "fastest"}, "balance", "'round_robin', 'least_connections'"),
        ({"timeouts": {"total": "1s"}}, "timeouts.total", "connect, response_head, stall, websocket_idle"),
        ({"timeouts": {"stall": "soon"}}, "timeouts.stall", '"250ms"'),
        ({"sticky": {"cookie": "a b"}}, "sticky.cookie", "pattern"),
        ({"metadata": []}, "metadata", "dictionary"),
        ({"wrong": 1}, "wrong", "session_id, service, protocol"),
        ({"host": "*.example.org"}, "host", "is not a host name"),
        ({"access": {"mode": "permit"}}, "access.mode", "not offered"),
        ({"retry": {"budget": "x"}}, "retry.budget", "number"),
    ],
)
async def test_a_mistake_is_told_with_its_path_and_what_is_allowed(
    change: dict[str, Any], field: str, says: str
) -> None:
    found = await mistakes_of({**GOOD, **change})
    assert list(found) == [field]
    assert says in found[field]


async def test_a_value_that_suits_no_member_of_a_union_is_one_mistake() -> None:
    found = await mistakes_of({**GOOD, "sticky": 5})
    assert list(found) == ["sticky"]
    assert "boolean" in found["sticky"]
    assert "Sticky" in found["sticky"]


async def test_several_mistakes_are_told_at_once() -> None:
    body = {
        "routes": [
            {"session_id": "a", "service": "b", "backends": []},
            {"session_id": "a/b", "service": "c", "backends": [{"host": "h", "port": 1}, {"host": "h", "port": -1}]},
            {"service": "d", "backends": []},
        ],
        "nonsense": True,
    }
    assert list(await mistakes_of(body, "/v1/routes")) == [
        "routes[1].session_id",
        "routes[1].backends[1].port",
        "routes[2].session_id",
        "nonsense",
    ]


async def test_mistakes_in_a_bare_list_and_in_a_patch_have_paths_too() -> None:
    assert list(await mistakes_of([{"session_id": "a"}], "/v1/routes")) == ["routes[0].service", "routes[0].backends"]
    body = {"upsert": [{}], "remove": [["a"], ["a", "b", "c"], "ab", ["a", ".."]]}
    found = await mistakes_of(body, "/v1/routes", "PATCH")
    assert list(found)[:3] == ["upsert[0].session_id", "upsert[0].service", "upsert[0].backends"]
    assert any(field.startswith("remove[0]") for field in found)
    assert any(field.startswith("remove[3]") for field in found)


async def test_of_very_many_mistakes_the_first_fifty_are_told_and_all_are_counted() -> None:
    response = await Client(FakeWorker()).put("/v1/routes", json=[{"session_id": "a"}] * 1000)
    body = await body_of(response)
    assert len(body["errors"]) == 50
    assert "1999 more" in body["detail"]


@pytest.mark.parametrize("value", ["null", "1", '"x"', "true", "[]"])
async def test_a_body_that_is_no_object_is_a_mistake_of_the_whole(value: str) -> None:
    response = await Client(FakeWorker()).put(ONE, data=value, headers=JSON)
    assert response.status_code == 400
    assert [mistake["field"] for mistake in (await body_of(response))["errors"]] == [""]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"backends": []} x', "is not JSON"),
        (b"{'backends': []}", "is not JSON"),
        (b'{"backends": [], "metadata": {"x": NaN}}', "NaN is not a JSON number"),
        (b'{"backends": [], "metadata": {"x": -Infinity}}', "-Infinity is not a JSON number"),
        (b'{"backends": [], "backends": []}', "'backends' stands twice"),
        (b'{"backends": [], "metadata": {"x": "\xff"}}', "is not UTF-8 (byte 36)"),
        ('{"backends": []}'.encode("utf-16"), "is not UTF-8"),
        (b'\xef\xbb\xbf{"backends": []}', "is not JSON"),
        (b'{"backends": [], "metadata": {"x": "\\ud800"}}', "surrogate"),
        (b'{"backends": [], "metadata": {"x": "\\uD800"}}', "surrogate"),
        (b'{"backends": [], "\\udc00": 1}', "surrogate"),
        (b'{"backends": [], "metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"backends": [], "metadata": {"x": ' + b"9" * 5000 + b"}}", "is not JSON"),
        (b'{"backends": [], "metadata": {"x": 1e999}}', "infinite"),
        (b'{"backends": [], "metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}", "nested deeper"),
    ],
)
async def test_what_is_not_good_json_is_a_clean_400(data: bytes, says: str) -> None:
    worker = FakeWorker()
    response = await Client(worker).put(ONE, data=data, headers=JSON)
    assert response.status_code == 400
    assert says in (await body_of(response))["detail"]
    assert worker.calls == []


async def test_text_with_whole_surrogate_pairs_is_taken() -> None:
    worker = FakeWorker()
    data = b'{"backends": [], "metadata": {"x": "\\ud83d\\ude00 \\\\ud800"}}'
    response = await Client(worker).put(ONE, data=data, headers=JSON)
    assert response.status_code == 201
    assert worker.catalog.table.routes["s1", "jupyter"].metadata == {"x": "\U0001f600 \\ud800"}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
async def test_a_body_of_another_type_is_415(kind: str) -> None:
    response = await Client(FakeWorker()).put(ONE, data=json.dumps(GOOD), headers={"Content-Type": kind})
    assert response.status_code == 415
    assert (await body_of(response))["code"] == "unsupported_media_type"


async def test_a_compressed_body_is_415() -> None:
    response = await Client(FakeWorker()).put(ONE, data=b"x", headers={**JSON, "Content-Encoding": "gzip"})
    assert response.status_code == 415


async def test_the_type_may_have_parameters_and_any_case() -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await Client(FakeWorker()).put(ONE, data=json.dumps(GOOD), headers=headers)).status_code == 201


async def test_a_route_larger_than_a_mebibyte_is_413_but_not_in_a_list_of_routes() -> None:
    client = Client(FakeWorker())
    padded = json.dumps(GOOD) + " " * bodies.MIB
    response = await client.put(ONE, data=padded, headers=JSON)
    assert response.status_code == 413
    assert (await body_of(response))["code"] == "body_too_large"
    padded = json.dumps({"routes": []}) + " " * bodies.MIB
    assert (await client.put("/v1/routes", data=padded, headers=JSON)).status_code == 200


async def test_a_body_of_exactly_a_mebibyte_is_taken() -> None:
    text = json.dumps(GOOD)
    padded = text + " " * (bodies.MIB - len(text))
    assert (await Client(FakeWorker()).put(ONE, data=padded, headers=JSON)).status_code == 201


async def test_a_body_too_large_is_413_before_it_has_come(autojump_clock: trio.testing.MockClock) -> None:
    client = Client(FakeWorker()).app.test_client()
    headers = {**JSON, "Authorization": f"Bearer {TOKEN}", "Content-Length": str(65 * bodies.MIB)}
    async with client.request("/v1/routes", method="PUT", headers=headers) as request:
        began = trio.current_time()
        response = await request.as_response()
    assert response.status_code == 413
    assert trio.current_time() - began == pytest.approx(bodies.LINGER_SECONDS)


async def test_a_body_that_nobody_reads_is_kept_only_up_to_the_bound(autojump_clock: trio.testing.MockClock) -> None:
    client = Client(FakeWorker())
    client.app.config["MAX_CONTENT_LENGTH"] = 1000
    response = await client.call("DELETE", "/v1/routes/s1/jupyter", data=b"x" * 5000)
    assert response.status_code == 404
    assert trio.current_time() < bodies.LINGER_SECONDS


async def test_a_body_that_stops_coming_is_408_after_ten_seconds(autojump_clock: trio.testing.MockClock) -> None:
    client = Client(FakeWorker()).app.test_client()
    headers = {**JSON, "Authorization": f"Bearer {TOKEN}"}
    async with client.request(ONE, method="PUT", headers=headers) as request:
        for _ in range(3):
            await request.send(b" ")
            await trio.sleep(bodies.STALL_SECONDS * 0.9)
        began = trio.current_time()
        response = await request.as_response()
    assert response.status_code == 408
    assert (await body_of(response))["code"] == "body_timeout"
    waited = bodies.STALL_SECONDS * 0.1 + bodies.LINGER_SECONDS
    assert trio.current_time() - began == pytest.approx(waited)


async def test_a_wrong_body_is_400_before_the_version_is_looked_at() -> None:
    worker = FakeWorker()
    response = await Client(worker).put("/v1/routes", json=[{"service": 5}], headers={"If-Match": '"999"'})
    assert response.status_code == 400
