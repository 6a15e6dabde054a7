from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trio
from management_client import Client, body_of
from management_fake import FakeWorker, route

from trioproxy.control.messages import Activity
from trioproxy.errors import ProviderError
from trioproxy.management import calls
from trioproxy.routing.route import Route

BACKENDS = [{"host": "10.0.0.5", "port": 8888}]


def held(worker: FakeWorker) -> set[tuple[str, str]]:
    return set(worker.catalog.of_provider("store"))


async def test_a_listing_has_the_routes_of_all_providers_and_the_version_as_etag() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route("s1")])
    worker.catalog.replace("file", [route("s2", "tensorboard")])
    response = await Client(worker).get("/v1/routes")
    assert response.status_code == 200
    body = await body_of(response)
    assert body["version"] == worker.catalog.version
    assert response.headers["ETag"] == f'"{worker.catalog.version}"'
    assert sorted((r["session_id"], r["service"]) for r in body["routes"]) == [("s1", "jupyter"), ("s2", "tensorboard")]


async def test_a_listing_of_no_routes_is_an_empty_list() -> None:
    assert (await body_of(await Client(FakeWorker()).get("/v1/routes")))["routes"] == []


@pytest.mark.parametrize("count", [255, 256, 257, 1000])
async def test_a_listing_longer_than_one_piece_is_whole(count: int) -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(f"s{i}") for i in range(count)])
    body = await body_of(await Client(worker).get("/v1/routes"))
    assert sorted(r["session_id"] for r in body["routes"]) == sorted(f"s{i}" for i in range(count))


async def test_a_listing_lets_other_tasks_run_between_its_pieces() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(f"s{i}") for i in range(2000)])
    client = Client(worker)
    await client.get("/livez")
    turns = 0
    finished = False

    async def count_turns() -> None:
        nonlocal turns
        while not finished:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await client.app.test_client().get("/livez")
        short = turns
        await client.get("/v1/routes")
        finished = True
    assert turns - short > 2000 // 256


async def test_a_listing_can_be_put_back_unchanged() -> None:
    worker = FakeWorker()
    worker.catalog.replace(
        "store",
        [
            route("plain"),
            route(
                "all",
                "of-it",
                backends=(
                    {"host": "unix:/run/x.sock"},
                    {"host": "::1", "port": 1, "weight": 0, "tls": {"verify": False, "server_name": "b"}},
                ),
                host="App.Example.",
                prefix="/p%20q/",
                path="keep",
                balance="client_hash",
                sticky={"cookie": "c", "max_age": "1h"},
                websocket="relay",
                health={"kind": "http", "interval": "250ms"},
                timeouts={"stall": "0"},
                retry={"attempts": 0, "replay_bytes": "1KiB"},
                access={"user": "u", "allowed_client_ips": ("10.0.0.0/8",)},
                metadata={"deep": [{"ü": None}], "big": 10**30},
            ),
        ],
    )
    before = dict(worker.catalog.table.routes)
    version = worker.catalog.version
    client = Client(worker)
    listing = await (await client.get("/v1/routes")).get_data()
    response = await client.put("/v1/routes", data=listing, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, await response.get_data()
    assert dict(worker.catalog.table.routes) == before
    assert worker.catalog.version == version


@pytest.mark.parametrize("header", ['"{v}"', 'W/"{v}"', '"0", W/"{v}"', "*"])
async def test_a_listing_that_is_known_already_is_304(header: str) -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    version = worker.catalog.version
    for path in ("/v1/routes", "/v1/routes?session_id=s1", "/v1/routes/s1/jupyter"):
        response = await Client(worker).get(path, headers={"If-None-Match": header.format(v=version)})
        assert response.status_code == 304
        assert response.headers["ETag"] == f'"{version}"'
        assert await response.get_data() == b""


async def test_a_listing_that_has_changed_is_sent_again() -> None:
    worker = FakeWorker()
    client = Client(worker)
    tag = (await client.get("/v1/routes")).headers["ETag"]
    worker.catalog.change("store", upsert=[route()])
    response = await client.get("/v1/routes", headers={"If-None-Match": tag})
    assert response.status_code == 200
    assert response.headers["ETag"] != tag


async def test_a_listing_by_session_or_service_has_only_those() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route("s1"), route("s1", "ssh"), route("s2", "ssh")])
    client = Client(worker)

    async def names(query: str) -> list[tuple[str, str]]:
        body = await body_of(await client.get(f"/v1/routes?{query}"))
        return sorted((r["session_id"], r["service"]) for r in body["routes"])

    assert await names("session_id=s1") == [("s1", "jupyter"), ("s1", "ssh")]
    assert await names("service=ssh") == [("s1", "ssh"), ("s2", "ssh")]
    assert await names("session_id=s2&service=ssh") == [("s2", "ssh")]
    assert await names("session_id=nobody") == []


@pytest.mark.parametrize("position", [0, 255, 256, 511, 512, 599])
async def test_a_listing_finds_the_one_route_among_many(position: int) -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(f"s{i}") for i in range(600)])
    wanted = list(worker.catalog.table.routes)[position][0]
    body = await body_of(await Client(worker).get(f"/v1/routes?session_id={wanted}"))
    assert [r["session_id"] for r in body["routes"]] == [wanted]


async def test_a_listing_by_inactivity_has_what_was_used_before_that_and_no_etag() -> None:
    worker = FakeWorker()
    worker.started_at = 900.0
    worker.catalog.replace("store", [route("old"), route("new"), route("never")])
    worker.activity = {
        ("old", "jupyter"): Activity(1000.0, 1, 1, 0),
        ("new", "jupyter"): Activity(2000.0, 1, 1, 0),
    }
    client = Client(worker)

    async def names(instant: str) -> list[str]:
        response = await client.get(
            f"/v1/routes?inactive_since={instant}", headers={"If-None-Match": f'"{worker.catalog.version}"'}
        )
        assert response.status_code == 200
        assert "ETag" not in response.headers
        return sorted(r["session_id"] for r in (await body_of(response))["routes"])

    assert await names("900") == []
    assert await names("1000") == ["never"]
    assert await names("1000.5") == ["never", "old"]
    worker.appeared[("never", "jupyter")] = 2000.0  # a route that has just come has not been idle for long
    assert await names("1000.5") == ["old"]
    del worker.appeared[("never", "jupyter")]
    for instant in ("1970-01-01T00:20:00Z", "1970-01-01T00:20:00", "1970-01-01T01:20:00+01:00", "1970-01-01 00:20"):
        assert await names(instant) == ["never", "old"], instant
    assert await names(datetime.fromtimestamp(3000, UTC).isoformat()) == ["never", "new", "old"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("inactive_since=yesterday", "inactive_since"),
        ("inactive_since=nan", "inactive_since"),
        ("inactive_since=1e999", "inactive_since"),
        ("sesion_id=s1", "sesion_id"),
        ("service=a&service=b", "service"),
    ],
)
async def test_a_listing_by_something_else_is_400_and_names_the_parameter(query: str, field: str) -> None:
    response = await Client(FakeWorker()).get(f"/v1/routes?{query}")
    assert response.status_code == 400
    assert [mistake["field"] for mistake in (await body_of(response))["errors"]] == [field]


async def test_replacing_all_routes_says_the_version_that_holds_them() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route("gone"), route("stays")])
    body = {"version": 3, "routes": [{"session_id": name, "service": "jupyter", "backends": BACKENDS} for name in "ab"]}
    response = await Client(worker).put("/v1/routes", json=body)
    assert response.status_code == 200
    assert await body_of(response) == {"version": worker.catalog.version, "applied": True}
    assert response.headers["ETag"] == f'"{worker.catalog.version}"'
    assert held(worker) == {("a", "jupyter"), ("b", "jupyter")}


async def test_replacing_all_routes_takes_a_bare_list_too() -> None:
    worker = FakeWorker()
    response = await Client(worker).put("/v1/routes", json=[{"session_id": "a", "service": "b", "backends": []}])
    assert response.status_code == 200
    assert held(worker) == {("a", "b")}


@pytest.mark.parametrize("header", ['"{v}"', '"7", "{v}"', "*"])
async def test_replacing_all_routes_goes_through_when_the_version_matches(header: str) -> None:
    worker = FakeWorker()
    tag = header.format(v=worker.catalog.version)
    response = await Client(worker).put("/v1/routes", json=[], headers={"If-Match": tag})
    assert response.status_code == 200


@pytest.mark.parametrize("header", ['"999"', 'W/"{v}"', '"{v}x"', "", "rubbish"])
async def test_replacing_all_routes_is_412_when_the_version_does_not_match(header: str) -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    version = worker.catalog.version
    tag = header.format(v=version)
    response = await Client(worker).put("/v1/routes", json=[], headers={"If-Match": tag})
    assert response.status_code == 412
    assert response.headers["ETag"] == f'"{version}"'
    assert (await body_of(response))["code"] == "precondition_failed"
    assert held(worker) == {("s1", "jupyter")}


async def test_replacing_all_routes_is_412_when_another_write_came_first() -> None:
    worker = FakeWorker()
    tag = f'"{worker.catalog.version}"'
    replace = worker.replace_routes

    async def somebody_else_first(routes: list[Route], *, if_version: int | None = None) -> object:
        worker.catalog.change("store", upsert=[route("other")])
        return await replace(routes, if_version=if_version)

    worker.replace_routes = somebody_else_first  # type: ignore[method-assign]
    response = await Client(worker).put("/v1/routes", json=[], headers={"If-Match": tag})
    assert response.status_code == 412
    assert held(worker) == {("other", "jupyter")}


async def test_a_precondition_that_would_not_be_kept_is_refused() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    client, condition = Client(worker), {"If-Match": '"1"'}
    for response in (
        await client.patch("/v1/routes", json={}, headers=condition),
        await client.put("/v1/routes/s1/jupyter", json={"backends": []}, headers=condition),
        await client.delete("/v1/routes/s1/jupyter", headers=condition),
        await client.delete("/v1/routes/s1", headers=condition),
    ):
        assert response.status_code == 400
        assert "If-Match" in (await body_of(response))["detail"]
    assert worker.calls == []


async def test_a_patch_upserts_and_removes_in_one_version() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route("old"), route("kept")])
    version = worker.catalog.version
    body = {
        "upsert": [{"session_id": "new", "service": "ssh", "backends": BACKENDS}],
        "remove": [["old", "jupyter"], ["never", "there"]],
    }
    response = await Client(worker).patch("/v1/routes", json=body)
    assert response.status_code == 200
    assert await body_of(response) == {"version": version + 1, "applied": True}
    assert held(worker) == {("new", "ssh"), ("kept", "jupyter")}


async def test_a_patch_of_nothing_is_fine() -> None:
    worker = FakeWorker()
    response = await Client(worker).patch("/v1/routes", json={})
    assert await body_of(response) == {"version": worker.catalog.version, "applied": True}


async def test_a_patch_that_says_two_things_of_one_route_is_400() -> None:
    worker = FakeWorker()
    one = {"session_id": "a", "service": "b", "backends": []}
    client = Client(worker)
    for body, fields in (
        ({"upsert": [one, one, one]}, ["upsert[1]", "upsert[2]"]),
        ({"remove": [["a", "b"], ["c", "d"], ["a", "b"]]}, ["remove[2]"]),
        ({"upsert": [one], "remove": [["x", "y"], ["a", "b"]]}, ["remove[1]"]),
    ):
        response = await client.patch("/v1/routes", json=body)
        assert response.status_code == 400
        assert [mistake["field"] for mistake in (await body_of(response))["errors"]] == fields
    response = await client.put("/v1/routes", json=[one, one])
    assert [mistake["field"] for mistake in (await body_of(response))["errors"]] == ["routes[1]"]
    assert worker.calls == []


async def test_a_route_is_got_with_every_key() -> None:
    worker = FakeWorker()
    worker.catalog.replace("file", [route(metadata={"x": 1})])
    response = await Client(worker).get("/v1/routes/s1/jupyter")
    assert response.status_code == 200
    assert response.headers["ETag"] == f'"{worker.catalog.version}"'
    body = await body_of(response)
    assert body.keys() == Route.model_fields.keys()
    assert body["backends"][0]["id"] == "10.0.0.5:8888"
    assert body["metadata"] == {"x": 1}


async def test_a_route_is_created_with_201_and_replaced_with_200() -> None:
    worker = FakeWorker()
    client = Client(worker)
    first = await client.put("/v1/routes/s1/jupyter", json={"backends": BACKENDS})
    assert first.status_code == 201
    assert await body_of(first) == {"version": worker.catalog.version, "applied": True}
    second = await client.put("/v1/routes/s1/jupyter", json={"backends": [], "session_id": "s1", "service": "jupyter"})
    assert second.status_code == 200
    assert worker.catalog.table.routes["s1", "jupyter"].backends == ()


async def test_a_route_got_can_be_put_back() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    client = Client(worker)
    listed = await (await client.get("/v1/routes/s1/jupyter")).get_data()
    response = await client.put("/v1/routes/s1/jupyter", data=listed, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert worker.catalog.table.routes["s1", "jupyter"] == route()


async def test_a_route_whose_body_contradicts_the_path_is_400() -> None:
    worker = FakeWorker()
    response = await Client(worker).put("/v1/routes/s1/jupyter", json={"session_id": "s2", "backends": []})
    assert response.status_code == 400
    assert (await body_of(response))["errors"] == [
        {"field": "session_id", "message": "contradicts the path, which says 's1'"}
    ]
    assert worker.calls == []


async def test_a_route_from_a_file_is_hidden_by_one_from_the_api_and_comes_back() -> None:
    worker = FakeWorker()
    worker.catalog.replace("file", [route()])
    client = Client(worker)
    assert (await client.put("/v1/routes/s1/jupyter", json={"backends": []})).status_code == 201
    assert (await client.delete("/v1/routes/s1/jupyter")).status_code == 204
    assert (await body_of(await client.get("/v1/routes/s1/jupyter")))["backends"] != []


@pytest.mark.parametrize("name", ["a b", "ü", "%25", ".", "..", "x" * 129, "a%00b"])
async def test_a_name_that_no_route_can_have_is_400_to_put_and_404_to_get(name: str) -> None:
    client = Client(FakeWorker())
    response = await client.put(f"/v1/routes/s1/{name}", json={"backends": []})
    assert response.status_code == 400
    assert [mistake["field"] for mistake in (await body_of(response))["errors"]] == ["service"]
    assert (await client.get(f"/v1/routes/s1/{name}")).status_code == 404
    assert (await client.delete(f"/v1/routes/s1/{name}")).status_code == 404


async def test_a_route_is_removed() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route(), route("s2")])
    response = await Client(worker).delete("/v1/routes/s1/jupyter")
    assert response.status_code == 204
    assert await response.get_data() == b""
    assert response.headers["ETag"] == f'"{worker.catalog.version}"'
    assert held(worker) == {("s2", "jupyter")}


async def test_all_routes_of_a_session_are_removed_in_one_version() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route("s1"), route("s1", "ssh"), route("s10")])
    version = worker.catalog.version
    assert (await Client(worker).delete("/v1/routes/s1")).status_code == 204
    assert held(worker) == {("s10", "jupyter")}
    assert worker.catalog.version == version + 1


async def test_a_route_that_is_not_there_is_404() -> None:
    client = Client(FakeWorker())
    for response in (
        await client.get("/v1/routes/s1/jupyter"),
        await client.delete("/v1/routes/s1/jupyter"),
        await client.delete("/v1/routes/s1"),
    ):
        assert response.status_code == 404
        assert (await body_of(response))["code"] == "not_found"


async def test_a_route_that_goes_while_it_is_being_removed_is_404() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])

    async def too_late(keys: list[tuple[str, str]]) -> None:
        worker.catalog.replace("store", [])

    worker.remove_routes = too_late  # type: ignore[assignment, method-assign]
    client = Client(worker)
    assert (await client.delete("/v1/routes/s1/jupyter")).status_code == 404


async def test_a_route_of_another_provider_is_not_removed_and_the_provider_is_named() -> None:
    worker = FakeWorker()
    worker.catalog.replace("file", [route()])
    client = Client(worker)
    for response in (
        await client.delete("/v1/routes/s1/jupyter"),
        await client.delete("/v1/routes/s1"),
        await client.patch("/v1/routes", json={"remove": [["s1", "jupyter"]]}),
    ):
        assert response.status_code == 409
        body = await body_of(response)
        assert body["code"] == "conflict"
        assert '"file"' in body["detail"]
    assert worker.calls == []


async def test_a_change_that_is_kept_but_not_served_everywhere_yet_is_202() -> None:
    worker = FakeWorker()
    worker.applied = False
    worker.catalog.replace("store", [route("s1"), route("s2"), route("s3")])
    client = Client(worker)
    for response in (
        await client.put("/v1/routes/s4/jupyter", json={"backends": []}),
        await client.patch("/v1/routes", json={"remove": [["s1", "jupyter"]]}),
        await client.delete("/v1/routes/s2/jupyter"),
        await client.delete("/v1/routes/s3"),
        await client.put("/v1/routes", json=[]),
    ):
        assert response.status_code == 202
        body = await body_of(response)
        assert body["applied"] is False
        assert response.headers["ETag"] == f'"{body["version"]}"'


async def test_a_change_that_cannot_be_kept_is_503_and_says_why() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    worker.write_error = ProviderError("the disk is full")
    client = Client(worker)
    for response in (
        await client.put("/v1/routes/s1/jupyter", json={"backends": []}),
        await client.put("/v1/routes", json=[]),
        await client.patch("/v1/routes", json={}),
        await client.delete("/v1/routes/s1"),
        await client.delete("/v1/routes/s1/jupyter"),
    ):
        assert response.status_code == 503
        body = await body_of(response)
        assert body["code"] == "not_stored"
        assert "the disk is full" in body["detail"]


async def test_a_worker_that_does_not_answer_is_503_after_15_seconds(autojump_clock: trio.testing.MockClock) -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    worker.block = trio.Event()
    client = Client(worker)
    for method, path in (
        ("GET", "/v1/routes?inactive_since=0"),
        ("DELETE", "/v1/routes/s1/jupyter"),
        ("GET", "/v1/backends"),
        ("GET", "/v1/connections"),
        ("DELETE", "/v1/connections/c1"),
        ("POST", "/v1/backends/s1/jupyter/10.0.0.5:8888/drain"),
        ("GET", "/v1/explain?url=/x"),
        ("POST", "/v1/reload"),
        ("GET", "/metrics"),
    ):
        began = trio.current_time()
        response = await client.call(method, path)
        assert response.status_code == 503, path
        assert trio.current_time() - began == pytest.approx(calls.WORKER_SECONDS)
        assert (await body_of(response))["code"] == "overloaded"
        assert response.headers["Retry-After"] == "1"


async def test_a_change_is_finished_although_the_caller_hangs_up() -> None:
    worker = FakeWorker()
    worker.catalog.replace("store", [route()])
    worker.block = trio.Event()
    client = Client(worker)
    await client.get("/livez")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.delete, "/v1/routes/s1/jupyter")
        await trio.testing.wait_all_tasks_blocked()
        assert worker.calls == ["remove_routes"]
        nursery.cancel_scope.cancel()
        worker.block.set()
    assert worker.stopped_inside == 0
    assert held(worker) == set()
