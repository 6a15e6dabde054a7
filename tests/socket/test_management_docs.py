from __future__ import annotations

import os
import re
import shutil
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
from management_fake import TOKEN, FakeWorker

from trioproxy.management.app import create_app
from trioproxy.management.server import serve_management

PAGE = Path(__file__).parents[2] / "docs" / "management-api.md"


async def test_the_examples_of_the_page_work_one_after_the_other(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        assert not os.environ.get("CI"), "CI has to have curl (Debian package curl)"
        pytest.skip("curl is not installed (Debian package curl)")
    script = "set -eux\n" + "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    worker = FakeWorker()
    sock = socket.create_server(("127.0.0.1", 0))
    stop = trio.Event()
    app = create_app(worker, token=TOKEN)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(partial(serve_management, app, sock, shutdown_trigger=stop.wait))
            done = await trio.run_process(
                ["bash", "-c", script],
                cwd=tmp_path,
                env={**os.environ, "API": url, "TOKEN": TOKEN, "no_proxy": "*"},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            stop.set()
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    assert b"304\n" in done.stdout
    assert {"put_route", "patch_routes", "remove_routes", "replace_routes", "set_backend", "reload", "start_drain"} <= {
        *worker.calls
    }
    assert list(worker.catalog.of_provider("store")) == [("abc123", "jupyter")]
