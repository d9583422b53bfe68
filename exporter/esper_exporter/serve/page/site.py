"""The page's routes: its files, its JSON, and the replay's controls.

The page loads nothing from other origins and has no inline script or style, so the
Content-Security-Policy allows this server's files only.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2s
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs

from isal import igzip

from esper_exporter.assets import assets
from esper_exporter.serve.messages import (
    Answer,
    Fields,
    Headers,
    Request,
    Route,
    SharedRoute,
    plain,
)
from esper_exporter.serve.negotiation import accepts_gzip
from esper_exporter.serve.page.api import Busy, Replay
from esper_exporter.serve.page.shared_answers import Found

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURE: Fields = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
SECURE_PART: Fields = ((b"cross-origin-resource-policy", b"same-origin"),)
"""For scripts, styles and pictures: the page's policy is what governs them, and twenty copies of it
would be a tenth of what the page loads."""
TYPES = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "txt": b"text/plain; charset=utf-8",
}
JSON_TYPE = (b"content-type", b"application/json")
SMALLEST_COMPRESSED = 512
LONGEST_QUERY = 2048
OWN_SITES = (b"same-origin", b"none")

_STATIC = resources.files(__package__) / "static"


class PageData(Protocol):
    """What answers the page's requests: the runs of one process (`PageApi`), or of a node."""

    @property
    def replay(self) -> Replay | None:
        """The recording that is played, None for live runs."""

    def now(self) -> float:
        """Unix seconds, so that a viewer knows how old an answer is."""

    def state(self, key: str, env_id: int | None, known: str, since: str | None) -> Found:
        """The answer's ETag and body; no body where ``known`` equals the ETag. Raises Busy."""

    def at_once(self, key: str, env_id: int | None, known: str, since: str | None) -> Found | None:
        """`state` where another viewer has just had the answer, else None; never waits."""

    def history(self, key: str, since: str) -> bytes:
        """A run's history since the cursor of an earlier answer. Raises Busy."""

    def compressed(self, body: bytes) -> bytes:
        """A state's body in gzip, compressed once for all who share it."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A static file: its bytes, plain and compressed, and its ETag."""

    body: bytes
    compressed: bytes
    etag: bytes
    type: bytes


@cache
def page_names() -> tuple[str, ...]:
    """The page's files, by their path below ``/page/``."""
    return tuple(_names(_STATIC, ""))


def _names(folder: Traversable, above: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{above}{entry.name}/")
        elif entry.name.rpartition(".")[2] in TYPES:
            yield above + entry.name


@cache
def page_file(name: str) -> PageFile:
    """One of `page_names`; read at the first request, then cached."""
    body = _STATIC.joinpath(name).read_bytes()
    tag = f'"{blake2s(body, digest_size=8).hexdigest()}"'.encode()
    return PageFile(body, gzip.compress(body, 9, mtime=0), tag, TYPES[name.rpartition(".")[2]])


@cache
def schema(name: str) -> bytes:
    """The JSON Schema of an answer (``state`` or ``history``)."""
    return (resources.files(__package__) / "schema" / f"{name}.v1.json").read_bytes()


@cache
def runbooks() -> Mapping[str, Path]:
    """The runbooks by file name."""
    return {
        name.name: path
        for name, path in assets().items()
        if name.suffix == ".md" and name.parent.name == "runbooks"
    }


def page_routes(api: PageData) -> Mapping[str, Route]:
    """All routes of the page: ``/``, its files below ``/page/``, its JSON below ``/api/v1/``."""
    return {
        **{f"/page/{name}": partial(_file, name) for name in page_names()},
        "/": partial(_file, "index.html"),
        # Twice: as the page links them, and as the alerts' paths name them.
        **{
            f"/page/{folder}/{name}": partial(_runbook, name)
            for folder in ("runbooks", "alerts/runbooks")
            for name in runbooks()
        },
        "/api/v1/state": SharedRoute(_own(partial(_state, api)), partial(_shared_state, api)),
        "/api/v1/history": _own(partial(_history, api)),
        "/api/v1/replay": _own(partial(_replay, api)),
        "/api/v1/schema/state": partial(_schema, "state"),
        "/api/v1/schema/history": partial(_schema, "history"),
    }


def _own(route: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    """Refuse requests from other sites' pages."""

    def checked(request: Request) -> Answer:
        if not _from_own_page(request.headers):
            return _text(403, "This address answers requests from its own page only.")
        try:
            return route(request)
        except Busy:
            return _text(503, "The exporter's state is busy; try again.", (b"retry-after", b"1"))

    return checked


def _from_own_page(headers: Headers) -> bool:
    site = headers.get(b"sec-fetch-site", b"none")
    return site in OWN_SITES and not _foreign_origin(headers)


def _foreign_origin(headers: Headers) -> bool:
    """Whether a script of another origin sent the request, by Sec-Fetch-Site and Origin."""
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host", b"")


def _asked(request: Request) -> dict[str, str]:
    try:
        found = parse_qs(request.query[:LONGEST_QUERY], max_num_fields=16)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in found.items()}


def _state(api: PageData, request: Request) -> Answer:
    return _state_answer(api, request, *api.state(*_asked_state(request)))


def _shared_state(api: PageData, request: Request) -> Answer | None:
    if not _from_own_page(request.headers):
        return None
    found = api.at_once(*_asked_state(request))
    return None if found is None else _state_answer(api, request, *found)


def _asked_state(request: Request) -> tuple[str, int | None, str, str | None]:
    asked = _asked(request)
    env = asked.get("env", "")
    env_id = int(env) if env.isascii() and env.isdecimal() and len(env) < 7 else None
    known = request.headers.get(b"if-none-match", b"").decode("latin-1")
    return asked.get("run", ""), env_id, known, asked.get("since")


def _state_answer(api: PageData, request: Request, etag: str, body: bytes | None) -> Answer:
    now = b"%.3f" % api.now()
    fields: Fields = ((b"cache-control", b"no-cache"), (b"esper-now", now))
    if body is None:
        return Answer(304, b"", (*fields, (b"etag", etag.encode())))
    return _json(request, body, fields, etag.encode(), api.compressed)


def _history(api: PageData, request: Request) -> Answer:
    asked = _asked(request)
    history = api.history(asked.get("run", ""), asked.get("since", ""))
    return _json(request, history, squeeze=_squeeze_well)


def _replay(api: PageData, request: Request) -> Answer:
    """The controls of a replay; a live run has none."""
    replay = api.replay
    if replay is None:
        return _text(404, "This exporter is not replaying a recording.")
    if request.method != "POST":
        return _text(405, "Use POST to control the replay.", (b"allow", b"POST"))
    asked = _asked(request)
    try:
        for action in ("pause", "speed", "seek"):
            if action in asked:
                replay.command(action, asked[action])
    except ValueError as problem:
        return _text(400, str(problem))
    return Answer(204, b"", SECURE)


def _schema(name: str, request: Request) -> Answer:
    return _json(request, schema(name))


def _text(status: int, text: str, *fields: tuple[bytes, bytes]) -> Answer:
    return plain(status, text, *SECURE, *fields)


def _compressed(request: Request) -> bool:
    return accepts_gzip(request.headers.get(b"accept-encoding"))


def _squeeze(body: bytes) -> bytes:
    return bytes(igzip.compress(body, 1))


def _squeeze_well(body: bytes) -> bytes:
    """A tenth smaller than `_squeeze`, for what a viewer asks once; zlib leaves the interpreter to
    the training meanwhile."""
    return gzip.compress(body, 6, mtime=0)


def _json(
    request: Request,
    body: bytes,
    fields: Fields = (),
    etag: bytes | None = None,
    squeeze: Callable[[bytes], bytes] = _squeeze,
) -> Answer:
    fields = (JSON_TYPE, (b"vary", b"Accept-Encoding"), *SECURE, *fields)
    if _compressed(request) and len(body) >= SMALLEST_COMPRESSED:
        body = squeeze(body)
        fields += ((b"content-encoding", b"gzip"),)
    return Answer(200, body, fields, etag=etag)


def _file(name: str, request: Request) -> Answer:
    file = page_file(name)
    fields: Fields = (
        (b"content-type", file.type),
        (b"cache-control", b"no-cache"),
        (b"vary", b"Accept-Encoding"),
        *(SECURE if file.type == TYPES["html"] else SECURE_PART),
    )
    if _compressed(request):
        fields += ((b"content-encoding", b"gzip"),)
        return Answer(200, file.compressed, fields, etag=file.etag)
    return Answer(200, file.body, fields, etag=file.etag)


def _runbook(name: str, _request: Request) -> Answer:
    """An alert's runbook in Markdown; the page's reasons link here."""
    return Answer(200, runbooks()[name].read_bytes(), ((b"content-type", TYPES["txt"]), *SECURE))
