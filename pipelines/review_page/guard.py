"""Who may ask the server of a review, and for how much: this machine's browser, with the token of the address."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST = 1 << 20  # bytes of a request's body
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Lets only those requests through that come from the page itself.

    The Host header has to name this machine, so that a name of somebody else's that leads here is of no use; the Origin, where
    there is one, has to be the page's own; the path begins with the token; a body is JSON, and of bounded size.

    Parameters
    ----------
    app
        What is guarded.
    token
        The first part of every path.
    port
        That the server listens on.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0], HEADERS)(scope, receive, send)
            return
        body = b""
        if scope["method"] == "POST":
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MOST:
                    await PlainTextResponse("the request is too large", 413, HEADERS)(scope, receive, send)
                    return
        path = scope["path"][1 + len(self._token) :] or "/"
        inner: Scope = {**scope, "path": path, "raw_path": path.encode()}
        read = False

        async def once() -> Message:
            nonlocal read
            if not read and scope["method"] == "POST":
                read = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name for name, _ in message["headers"]}
                extra: list[Any] = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if b"cache-control" not in known:
                    extra.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self._app(inner, once, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts or len(headers.getlist("host")) != 1:
            return 421, "expected a request to this machine by its own name"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{name}" for name in self._hosts}:
            return 403, "expected a request from the page itself"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "expected a request from the page itself"
        given = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return 403, "expected the token of the address that `csip review` has printed"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "expected GET or POST"
        if scope["method"] == "POST":
            if headers.get("content-type", "").partition(";")[0] != "application/json":
                return 415, "expected application/json"
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > MOST:
                return 413, "the request is too large"
        return None
