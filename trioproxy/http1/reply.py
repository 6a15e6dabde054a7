"""The answers the proxy gives by itself: RFC 9457 problem documents, HTML for people, redirects."""

from __future__ import annotations

import html
import json
from http import HTTPStatus

from trioproxy.errors import ProxyError
from trioproxy.http1.fields import Fields, make_field, values, write
from trioproxy.http1.head import RequestHead

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{status} {title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}}
h1{{font-size:1.4rem}}small{{color:#777}}@media(prefers-color-scheme:dark){{body{{background:#181a1b;color:#ddd}}}}</style>
</head><body><h1>{status} {title}</h1><p>{detail}</p>
<p><small>{code} &middot; request {request_id}</small></p></body></html>
"""


def _title(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"


def prefers_html(fields: Fields) -> bool:
    """Whether Accept asks for text/html before JSON (RFC 9110 §12.5.1)."""
    quality = {"html": 0.0, "json": 0.0}
    ranges: dict[str, float] = {}
    for line in values(fields, b"accept"):
        for item in line.decode("latin-1").split(","):
            media, *parameters = (part.strip().lower() for part in item.split(";"))
            q = 1.0
            for parameter in parameters:
                name, _, number = parameter.partition("=")
                if name.strip() == "q":
                    try:
                        q = float(number)
                    except ValueError:
                        q = 0.0
            ranges[media] = max(q, ranges.get(media, 0.0))
    anything = ranges.get("*/*", 0.0)
    quality["html"] = ranges.get("text/html", ranges.get("text/*", anything))
    quality["json"] = max(
        ranges.get(media, ranges.get("application/*", anything))
        for media in ("application/problem+json", "application/json")
    )
    return quality["html"] > quality["json"]


def error_reply(error: ProxyError, head: RequestHead | None, *, request_id: bytes, close: bool) -> bytes:
    """The whole response to a request that failed with this error. `head` is None when it could not be parsed."""
    status, title, shown_id = error.status, _title(error.status), request_id.decode("ascii")
    if head is not None and prefers_html(head.fields):
        kind = b"text/html; charset=utf-8"
        page = _PAGE.format(
            status=status,
            title=title,
            detail=html.escape(error.detail),
            code=error.code,
            request_id=html.escape(shown_id),
        )
        body = page.encode()
    else:
        kind = b"application/problem+json"
        problem = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "code": error.code,
            "detail": error.detail,
            "request_id": shown_id,
        }
        body = json.dumps(problem).encode() + b"\n"
    fields: Fields = [make_field(b"Content-Type", kind), make_field(b"Cache-Control", b"no-store")]
    if error.retry_after is not None:
        fields.append(make_field(b"Retry-After", b"%d" % error.retry_after))
    fields += [make_field(name, value) for name, value in error.headers]
    return _reply(status, title, fields, body, head, request_id=request_id, close=close)


def redirect_reply(location: bytes, head: RequestHead, *, request_id: bytes, close: bool) -> bytes:
    """308: the same method and body, elsewhere (RFC 9110 §15.4.9)."""
    fields = [make_field(b"Location", location)]
    return _reply(308, "Permanent Redirect", fields, b"", head, request_id=request_id, close=close)


def _reply(
    status: int, title: str, fields: Fields, body: bytes, head: RequestHead | None, *, request_id: bytes, close: bool
) -> bytes:
    out = [*fields, make_field(b"Content-Length", b"%d" % len(body)), make_field(b"X-Request-Id", request_id)]
    if close:
        out.append(make_field(b"Connection", b"close"))
    raw = write(b"HTTP/1.1 %d %b" % (status, title.encode("ascii")), out)
    return raw if head is not None and head.method == b"HEAD" else raw + body
