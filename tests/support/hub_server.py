"""A hub of our own for tests: serves a folder as the Hugging Face hub does, counts bytes, and misbehaves on request."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
BYTES = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Request:
    file: str
    revision: str
    start: int | None
    token: str | None


@dataclass
class Hub:
    """folder: what it serves, as any repository. The switches hold for requests of files named `*wrong_for`.

    cuts: after how many bytes of the body to break the connection, one for each of the next requests.
    statuses: what to answer instead, one for each of the next requests; error_code goes with them.
    """

    folder: Path
    url: str = ""
    revisions: tuple[str, ...] = ("main", COMMIT)
    wrong_for: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    error_code: str | None = None
    serves_ranges: bool = True
    tells_commit: bool = True
    redirects: bool = False
    requests: list[Request] = field(default_factory=list)
    bytes_sent: int = 0

    def files_asked(self) -> list[str]:
        return [request.file for request in self.requests]


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        match = RESOLVE.fullmatch(self.path.removeprefix("/cdn"))
        if match is None:
            return self._refuse(404, None)
        wanted = BYTES.fullmatch(self.headers.get("Range", ""))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(match["file"], match["revision"], int(wanted[1]) if wanted else None, token))
        misbehave = match["file"].endswith(self.hub.wrong_for)
        if misbehave and self.hub.statuses:
            return self._refuse(self.hub.statuses.pop(0), self.hub.error_code)
        if match["revision"] not in self.hub.revisions:
            return self._refuse(404, "RevisionNotFound")
        file = self.hub.folder / match["file"]
        if not file.is_file():
            return self._refuse(404, "EntryNotFound")
        if self.hub.redirects and not self.path.startswith("/cdn"):
            return self._redirect()
        content = file.read_bytes()
        cut = self.hub.cuts.pop(0) if misbehave and self.hub.cuts else None
        if wanted and self.hub.serves_ranges:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
            if start >= len(content):
                return self._refuse(416, None, {"Content-Range": f"bytes */{len(content)}"})
            span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
            return self._send(206, content[start:stop], cut, span)
        return self._send(200, content, cut, {})

    def _send(self, status: int, body: bytes, cut: int | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | self._commit() | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        sent = body if cut is None else body[:cut]
        try:
            self.wfile.write(sent)
            self.hub.bytes_sent += len(sent)
            if cut is not None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
        except ConnectionError:  # the client has read enough
            self.close_connection = True

    def _refuse(self, status: int, error_code: str | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        told = {"X-Error-Code": error_code} if error_code else {}
        for name, value in ((headers or {}) | told | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def _redirect(self) -> None:
        self.send_response(302)
        for name, value in (self._commit() | {"Location": f"/cdn{self.path}", "Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def _commit(self) -> dict[str, str]:
        return {"X-Repo-Commit": COMMIT} if self.hub.tells_commit and not self.path.startswith("/cdn") else {}
