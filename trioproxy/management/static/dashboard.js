"use strict";

// The page holds no data of its own: it reads /v1 with the token that this tab keeps.
const KEY = "trioproxy.token";
const PERIOD = 5000; // ms between two looks
const MAX_ROWS = 500; // per table
const MAX_ROUTES = 2000; // a longer table is only shown by session

const byId = (id) => document.getElementById(id);
let timer;
let session = "";
let routes = { query: null, etag: null, list: [] };

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function call(path, headers = {}) {
  const token = sessionStorage.getItem(KEY) ?? "";
  const response = await fetch(path, { headers: { ...headers, Authorization: `Bearer ${token}` }, cache: "no-store" });
  if (response.ok || response.status === 304) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `${path}: ${response.status}`);
}

const get = async (path) => (await call(path)).json();

async function getRoutes(query) {
  const known = routes.query === query && routes.etag ? { "If-None-Match": routes.etag } : {};
  const response = await call(`v1/routes${query}`, known);
  if (response.status !== 304) {
    routes = { query, etag: response.headers.get("ETag"), list: (await response.json()).routes };
  }
  return routes.list;
}

// --- what people read -----------------------------------------------------------------------------------

function duration(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (Math.abs(seconds) >= size) return `${Math.trunc(seconds / size)} ${unit}`;
  }
  return `${Math.trunc(seconds)} s`;
}

const ago = (at) => (at == null ? "never" : `${duration(Math.max(0, Date.now() / 1000 - at))} ago`);

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; unit++) count /= 1024;
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

const LOOKS = {
  good: ["healthy", "ready", "up", "valid"],
  bad: ["unhealthy", "ejected", "dead", "down", "expired", "not ready"],
};

function pill(text) {
  const span = document.createElement("span");
  span.textContent = text;
  span.className = `pill ${Object.keys(LOOKS).find((look) => LOOKS[look].includes(text)) ?? "fair"}`;
  return span;
}

// --- drawing: text only ever goes in as text ---------------------------------------------------------------

function row(tag, cells) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const box = document.createElement(tag);
    box.append(cell instanceof Node ? cell : String(cell ?? ""));
    line.append(box);
  }
  return line;
}

function draw(id, columns, items, cellsOf, note = "") {
  const head = document.createElement("thead");
  head.append(row("th", columns));
  const body = document.createElement("tbody");
  body.append(...items.slice(0, MAX_ROWS).map((item) => row("td", cellsOf(item))));
  const parts = [head, body];
  const hidden = items.length - MAX_ROWS;
  const text = note || (hidden > 0 ? `… and ${hidden} more` : items.length ? "" : "none");
  if (text) {
    const caption = document.createElement("caption");
    caption.textContent = text;
    parts.unshift(caption);
  }
  byId(id).replaceChildren(...parts);
}

function drawTiles(figures) {
  byId("tiles").replaceChildren(
    ...figures.map(([name, value]) => {
      const tile = document.createElement("div");
      tile.className = "tile";
      const number = document.createElement("b");
      number.textContent = value;
      const label = document.createElement("span");
      label.textContent = name;
      tile.append(number, label);
      return tile;
    }),
  );
}

function drawReady({ ready }) {
  const mark = pill(ready ? "ready" : "not ready");
  byId("ready").textContent = mark.textContent;
  byId("ready").className = mark.className;
}

function drawWorker(worker) {
  drawReady(worker);
  byId("who").textContent = `${worker.id} · ${worker.version} · up ${duration(worker.uptime)}`;
  if (!worker.ready) trouble(`Not ready: ${worker.reasons.join("; ")}`);
  draw("providers", ["name", "state", "routes", "last read", "error"], worker.providers, (provider) => [
    provider.name,
    pill(provider.up ? "up" : "down"),
    provider.routes,
    ago(provider.synced_at),
    provider.error,
  ]);
}

function drawRoutes(list, note) {
  draw(
    "routes",
    ["session", "service", "protocol", "backends", "also at", "access"],
    list,
    (route) => [
      route.session_id,
      route.service,
      route.protocol,
      route.backends.map((backend) => backend.id).join(", "),
      [route.host, route.prefix].filter(Boolean).join(", "),
      route.access.mode,
    ],
    note,
  );
}

function drawBackends(list, note) {
  draw(
    "backends",
    ["session", "service", "backend", "state", "in flight", "requests", "failures in a row", "last error"],
    list,
    (backend) => [
      backend.session_id,
      backend.service,
      backend.backend_id,
      pill(backend.state),
      backend.in_flight,
      backend.requests,
      backend.failures,
      backend.last_error ? `${backend.last_error} (${ago(backend.last_error_at)})` : "",
    ],
    note,
  );
}

function drawConnections({ total, connections }) {
  draw(
    "connections",
    ["client", "listener", "kind", "route", "request", "open for", "in", "out"],
    connections,
    (one) => [
      one.client,
      one.listener,
      one.kind,
      one.session_id ? `${one.session_id} / ${one.service}` : "",
      one.method ? `${one.method} ${one.path}` : "",
      duration(Date.now() / 1000 - one.opened_at),
      bytes(one.bytes_in),
      bytes(one.bytes_out),
    ],
    total > connections.length ? `the oldest ${connections.length} of ${total}` : "",
  );
}

function drawForwarders(list) {
  draw("forwarders", ["index", "pid", "state", "table version", "started", "restarts"], list, (forwarder) => [
    forwarder.index,
    forwarder.pid,
    pill(forwarder.state),
    forwarder.table_version,
    ago(forwarder.started_at),
    forwarder.restarts,
  ]);
}

function drawCertificates(list) {
  const now = Date.now() / 1000;
  draw("certificates", ["names", "state", "expires", "issuer", "file"], list, (certificate) => [
    certificate.names.join(", "),
    pill(certificate.not_after < now ? "expired" : certificate.self_signed ? "self-signed" : "valid"),
    `${new Date(certificate.not_after * 1000).toLocaleString()} (${duration(certificate.not_after - now)})`,
    certificate.issuer,
    certificate.source,
  ]);
}

// --- looking ----------------------------------------------------------------------------------------------

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

async function look() {
  const [worker, connections, forwarders, certificates] = await Promise.all(
    ["v1/worker", `v1/connections?limit=${MAX_ROWS}`, "v1/forwarders", "v1/certificates"].map(get),
  );
  const query = session ? `?session_id=${encodeURIComponent(session)}` : "";
  const tooMany = !session && worker.routes > MAX_ROUTES;
  const [list, { backends }] = tooMany
    ? [[], { backends: [] }]
    : await Promise.all([getRoutes(query), get(`v1/backends${query}`)]);
  trouble("");
  drawWorker(worker);
  drawTiles([
    ["routes", worker.routes],
    ["table version", worker.table_version],
    ["connections", connections.total],
    ["forwarders ready", forwarders.forwarders.filter((one) => one.state === "ready").length],
  ]);
  const note = tooMany ? `${worker.routes} routes: filter by a session to see its own` : "";
  drawRoutes(list, note);
  drawBackends(backends, note);
  drawConnections(connections);
  drawForwarders(forwarders.forwarders);
  drawCertificates(certificates.certificates);
}

function show(known) {
  byId("main").hidden = !known;
  byId("leave").hidden = !known;
  byId("enter").hidden = known;
}

function forget(reason) {
  sessionStorage.removeItem(KEY);
  routes = { query: null, etag: null, list: [] };
  trouble(reason);
  show(false);
  byId("token").focus();
}

async function round() {
  clearTimeout(timer);
  if (!sessionStorage.getItem(KEY)) {
    forget("");
    const probe = await fetch("readyz", { cache: "no-store" }).catch(() => null);
    return probe && drawReady(await probe.json());
  }
  try {
    await look();
    show(true);
  } catch (error) {
    if (error.status === 401) return forget("That is not the token.");
    trouble(`No answer: ${error.message}`);
  }
  clearTimeout(timer);
  if (byId("live").checked && !document.hidden) timer = setTimeout(round, PERIOD);
}

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("token").value.trim());
  byId("token").value = "";
  round();
});
byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  session = byId("session").value.trim();
  round();
});
byId("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const way = await get(`v1/explain?url=${encodeURIComponent(byId("url").value)}`);
    const end = way.status ? `${way.outcome}: ${way.status} ${way.code ?? ""}` : way.outcome;
    byId("steps").replaceChildren(
      ...[...way.steps, end].map((text) => Object.assign(document.createElement("li"), { textContent: text })),
    );
  } catch (error) {
    trouble(error.message);
  }
});
byId("leave").addEventListener("click", () => forget(""));
byId("live").addEventListener("change", round);
document.addEventListener("visibilitychange", round);
round();
