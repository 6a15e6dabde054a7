"""What a person does who has just found this project: run the demo, and try it with the tools at hand."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from curl import curl, needs_curl
from processes import run
from websockets.trio.client import connect
from worker import Worker, running_worker

ROOT = Path(__file__).parents[2]
PAGE = "/demo/hello/"
SERVED = ("pyproject.toml", "README.md", "LICENSE", "trioproxy", "scripts")
"""What a copy of the project needs for `scripts/run`."""


def demo(folder: Path) -> AbstractAsyncContextManager[Worker]:
    return running_worker(folder, arguments=["--demo"])


async def echoes(worker: Worker) -> None:
    url = f"{worker.https.replace('http', 'ws')}{PAGE}ws"
    async with connect(url, ssl=worker.trust(), proxy=None, max_size=None) as websocket:
        for message in ("hello", "é𝄞", b"\0\xff", "x" * 1_000_000):
            await websocket.send(message)
            assert await websocket.recv() == message


@needs_curl
async def test_the_run_script_makes_its_environment_and_serves_the_demo(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    copy.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", ".venv*")
    for name in SERVED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        else:
            shutil.copy2(source, copy / name)
    command = [copy / "scripts" / "run"]
    async with running_worker(tmp_path / "w", command=command, start_seconds=240, seconds=300) as worker:
        page = await curl("-k", f"{worker.https}{PAGE}")
        assert (page.code, page.status) == (0, 200)
        assert b"Hello from the demo session" in page.body
        await echoes(worker)
    assert (copy / ".venv" / "bin" / "trioproxy").exists()


@needs_curl
async def test_curl_reads_the_page_in_every_way_it_knows(tmp_path: Path) -> None:
    async with demo(tmp_path) as worker:
        url = f"{worker.https}{PAGE}"
        page = await curl("-k", "--http1.1", url)
        assert (page.code, page.status) == (0, 200)
        assert b"Hello from the demo session" in page.body

        trusting = await curl("--cacert", str(worker.trusted), url)
        assert (trusting.code, trusting.status, trusting.told["ssl_verify_result"]) == (0, 200, 0)
        distrusting = await curl(url)
        assert distrusting.code == 60  # the peer's certificate is not trusted

        without_slash = await curl("-k", "-L", url.rstrip("/"))
        assert (without_slash.status, without_slash.told["num_redirects"]) == (200, 1)
        assert without_slash.told["url_effective"] == url

        head = await curl("-k", "-I", url)
        assert head.status == 200
        assert head.body.endswith(b"\r\n\r\n")
        assert b"content-length: " in head.body.lower()

        twice = await curl("-k", url, url)
        assert (twice.status, twice.told["num_connects"]) == (200, 0)


@needs_curl
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_curl_falls_back_from_http_2(tmp_path: Path, scheme: str) -> None:
    async with demo(tmp_path) as worker:
        url = worker.https if scheme == "https" else worker.http
        page = await curl("-k", "--http2", f"{url}{PAGE}headers")
        assert (page.code, page.status, page.told["http_version"]) == (0, 200, "1.1")
        names = [name.lower() for name, _ in json.loads(page.body)["headers"]]
        assert "upgrade" not in names
        assert "http2-settings" not in names


@needs_curl
async def test_curl_sends_bodies_of_every_framing_and_asks_for_ranges(tmp_path: Path) -> None:
    async with demo(tmp_path) as worker:
        url = f"{worker.https}{PAGE}headers"

        async def seen(*arguments: str, stdin: bytes = b"") -> dict[str, str]:
            answer = await curl("-k", *arguments, url, stdin=stdin)
            assert (answer.code, answer.status) == (0, 200), answer.error
            return {name.lower(): value for name, value in json.loads(answer.body)["headers"]}

        posted = await seen("--data-binary", "@-", stdin=b"x" * 5000)
        assert posted["content-length"] == "5000"
        uploaded = await seen("-T", "-", stdin=b"x" * 5_000_000)
        assert uploaded["transfer-encoding"] == "chunked"
        assert (await seen("-r", "0-9"))["range"] == "bytes=0-9"
        assert (await worker.record(method="PUT"))["bytes_in"] == 5_000_000

        # curl waits a second for an answer to its Expect, and says when it comes.
        expecting = await curl("-k", "-v", "-H", "Expect: 100-continue", "--data-binary", "@-", url, stdin=b"x" * 100)
        assert expecting.status == 200
        assert "< HTTP/1.1 100" in expecting.error


@needs_curl
async def test_curl_is_told_what_is_wrong_with_an_address(tmp_path: Path) -> None:
    async with demo(tmp_path) as worker:
        lost = await curl("-k", f"{worker.https}/nobody/home/")
        assert (lost.status, lost.told["content_type"]) == (404, "application/problem+json")
        assert json.loads(lost.body)["code"] == "no_route"
        browser = await curl("-k", "-H", "Accept: text/html", f"{worker.https}/nobody/home/")
        assert browser.told["content_type"].startswith("text/html")


async def test_the_demo_echoes_over_its_websocket(tmp_path: Path) -> None:
    async with demo(tmp_path) as worker:
        await echoes(worker)


async def test_what_the_demo_suggests_to_try_works(tmp_path: Path) -> None:
    async with demo(tmp_path) as worker:
        line = await worker.logged("trioproxy demo: try: ")
        suggested = shlex.split(line.partition("try: ")[2])
        assert suggested[0] == "trioproxy"
        done = await run([sys.executable, "-m", *suggested])
        assert done.returncode == 0, done.stderr
        assert b"ready" in done.stdout
        opened = (await worker.logged("trioproxy demo: open ")).split()[3]
        async with httpx.AsyncClient(verify=False, trust_env=False) as client:
            assert (await client.get(opened)).status_code == 200
