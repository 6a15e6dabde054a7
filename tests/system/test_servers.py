"""Other people's servers behind a real worker."""

from __future__ import annotations

import gzip
import random
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from nginx import needs_nginx, running_nginx
from processes import eventually, free_port, listens, run, running
from worker import running_worker

from trioproxy.testing import Wire

CONTENT = random.Random(5).randbytes(300_000)


def unix(folder: Path) -> list[dict[str, Any]]:
    return [{"host": f"unix:{folder}/nginx.sock"}]


@needs_nginx
async def test_nginx_at_a_unix_socket_serves_ranges_conditions_and_compressed_text(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    async with (
        running_nginx(folder, server="gzip on; gzip_types text/plain;"),
        running_worker(tmp_path / "w") as worker,
    ):
        (folder / "www" / "file").write_bytes(CONTENT)
        (folder / "www" / "page.txt").write_text("text " * 10_000)
        await worker.route("s", "files", backends=unix(folder))
        async with worker.client(base_url=f"{worker.https}/s/files") as client:
            whole = await client.get("/file")
            assert whole.content == CONTENT
            part = await client.get("/file", headers={"Range": "bytes=1000-1999"})
            assert (part.status_code, part.content) == (206, CONTENT[1000:2000])
            assert part.headers["content-range"] == f"bytes 1000-1999/{len(CONTENT)}"
            parts = await client.get("/file", headers={"Range": "bytes=0-9,100-109"})
            assert parts.headers["content-type"].startswith("multipart/byteranges")
            same = await client.get("/file", headers={"If-None-Match": whole.headers["etag"]})
            assert (same.status_code, same.content) == (304, b"")
            head = await client.head("/file")
            assert (head.headers["content-length"], head.content) == (str(len(CONTENT)), b"")
            beyond = await client.get("/file", headers={"Range": f"bytes={len(CONTENT)}-"})
            assert beyond.status_code == 416
            async with client.stream("GET", "/page.txt", headers={"Accept-Encoding": "gzip"}) as packed:
                assert packed.headers["transfer-encoding"] == "chunked"
                data = b"".join([piece async for piece in packed.aiter_raw()])
            assert gzip.decompress(data) == b"text " * 10_000


@needs_nginx
async def test_nginx_may_redirect_by_the_clients_name_and_its_own_port(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    port = free_port()
    async with (
        running_nginx(folder, server=f"listen 127.0.0.1:{port};"),
        running_worker(tmp_path / "w") as worker,
        worker.client(follow_redirects=True) as client,
    ):
        (folder / "www" / "sub").mkdir()
        (folder / "www" / "sub" / "index.html").write_text("in the folder")
        await worker.route("s", "files", port)
        answer = await client.get(f"https://localhost:{worker.port(worker.https)}/s/files/sub")
        assert [one.status_code for one in answer.history] == [301]
        assert answer.text == "in the folder"
        assert answer.url.path == "/s/files/sub/"


@needs_nginx
async def test_nginx_behind_tls_is_verified_by_its_own_authority(tmp_path: Path, authority: Any) -> None:
    pair = authority.issue("inside.test")
    port = free_port()
    tls = f"listen 127.0.0.1:{port} ssl; ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};"
    server = f"{tls} location / {{ return 200 $ssl_server_name; }}"
    async with running_nginx(tmp_path / "nginx", server=server), running_worker(tmp_path / "w") as worker:

        async def answer(tls: Any) -> httpx.Response:
            await worker.route("s", "app", backends=[{"host": "127.0.0.1", "port": port, "tls": tls}])
            async with worker.client() as client:
                return await client.get(f"{worker.https}/s/app/")

        good = await answer({"ca_file": str(authority.ca), "server_name": "inside.test"})
        assert (good.status_code, good.text) == (200, "inside.test")
        assert (await answer({"verify": False})).status_code == 200
        for tls in (True, {"ca_file": str(authority.ca), "server_name": "other.test"}):
            refused = await answer(tls)
            assert (refused.status_code, refused.json()["code"]) == (502, "connect_failed")


@needs_nginx
async def test_nginx_that_refuses_an_upload_early_is_heard(tmp_path: Path) -> None:
    """It answers 413 and closes while the client still sends."""
    folder = tmp_path / "nginx"
    async with running_nginx(folder, server="client_max_body_size 1k;"), running_worker(tmp_path / "w") as worker:
        await worker.route("s", "files", backends=unix(folder))
        wire = Wire(await trio.open_tcp_stream("127.0.0.1", worker.port(worker.http)))
        await wire.send(b"POST /s/files/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + bytes(10_000))
        with trio.fail_after(20):
            answer = await wire.read_response()
        assert answer.status == 413
        assert b"nginx" in answer.body
        assert answer.values("connection") == [b"close"]
        await wire.aclose()


@needs_nginx
async def test_nginx_that_hangs_up_often_costs_no_request(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    server = "keepalive_requests 3; keepalive_timeout 1s;"
    async with running_nginx(folder, server=server), running_worker(tmp_path / "w") as worker:
        (folder / "www" / "file").write_bytes(b"content")
        await worker.route("s", "files", backends=unix(folder))
        async with worker.client() as client:

            async def ask() -> None:
                for _ in range(50):
                    answer = await client.get(f"{worker.http}/s/files/file")
                    assert (answer.status_code, answer.content) == (200, b"content")

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(ask)


@asynccontextmanager
async def python_http_server(folder: Path, *arguments: str) -> AsyncGenerator[int]:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", *arguments, str(port)]
    async with running(command, cwd=folder):
        await eventually(lambda: listens(port))
        yield port


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
async def test_pythons_http_server_lists_and_serves_a_folder(tmp_path: Path, protocol: str) -> None:
    folder = tmp_path / "www"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a file").write_bytes(CONTENT)
    async with python_http_server(folder, "--protocol", protocol) as port, running_worker(tmp_path / "w") as worker:
        await worker.route("s", "files", port)
        async with worker.client(base_url=f"{worker.https}/s/files", follow_redirects=True) as client:
            listing = await client.get("/sub")
            assert listing.url.path == "/s/files/sub/"
            assert "a%20file" in listing.text
            for _ in range(3):
                assert (await client.get("/sub/a%20file")).content == CONTENT
            assert (await client.get("/missing")).status_code == 404
            assert (await client.post("/", content=b"x")).status_code == 501


async def test_the_worker_serves_the_worker(tmp_path: Path) -> None:
    """Two of them in a row: what one sends, the other accepts."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    async with (
        python_http_server(folder) as port,
        running_worker(tmp_path / "inner") as inner,
        running_worker(tmp_path / "outer") as outer,
    ):
        await inner.route("b", "files", port)
        inner_port = inner.port(inner.https)
        tls = {"ca_file": str(inner.trusted), "server_name": "localhost"}
        await outer.route("a", "inner", backends=[{"host": "127.0.0.1", "port": inner_port, "tls": tls}])
        async with outer.client() as client:
            answer = await client.get(f"{outer.https}/a/inner/b/files/file")
        assert answer.content == CONTENT
        assert (await inner.record(path="/b/files/file"))["status"] == 200


async def test_a_routes_listing_made_by_the_command_line_leads_to_the_server(tmp_path: Path) -> None:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    async with python_http_server(folder) as port, running_worker(tmp_path / "w") as worker:
        where = ["-c", str(worker.config), "--management", worker.management]
        command = [sys.executable, "-m", "trioproxy", "routes", "add", "s", "files", f"127.0.0.1:{port}", *where]
        assert (await run(command)).returncode == 0
        async with worker.client() as client:
            assert (await client.get(f"{worker.https}/s/files/file")).content == b"content"
