"""The naming page, served to this machine alone.

Who may talk to it: a browser on this machine (the socket is bound to the loopback address) that
knows the token of this run (it is the first part of every path, so no cookie is sent along by a
page of somebody else), under this server's own name (``Host``, against names that are made to
point here) and, to change something, from this server's own page (``Origin``). Paths are keys of a
table and never names of files.
"""

from __future__ import annotations

import hmac
import json
import secrets
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from pydantic import ValidationError

from unim2_core.errors import Unim2Error
from unim2_core.showing.naming.session import NamingSession, Request

LOOPBACK = "127.0.0.1"
LONGEST_BODY = 64 * 1024
"""Bytes of a request; what the page sends has a few hundred."""
TIMEOUT_S = 20.0
"""For a browser to send its request."""

JSON, JPEG = "application/json", "image/jpeg"
PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.svg": ("page.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class NamingServer(ThreadingHTTPServer):
    """Serves one session until it is shut down.

    Attributes:
        session: what is named.
        sheets: name -> JPEG of its gallery.
        token: that a request must know.
        url: to be opened in a browser.
    """

    daemon_threads = True

    def __init__(self, session: NamingSession, port: int = 0) -> None:
        """Bind the port; 0 takes a free one.

        Raises:
            Unim2Error: the port cannot be had.
        """
        self.session = session
        self.sheets = {
            f"{cluster}-{kind}.jpg": content
            for (cluster, kind), content in session.gallery.sheets.items()
        }
        self.token = secrets.token_urlsafe(32)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise Unim2Error(
                f"the page cannot be served on port {port}",
                expected="a port of this machine that is free",
                found=str(error),
                remedy="leave --port out, or give another one",
            ) from error
        self.hosts = tuple(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))
        self.url = f"http://{self.hosts[0]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no news."""


class _Refused(Exception):
    """A request that is not answered; ``args`` are the status and why."""


class _Handler(BaseHTTPRequestHandler):
    server: NamingServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "unim2", ""
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, answer: Any) -> None:
        try:
            content, kind = answer(self._checked_path())
            self._send(HTTPStatus.OK, content, kind)
        except _Refused as refused:
            status, why = refused.args
            self.close_connection = True  # a body may be left unread
            self._send(status, _json({"error": why}), JSON)

    def _checked_path(self) -> str:
        """What follows the token."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN, "this name does not belong to this server")
        token, slash, path = self.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(
                HTTPStatus.FORBIDDEN, "open the address that unim2 name printed: this is another"
            )
        return path

    def _get(self, path: str) -> tuple[bytes, str]:
        session = self.server.session
        if path in PAGE:
            name, kind = PAGE[path]
            return _page(name), kind
        if path == "about.json":
            return _json(session.about() | {"state": session.state()}), JSON
        if path == "thumbs.jpg":
            return session.gallery.thumbs, JPEG
        sheet = self.server.sheets.get(path)
        if sheet is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        return sheet, JPEG

    def _post(self, path: str) -> tuple[bytes, str]:
        if self.headers.get("Origin") not in [f"http://{host}" for host in self.server.hosts]:
            raise _Refused(HTTPStatus.FORBIDDEN, "only the page itself may change something")
        if path != "edit":
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        if self.headers.get_content_type() != JSON:
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
        try:
            request = Request.model_validate_json(self._body())
        except ValidationError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, error.errors()[0]["msg"]) from error
        try:
            return _json(self.server.session.ask(request)), JSON
        except Unim2Error as error:
            raise _Refused(HTTPStatus.CONFLICT, _sentence(error)) from error

    def _body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(lengths) != 1 or not lengths[0].isdecimal():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "expected one Content-Length")
        length = int(lengths[0][:20])
        if length > LONGEST_BODY:
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {LONGEST_BODY} bytes"
            )
        return self.rfile.read(length)

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the path holds the token."""


@cache
def _page(name: str) -> bytes:
    return (files(__package__) / name).read_bytes()


def _json(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


def _sentence(error: Unim2Error) -> str:
    parts = [error.what, error.found and f"found {error.found}", error.remedy]
    return "; ".join(part for part in parts if part)
