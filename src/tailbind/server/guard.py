"""What stands before the application: who may ask, how much and how slowly, and what headers every answer has."""

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tailbind.server.limits import Limits
from tailbind.server.metrics import OTHER, Metrics
from tailbind.server.pages import FILES

#: Paths that hold nothing of the user's: what is needed to show the page, and to see that the server is alive.
OPEN: Final = frozenset({*FILES, "/api/health", "/openapi.json"})
UPLOAD: Final = "/api/predict-file"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class Guard:
    """Lets a request through with its whole body, or answers it.

    Parameters
    ----------
    app : the application
    limits : sizes and times
    metrics : told of every answer
    key : that requests must bring; None lets all in
    hosts : names that requests may be addressed to; None allows any. A page of a stranger's that had its own name
        point to this machine is turned away by it
    paths : that answers are counted under
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        metrics: Metrics,
        key: str | None,
        hosts: Collection[str] | None,
        paths: Collection[str],
    ) -> None:
        self.app, self.limits, self.metrics, self.hosts, self.paths = app, limits, metrics, hosts, frozenset(paths)
        self._key = None if key is None else key.encode()
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, path = time.perf_counter(), scope["path"] if scope["path"] in self.paths else OTHER
        sending = _Sending(send, self.limits.send_seconds)
        held = 0
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._check_host(headers)
            self._check_key(scope["path"], headers)
            body = await self._body(scope, headers, receive)
            held = len(body)
            await self.app(scope, _replay(body, receive), sending)
        except _RefusedError as refused:
            await _answer(sending, refused)
        finally:
            self._held -= held
            self.metrics.answered(path, sending.status, time.perf_counter() - began)

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        if self.hosts is None:
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host[1:].split("]")[0] if host.startswith("[") else host.split(":")[0]
        if name not in self.hosts:
            raise _RefusedError(
                421, "This server answers to localhost only. Start it with --host to open it to others."
            )

    def _check_key(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._key is None or path in OPEN:
            return
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if not given and scheme.lower() == b"bearer":
            given = token.strip()
        if not hmac.compare_digest(given, self._key):
            raise _RefusedError(
                401,
                "A key must be sent with the request: Authorization: Bearer KEY, or X-API-Key: KEY.",
                (b"www-authenticate", b"Bearer"),
            )

    async def _body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Return the whole body; its size and the time it takes are bounded, and so is that of all together."""
        most = self.limits.upload_bytes if scope["path"] == UPLOAD else self.limits.json_bytes
        if (
            scope["method"] in ("GET", "HEAD")
            and b"content-length" not in headers
            and b"transfer-encoding" not in headers
        ):
            return b""
        told = headers.get(b"content-length", b"0")
        if not told.isdigit() or int(told) > most:
            raise _too_large(most)
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _RefusedError(400, "The request ended before its body was there.")
                    piece = message.get("body", b"")
                    size += len(piece)
                    if size > most:
                        raise _too_large(most)
                    if self._held + len(piece) > self.limits.held_bytes:
                        raise _RefusedError(
                            503, "Too much is being sent to this server. Try again.", (b"retry-after", b"5")
                        )
                    self._held += len(piece)
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        break
        except BaseException as error:
            self._held -= sum(map(len, pieces))
            if isinstance(error, TimeoutError):
                raise _RefusedError(
                    408, f"A request must be sent within {self.limits.body_seconds:g} s.", (b"connection", b"close")
                ) from None
            raise
        return b"".join(pieces)


def _too_large(most: int) -> _RefusedError:
    return _RefusedError(413, f"A request must have at most {most / 2**20:g} MiB. Send it in parts.")


class _Sending:
    """Sends an answer with this server's headers, to a client that takes it in time."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name.lower() for name, _ in message.get("headers", ())}
            added = [header for header in HEADERS if header[0] not in own]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        async with asyncio.timeout(self._seconds):
            await self._send(message)


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Return a `receive` that hands out the body that is there already, and then what the client does."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, refused: _RefusedError) -> None:
    content: dict[str, Any] = {"message": refused.message, "fields": []}
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *refused.headers]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
