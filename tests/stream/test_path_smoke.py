from trioproxy.testing import open_proxy


async def test_a_request_reaches_its_backend_and_the_answer_comes_back() -> None:
    async with open_proxy() as harness:
        backend = harness.network.listen("kernel", 8888)
        harness.set_routes([backend.route("alice", "jupyter")])
        client = await harness.send(b"GET /alice/jupyter/api?q=1 HTTP/1.1\r\nHost: hub:5050\r\n\r\n")
        kernel = await backend.accept()
        head = await kernel.read_head()
        assert head.startswith(b"GET /api?q=1 HTTP/1.1\r\nHost: hub:5050\r\nX-Forwarded-For: 192.0.2.1\r\n")
        await kernel.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        response = await client.read_response()
        assert (response.status, response.body) == (200, b"ok")
        assert harness.proxy.pool.statistics()["idle"] == 1
