r"""A proxy, its clients and its backends in one trio program, without a socket.

For tests of code that lives behind or in front of a reverse proxy, and of trioproxy itself. Everything runs on
memory streams, so `trio.testing.MockClock` works, and nothing is left behind when the block ends.

    async def test_a_backend_that_is_slow_to_answer(autojump_clock):
        async with open_proxy() as harness:
            backend = harness.network.listen("kernel", 8888)
            harness.set_routes([backend.route("alice", "jupyter")])
            client = await harness.connect()
            await client.send(b"GET /alice/jupyter/api HTTP/1.1\r\nHost: hub\r\n\r\n")
            kernel = await backend.accept()
            assert (await kernel.read_head()).startswith(b"GET /api HTTP/1.1")
            await kernel.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert (await client.read_response()).body == b"ok"

`open_proxy` gives a `Harness`. `MemoryNetwork` is where it dials, `MemoryBackend` accepts there, and a `Wire` is a
test's own end of any connection.
"""

from trioproxy.testing.harness import Harness, open_proxy
from trioproxy.testing.network import MemoryBackend, MemoryNetwork
from trioproxy.testing.wire import Response, Wire

__all__ = ["Harness", "MemoryBackend", "MemoryNetwork", "Response", "Wire", "open_proxy"]
