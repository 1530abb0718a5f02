"""Stands before every page, asset, websocket and upload of the dashboard and lets nobody in who may not.

Pure ASGI: the framework behind it sees no request that has not been checked.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulletproof.dashboard.client import ApiClient
from bulletproof.dashboard.login import login_page, notice_page
from bulletproof.dashboard.sessions import Session, Sessions
from bulletproof.errors import AIError, OverloadedError, classify
from bulletproof.resilience import RateLimit
from bulletproof.service.peers import is_loopback

COOKIE = "bulletproof_dashboard"
VISIT = "bulletproof.dashboard"
_FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN_SECONDS = 30.0
_LONGEST_FORM = 16 * 1024
_TRIES_PER_MINUTE = 20
# The framework compiles its components in the browser ('unsafe-eval') and sets styles from scripts. Scripts come from
# our own files or carry the nonce of the page; nothing may be loaded from or sent to anywhere else.
_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Visit:
    """What a page gets from its guard; ``root`` is the path that the dashboard is mounted at."""

    api: ApiClient
    session: Session
    root: str


class Guard:
    """Checks each request: who it comes from, from which site, and whether a key was shown.

    Where the service wants API keys, a session is needed; it is opened by the login form with one of the keys, which
    the service itself checks. Where it wants none, only this machine is let in, under a name of this machine, so that
    no site can pose as the dashboard by rebinding its own name.
    """

    def __init__(
        self, app: ASGIApp, api: ApiClient, sessions: Sessions, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app = app
        self.api = api
        self.sessions = sessions
        self._clock = clock
        self._free: bool | None = None
        self._free_until = 0.0
        self._anyone = Session()
        self._tries = RateLimit(_TRIES_PER_MINUTE, per=60, max_wait=0, name="logins", clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = scope["type"] == "websocket"
        nonce = secrets.token_urlsafe(16)
        answer: Response | None
        session: Session | None = None
        try:
            headers = Headers(scope=scope)
            if _from_other_site(scope, headers):
                answer = _refusal(
                    "Not from here", "The request comes from another site. A proxy has to keep the Host header.", nonce
                )
            elif await self._is_free():
                session, answer = self._anyone, self._local_only(scope, headers, nonce)
            elif socket or _path(scope) not in ("/login", "/logout"):
                session, answer = self._logged_in(scope, headers)
            else:
                answer = await self._log_in_or_out(Request(scope, receive), nonce)
        except AIError as error:
            found = classify(error)
            answer = notice_page(
                "Cannot reach the service", [found.details, found.hint], nonce=nonce, status=503, refresh=5
            )
        if answer is None and session is not None:
            scope[VISIT] = Visit(self.api, session, scope.get("root_path", ""))
            await self.app(scope, receive, send if socket else _Secured(send, nonce))
        elif socket:
            await send({"type": "websocket.close", "code": 1008})
        elif answer is not None:
            await answer(scope, receive, send)

    async def _is_free(self) -> bool:
        """Whether the service answers without a key, as it does on this machine when none are set."""
        if self._free is None or self._clock() >= self._free_until:
            try:
                # Anybody may ask; only those it knows are told details.
                self._free = "components" in (await self.api.get("/health")).body
            except AIError:
                # Who was let in stays: the pages say that the service is away.
                if self._free is None:
                    raise
            self._free_until = self._clock() + _OPEN_SECONDS
        return self._free

    def _local_only(self, scope: Scope, headers: Headers, nonce: str) -> Response | None:
        peer = scope.get("client")
        if any(name in headers for name in _FORWARDING) or not peer or not is_loopback(str(peer[0])):
            why = "Without API keys the dashboard answers this machine only."
        elif not _is_local_name(headers.get("host", "")):
            why = "Without API keys the dashboard answers under localhost or 127.0.0.1 only."
        elif _path(scope) in ("/login", "/logout"):
            return RedirectResponse(_home(scope), status_code=303)
        else:
            return None
        return _refusal("Not allowed", f"{why} Set BULLETPROOF_API_KEYS to let others in.", nonce)

    def _logged_in(self, scope: Scope, headers: Headers) -> tuple[Session | None, Response | None]:
        session = self.sessions.find(_token(headers))
        if session is not None:
            return session, None
        if scope["type"] == "http" and scope["method"] == "GET" and _path(scope) == "/":
            return None, RedirectResponse(f"{_home(scope)}login", status_code=303)
        return None, Response("log in first", status_code=401, media_type="text/plain")

    async def _log_in_or_out(self, request: Request, nonce: str) -> Response:
        home = _home(request.scope)
        if _path(request.scope) == "/logout":
            if request.method != "POST":
                return RedirectResponse(home, status_code=303)
            self.sessions.close(_token(request.headers))
            response: Response = RedirectResponse(f"{home}login", status_code=303)
            response.delete_cookie(COOKIE, path=home, httponly=True, samesite="strict")
            return response
        if request.method != "POST":
            if self.sessions.find(_token(request.headers)) is not None:
                return RedirectResponse(home, status_code=303)
            return login_page(f"{home}login", nonce=nonce)
        key = await _key_sent(request)
        try:
            self._tries.reserve()
        except OverloadedError as error:
            told = f"Too many tries. Wait {error.retry_after or 1:.0f} seconds."
            return login_page(f"{home}login", nonce=nonce, problem=told, status=429)
        if not key or not (await self.api.get("/metrics", key=key)).ok:
            return login_page(f"{home}login", nonce=nonce, problem="The service does not take this key.", status=401)
        self.sessions.close(_token(request.headers))
        response = RedirectResponse(home, status_code=303)
        response.set_cookie(
            COOKIE,
            self.sessions.open(key),
            max_age=int(self.sessions.lifetime),
            path=home,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response


class _Secured:
    """Puts the content security policy on a response, and its nonce on the scripts of a page."""

    def __init__(self, send: Send, nonce: str) -> None:
        self._send = send
        self._nonce = nonce
        self._page: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["Content-Security-Policy"] = _POLICY.format(nonce=self._nonce)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "same-origin"
            if headers.get("content-type", "").startswith("text/html"):
                self._page = message
                return
        elif message["type"] == "http.response.body" and self._page is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            # Data of the page stands in it with every "<" escaped: these are the scripts of its template alone.
            body = bytes(self._body).replace(b"<script", f'<script nonce="{self._nonce}"'.encode())
            MutableHeaders(raw=self._page["headers"])["Content-Length"] = str(len(body))
            await self._send(self._page)
            message = {"type": "http.response.body", "body": body}
        await self._send(message)


def _refusal(title: str, line: str, nonce: str) -> Response:
    return notice_page(title, [line], nonce=nonce, status=403)


def _path(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path or "/"


def _home(scope: Scope) -> str:
    return f"{scope.get('root_path', '')}/"


def _token(headers: Headers) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel else None


async def _key_sent(request: Request) -> str:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LONGEST_FORM:
                return ""
    except ClientDisconnect:
        return ""
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    key = fields.get("key", [""])[0].strip()
    # A header can hold nothing else, and no key is anything else.
    return key if key.isascii() and key.isprintable() else ""


def _from_other_site(scope: Scope, headers: Headers) -> bool:
    """Whether a script or form of another site sent the request (same-site is not enough: ports share cookies)."""
    changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
    if headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site"):
        # Following a link to here is fine.
        return changes or headers.get("sec-fetch-mode") != "navigate"
    origin = headers.get("origin")
    if origin is None:
        return False
    return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name.endswith(".localhost") or is_loopback(name)
