"""nginx as a backend: Debian's binary with a configuration of the test's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from processes import Program, eventually, running

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    types {{ text/plain txt; }}
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
    server {{
        listen unix:{folder}/nginx.sock;
        root {folder}/www;
        {server}
    }}
}}
"""


@asynccontextmanager
async def running_nginx(folder: Path, *, server: str = "", http: str = "") -> AsyncGenerator[Program]:
    """One nginx process that serves `folder`/www at the socket `folder`/nginx.sock; `server` are more directives."""
    assert NGINX is not None
    (folder / "www").mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, server=server, http=http))
    async with running([NGINX, "-e", "stderr", "-p", folder, "-c", config]) as program:
        socket = folder / "nginx.sock"

        async def is_up() -> bool:
            if program.code is not None:
                raise EOFError("\n".join(program.stderr.lines))
            with suppress(OSError):
                stream = await trio.open_unix_socket(str(socket))
                await stream.aclose()
                return True
            await trio.lowlevel.checkpoint()
            return False

        await eventually(is_up)
        yield program
