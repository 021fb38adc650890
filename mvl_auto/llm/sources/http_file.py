"""A file of the hub, read by HTTP range requests through huggingface_hub's own session.

The session has the user's proxies, certificates and offline mode. When a connection breaks, the rest is requested.
After a temporary failure of the server (408, 429, 5xx) the request is repeated. A server that cannot be reached at all
is given up at once, so a machine without a network waits for seconds, not minutes.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from huggingface_hub import get_session
from huggingface_hub.errors import OfflineModeIsEnabled

from mvl_auto.errors import MvlError
from mvl_auto.llm.formats.random_access import Counted, truncated
from mvl_auto.text import memory_text
from mvl_auto.version import __version__

log = logging.getLogger(__name__)
USER_AGENT = f"mvl_auto/{__version__}"
FIRST_BYTES = 1 << 15  # asked for on opening: all of a config.json, most of a header
CONNECT_TIMEOUT = 5.0  # s
SILENCE_TIMEOUT = 10.0  # s without a byte; huggingface_hub's default
TRIES = 5  # in a row that bring less than ENOUGH
ENOUGH = 1 << 20  # bytes; a try that brings so many starts the count of tries anew
FIRST_PAUSE = 0.5  # s before the second try, doubled each time
LONGEST_PAUSE = 8.0  # s
REPORT_EVERY = 10.0  # s between two lines in the log
CONTENT_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<size>\d+)")
TEMPORARY = (408, 429, 500, 502, 503, 504)  # statuses after which the request is repeated
CHECK_NETWORK = "Check the network, and HF_ENDPOINT if it is set."
TRY_AGAIN = "Run the same command again; if it fails again, download the model and give file:FOLDER."


@dataclass
class Host:
    """The server of a repository. token: of the user. reached: whether the server has answered yet."""

    repo: str
    endpoint: str
    token: str | None = None
    reached: bool = False

    @property
    def name(self) -> str:
        return f"hf:{self.repo}"

    def not_found(self, what: str) -> MvlError:
        return MvlError(
            f"{what} does not exist at {self.endpoint}, or is private",
            file=self.name,
            remedy="Check the name; for a private model run hf auth login, or set HF_TOKEN.",
        )

    def gated(self) -> MvlError:
        page = f"https://huggingface.co/{self.repo}"
        how = "use a token of the account that accepted" if self.token else "run hf auth login, or set HF_TOKEN"
        return MvlError(
            "is gated: its licence must be accepted first",
            file=self.name,
            remedy=f"Accept it at {page}, make a token at https://huggingface.co/settings/tokens, and {how}.",
        )


@dataclass
class Received:
    """content: the bytes received so far. size: of the whole file, bytes. missing: there is no such file."""

    content: bytearray = field(default_factory=bytearray)
    size: int = 0
    commit: str | None = None
    missing: bool = False


class HttpFile(Counted):
    """A file of the hub. commit: of its repository, if the server names it. bytes_read: over the network."""

    def __init__(self, host: Host, filename: str, url: str, first: Received) -> None:
        super().__init__(f"{host.name}/{filename}", first.size)
        self.host, self.url, self.commit = host, url, first.commit
        self._beginning = first.content
        self.bytes_read = len(self._beginning)

    def read(self, start: int, length: int) -> memoryview:
        self.check(start, length)
        known = self._beginning[start : start + length]
        if len(known) == length:
            return memoryview(known)
        received = fetch(self.host, self.name, self.url, start + len(known), length - len(known))
        if received.missing or received.size != self.size:
            raise MvlError("was replaced while it was being read", file=self.name, remedy="Run the same command again.")
        self.bytes_read += len(received.content)
        return memoryview(known + received.content if known else received.content)


def open_http_file(host: Host, filename: str, url: str) -> HttpFile | None:
    """Request the beginning of a file, which also gives its size. None when the repository has no such file.

    Raises MvlError when the hub cannot be reached or refuses.
    """
    first = fetch(host, f"{host.name}/{filename}", url, 0, FIRST_BYTES)
    return None if first.missing else HttpFile(host, filename, url, first)


def fetch(host: Host, name: str, url: str, start: int, length: int) -> Received:
    """The bytes from `start` to `start + length`, or to the end of the file.

    Raises MvlError when the hub cannot be reached, refuses, or the connection breaks TRIES times in a row.
    """
    received, tries = Received(), 0
    while True:
        before = len(received.content)
        broke = _request_rest(host, name, url, start, length, received)
        if broke is None:
            return received
        if not host.reached:
            raise MvlError(f"cannot be reached at {host.endpoint} ({broke})", file=name, remedy=CHECK_NETWORK)
        tries = 1 if len(received.content) - before >= ENOUGH else tries + 1
        if tries >= TRIES:
            raise MvlError(f"cannot be read, tried {tries} times ({broke})", file=name, remedy=TRY_AGAIN)
        log.info("%s: %s at byte %d of %d; asking again", name, broke, len(received.content), length)
        time.sleep(min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE))


def _request_rest(host: Host, name: str, url: str, start: int, length: int, received: Received) -> str | None:
    """Request the missing bytes and add them to `received`. None when complete, else the reason why not."""
    first, last = start + len(received.content), start + length - 1
    headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
    if host.token:
        headers["Authorization"] = f"Bearer {host.token}"
    patience = (CONNECT_TIMEOUT, SILENCE_TIMEOUT, SILENCE_TIMEOUT, CONNECT_TIMEOUT)
    try:
        with get_session().stream("GET", url, headers=headers, timeout=patience, follow_redirects=True) as answer:
            host.reached = True
            if answer.status_code in TEMPORARY:
                return f"the server answered {answer.status_code}"
            _read_head(host, name, first, answer, received)
            wanted = 0 if received.missing else min(length, received.size - start)
            _read_body(name, answer, wanted, received)
    except OfflineModeIsEnabled as error:
        raise MvlError(
            "is not in huggingface_hub's cache, and HF_HUB_OFFLINE is set", file=name, remedy="Unset it."
        ) from error
    except _list_transport_errors() as error:
        return f"{type(error).__name__}: {error}".rstrip(": ")
    return None if len(received.content) == wanted else "the connection was cut"


def _read_head(host: Host, name: str, first: int, answer: Any, received: Received) -> None:
    """Read size and commit from the headers. Raises MvlError for a refusal, or for other bytes than requested."""
    refusal = _explain_refusal(host, name, answer)
    if refusal is not None:
        raise refusal
    received.missing = answer.status_code == 404
    if received.missing:
        return
    commits = [response.headers.get("X-Repo-Commit") for response in (*answer.history, answer)]
    received.commit = next((commit for commit in commits if commit), None)
    size = _read_size(answer, first)
    if size is None:
        raise MvlError(
            f"is on a server that does not support byte ranges (status {answer.status_code})",
            file=name,
            remedy="Download the model and give file:FOLDER.",
        )
    if first > size:
        raise truncated(name, first, size)
    received.size = size


def _read_size(answer: Any, first: int) -> int | None:
    """Bytes of the whole file; None when the answer does not begin at `first`, or does not name the size."""
    if answer.status_code == 206:
        match = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        return int(match["size"]) if match and int(match["start"]) == first else None
    if answer.status_code == 416:  # the file ends at or before `first`
        size = answer.headers.get("Content-Range", "").removeprefix("bytes */")
        return int(size) if size.isdigit() and int(size) <= first else None
    size = answer.headers.get("Content-Length", "")
    return int(size) if first == 0 and size.isdigit() else None


def _read_body(name: str, answer: Any, wanted: int, received: Received) -> None:
    """Append to received.content until it has `wanted` bytes, or the answer ends."""
    if wanted == len(received.content):
        return
    reported = time.monotonic()
    for chunk in answer.iter_raw():
        received.content += chunk[: wanted - len(received.content)]
        if len(received.content) == wanted:
            return
        if time.monotonic() - reported > REPORT_EVERY:
            reported = time.monotonic()
            log.info("%s: %s of %s", name, memory_text(len(received.content)), memory_text(wanted))


def _explain_refusal(host: Host, name: str, answer: Any) -> MvlError | None:
    """The error for a refusal of the server. None for an answer with bytes, and for a missing file."""
    status, code = answer.status_code, answer.headers.get("X-Error-Code")
    if code == "GatedRepo":
        return host.gated()
    if code == "RevisionNotFound":
        return host.not_found("this revision")
    if status == 401 or code == "RepoNotFound":
        return host.not_found("the model")
    if status == 403:
        return MvlError(
            "may not be read with this account", file=name, remedy="Use a token (HF_TOKEN) that may read it."
        )
    if status in (200, 206, 404, 416):
        return None
    return MvlError(f"cannot be read: the server answered {status}", file=name, remedy=TRY_AGAIN)


def _list_transport_errors() -> tuple[type[Exception], ...]:
    """The session's exceptions when the network fails; huggingface_hub has changed its HTTP library before."""
    libraries = {cls.__module__.partition(".")[0] for cls in type(get_session()).__mro__}
    return tuple(import_module(name).HTTPError for name in libraries if name.startswith("httpx"))
