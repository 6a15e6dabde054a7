"""Bodies much larger than memory should be: what arrives is what was sent, and the worker does not grow by them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from backends import MIB, Body, digest_of_blocks, echo_backend
from worker import Worker, running_worker

GIB = 1024  # blocks
ALLOWANCE = 32 * MIB


async def warm_up(worker: Worker, url: str) -> None:
    """Code paths and buffers of a first request are no growth by size."""
    async with worker.client() as client:
        assert (await client.get(f"{url}/s/echo/blocks/2")).status_code == 200
        assert (await client.post(f"{url}/s/echo/", content=Body(2))).status_code == 200
    worker.forget_peak()


@pytest.mark.parametrize(
    ("kind", "tls", "count"),
    [("blocks", False, GIB), ("chunks", False, GIB), ("blocks", True, 256), ("chunks", True, 256)],
)
async def test_a_large_download_arrives_whole_in_constant_memory(
    tmp_path: Path, kind: str, tls: bool, count: int
) -> None:
    async with echo_backend() as echo, running_worker(tmp_path, seconds=240) as worker:
        await worker.route("s", "echo", echo.port)
        url = worker.https if tls else worker.http
        await warm_up(worker, url)
        before = worker.memory()
        received = hashlib.sha256()
        async with worker.client() as client, client.stream("GET", f"{url}/s/echo/{kind}/{count}") as answer:
            assert ("content-length" in answer.headers) == (kind == "blocks")
            async for data in answer.aiter_raw():
                received.update(data)
        assert worker.memory("VmHWM") - before < ALLOWANCE
        assert received.hexdigest() == digest_of_blocks(count)
        assert (await worker.record(path=f"/s/echo/{kind}/{count}"))["bytes_out"] == count * MIB


@pytest.mark.parametrize(("tls", "count"), [(False, GIB), (True, 256)])
async def test_a_large_chunked_upload_arrives_whole_in_constant_memory(tmp_path: Path, tls: bool, count: int) -> None:
    async with echo_backend() as echo, running_worker(tmp_path, seconds=240) as worker:
        await worker.route("s", "echo", echo.port)
        url = worker.https if tls else worker.http
        await warm_up(worker, url)
        before = worker.memory()
        async with worker.client() as client:
            answer = await client.post(f"{url}/s/echo/big", content=Body(count))
        assert worker.memory("VmHWM") - before < ALLOWANCE
        assert (answer.json()["length"], answer.json()["digest"]) == (count * MIB, digest_of_blocks(count))
        assert echo.asked[-1].values("transfer-encoding") == ["chunked"]
        assert (await worker.record(path="/s/echo/big"))["bytes_in"] == count * MIB
