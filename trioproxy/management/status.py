"""Calls on the worker itself: health, identity, forwarders, certificates, explain, drain, reload, upgrade."""

from __future__ import annotations

import os
import time
from collections import Counter

from pydantic import TypeAdapter
from quart import Response

from trioproxy import __version__
from trioproxy.control.worker import Explanation, Worker
from trioproxy.errors import ConfigError
from trioproxy.management.bodies import Query
from trioproxy.management.calls import Answer, Call, ask, reply, tell
from trioproxy.management.models import (
    Alive,
    CertificateList,
    Draining,
    ExplainQuery,
    ForwarderList,
    Health,
    Listener,
    ProviderHealth,
    Ready,
    Reloaded,
    Upgrading,
    WorkerStatus,
)
from trioproxy.management.problems import Mistake, Problem, bad_request

_EXPLAIN = Query(ExplainQuery)
_explanation = TypeAdapter(Explanation)


class HealthCalls:
    """The probes: they need no token, wait for nobody, and tell nothing that is not for everyone."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def livez(self) -> Response:
        """Tell that this process answers."""
        return reply(Alive())

    async def readyz(self) -> Response:
        """Tell whether this worker should get traffic."""
        readiness = self._worker.readiness()
        body = Ready(ready=readiness.ready, reasons=list(readiness.reasons))
        return reply(body, 200 if readiness.ready else 503)

    async def health(self) -> Response:
        """Tell how this worker is, at a glance."""
        worker = self._worker
        readiness = worker.readiness()
        providers = [ProviderHealth(name=p.name, up=p.up, routes=p.routes) for p in worker.providers()]
        failing = any(not provider.up for provider in providers)
        body = Health(
            status="unavailable" if not readiness.ready else "degraded" if failing else "ok",
            ready=readiness.ready,
            reasons=list(readiness.reasons),
            version=__version__,
            uptime=_uptime(worker),
            table_version=worker.catalog.version,
            providers=providers,
            forwarders=dict(Counter(forwarder.state for forwarder in worker.forwarders())),
        )
        return reply(body, 200 if readiness.ready else 503)


class WorkerCalls:
    """Calls on the worker as a whole."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def get_worker(self) -> Response:
        """Get who this worker is and how it is."""
        worker = self._worker
        readiness = worker.readiness()
        table = worker.catalog.table
        return reply(
            WorkerStatus(
                id=worker.config.worker.id,
                version=__version__,
                started_at=worker.started_at,
                uptime=_uptime(worker),
                ready=readiness.ready,
                reasons=list(readiness.reasons),
                table_version=table.version,
                synced=table.synced,
                routes=len(table.routes),
                listeners=[Listener(name=x.name, bind=x.bind, tls=x.tls == "auto") for x in worker.config.listeners],
                providers=worker.providers(),
                pid=os.getpid(),
                upgrade=worker.upgrade,
            )
        )

    async def list_forwarders(self) -> Response:
        """List the processes that carry traffic."""
        return reply(ForwarderList(forwarders=self._worker.forwarders()))

    async def list_certificates(self) -> Response:
        """List the certificates in use on the listeners."""
        return reply(CertificateList(certificates=self._worker.certificates()))

    async def explain(self) -> Response:
        """Explain which way a URL would go: route, backends and their health, or why it would fail."""
        url = _EXPLAIN.read().url
        try:
            explanation = await ask(self._worker.explain, url)
        except ValueError as error:
            raise bad_request("the query is not valid", Mistake(field="url", message=str(error))) from None
        return Response(_explanation.dump_json(explanation), 200, content_type="application/json")

    async def drain(self) -> Response:
        """Begin to shut down: readyz turns 503, what runs may end, then the worker exits."""
        self._worker.start_drain()
        return reply(Draining(), 202)

    async def upgrade(self) -> Response:
        """Start a new generation of the program, with the code that is installed now, and hand over to it.

        Once it serves, another `pid` answers `GET /v1/worker`, and this generation drains. When it fails this one goes
        on, and `upgrade` there tells why. The management API pauses for a moment meanwhile; calls wait.
        """
        refusal = self._worker.start_upgrade()
        if refusal is not None:
            raise Problem(409, "conflict", refusal)
        return reply(Upgrading(pid=os.getpid()), 202)

    async def reload(self) -> Response:
        """Read configuration, certificates and route files again.

        When they are wrong nothing changes, and `problems` lists what is.
        """
        try:
            needs_restart = await tell(self._worker.reload)
        except ConfigError as error:
            raise Problem(
                400,
                "bad_config",
                f"nothing was changed: the configuration has {len(error.problems)} problem(s)",
                problems=error.problems,
            ) from None
        return reply(Reloaded(needs_restart=list(needs_restart)), 202)


def _uptime(worker: Worker) -> float:
    return max(0.0, time.time() - worker.started_at)


_SLOW = "`overloaded`: the worker is too slow."


def status_calls(worker: Worker) -> tuple[Call, ...]:
    """The calls on the worker itself."""
    probe, do = HealthCalls(worker), WorkerCalls(worker)
    return (
        Call("GET", "/livez", probe.livez, "health", {200: Answer("It does.", Alive)}, public=True),
        Call(
            "GET",
            "/readyz",
            probe.readyz,
            "health",
            {200: Answer("It should.", Ready), 503: Answer("It should not; `reasons` says why.", Ready)},
            public=True,
        ),
        Call(
            "GET",
            "/health",
            probe.health,
            "health",
            {200: Answer("It is ready.", Health), 503: Answer("It is not ready.", Health)},
            public=True,
        ),
        Call("GET", "/v1/worker", do.get_worker, "worker", {200: Answer("The worker.", WorkerStatus)}),
        Call("GET", "/v1/forwarders", do.list_forwarders, "worker", {200: Answer("The forwarders.", ForwarderList)}),
        Call(
            "GET",
            "/v1/certificates",
            do.list_certificates,
            "worker",
            {200: Answer("The certificates.", CertificateList)},
        ),
        Call(
            "GET",
            "/v1/explain",
            do.explain,
            "worker",
            {200: Answer("The way.", Explanation)},
            {400: "`url` is neither an http(s) URL nor a path.", 503: _SLOW},
            query=_EXPLAIN,
        ),
        Call("POST", "/v1/drain", do.drain, "worker", {202: Answer("It has begun.", Draining)}),
        Call(
            "POST",
            "/v1/upgrade",
            do.upgrade,
            "worker",
            {202: Answer("It has begun.", Upgrading)},
            {409: "One is running already, the worker is shutting down, or it cannot be upgraded at all."},
        ),
        Call(
            "POST",
            "/v1/reload",
            do.reload,
            "worker",
            {202: Answer("Read, and in force.", Reloaded)},
            {400: "The configuration is wrong: `problems` lists how. Nothing was changed.", 503: _SLOW},
        ),
    )
