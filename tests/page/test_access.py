"""Who may read the page: by host, by site, by password, over TLS and over a unix socket."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from esper_exporter import Exporter
from esper_exporter.serve.page.site import page_names, page_routes
from page.browser import Tab
from page.conftest import REBOUND
from page.worlds import HOSTILE_NAMES, hostile, quiet, recorded
from serve.secured import TLS, USERS, House, basic
from support.programs import wait_until

Show = Callable[..., Tab]

DATA = ("/api/v1/state", "/api/v1/history", "/api/v1/history?since=1.1", "/api/v1/state?env=0")
CONTROLS = ("/api/v1/replay?pause=1", "/api/v1/replay?speed=5", "/api/v1/replay?seek=update:1")


class _Recording:
    """A recording being replayed, as far as its controls go."""

    exhausted = False

    def __init__(self) -> None:
        self.commands: list[tuple[str, str]] = []

    def state(self) -> dict[str, Any]:
        return {}

    def version(self) -> object:
        return len(self.commands)

    def command(self, action: str, value: str) -> None:
        self.commands.append((action, value))


@pytest.fixture
def replayed() -> Iterator[tuple[Exporter, _Recording]]:
    exporter, recording = recorded("run2b", 300), _Recording()
    exporter.page.replay = recording
    with exporter:
        yield exporter, recording


def ask(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> int:
    """The status of an answer; a header's underscores are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def connected(exporter: Exporter) -> http.client.HTTPConnection:
    assert exporter.url is not None
    return http.client.HTTPConnection(urlsplit(exporter.url).netloc, timeout=30)


def test_a_rebinding_host_is_refused_on_every_route(
    replayed: tuple[Exporter, _Recording],
) -> None:
    exporter, recording = replayed
    connection = connected(exporter)
    routes = page_routes(exporter.page)
    assert {"/", "/page/app.js", "/api/v1/state", "/api/v1/schema/state"} < set(routes)
    for path in (*routes, *DATA):
        for host in ("evil.example", "evil.example:9108", "localhost.evil.example"):
            assert ask(connection, path, Host=host) == 403, path
    for path in CONTROLS:
        assert ask(connection, path, "POST", Host="evil.example") == 403
    assert recording.commands == []


def test_pages_of_other_sites_read_nothing_and_control_nothing(
    replayed: tuple[Exporter, _Recording],
) -> None:
    exporter, recording = replayed
    connection = connected(exporter)
    own = urlsplit(str(exporter.url)).netloc
    for foreign in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{own}.evil.example"},
        {"Origin": f"http://localhost:{exporter.port}"},
    ):
        for path in DATA:
            assert ask(connection, path, **foreign) == 403, (path, foreign)
        for path in CONTROLS:
            assert ask(connection, path, "POST", **foreign) == 403, (path, foreign)
    assert recording.commands == []
    for path in DATA:
        for good in ({}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}):
            assert ask(connection, path, **good) == 200, path
    for path in CONTROLS:
        assert ask(connection, path, "POST", Origin=f"http://{own}") == 204
        assert ask(connection, path, "GET") == 405
    assert [action for action, _ in recording.commands] == ["pause", "speed", "seek"]


def test_a_shared_answer_is_refused_to_other_sites_as_well() -> None:
    exporter = recorded("run2b", 300)
    with exporter:
        connection = connected(exporter)
        for _ in range(3):  # the second and third time another viewer has just had it
            assert ask(connection, "/api/v1/state") == 200
            assert ask(connection, "/api/v1/state", Sec_Fetch_Site="cross-site") == 403
            assert ask(connection, "/api/v1/state", Host="evil.example") == 403


def _everything(exporter: Exporter) -> tuple[str, ...]:
    return ("/", *(f"/page/{name}" for name in page_names()), *DATA, "/api/v1/schema/state")


def test_password_and_tls_guard_every_route(tmp_path: Path) -> None:
    house = House(tmp_path / "web")
    exporter = quiet(web_config=house.write(TLS + USERS))
    with exporter:
        assert exporter.port is not None
        trust = ssl.create_default_context(cafile=str(house.authority.path))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", exporter.port, context=trust, timeout=60
        )
        right = basic("alice", "right").decode()
        for path in _everything(exporter):
            assert ask(connection, path) == 401, path
            assert ask(connection, path, Authorization=right) == 200, path
        assert ask(connection, "/", Authorization=basic("alice", "wrong").decode()) == 401
        assert ask(connection, "/api/v1/replay?pause=1", "POST") == 401
        assert ask(connection, "/api/v1/replay?pause=1", "POST", Authorization=right) == 404
        assert ask(connection, "/", Authorization=right, Host="evil.example") == 403
        plain = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=60)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(plain, "/", Authorization=right)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def test_the_page_is_on_the_unix_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    exporter = recorded("run2b", 300)
    exporter.close()
    exporter = quiet(unix_socket=path)
    with exporter:
        wait_until(path.exists, "the socket is there")
        connection = _UnixConnection(path)
        for each in _everything(exporter):
            assert ask(connection, each) == 200, each
        assert ask(connection, "/api/v1/state", Host="any.example") == 200  # no browser comes here
        assert ask(connection, "/api/v1/state", Sec_Fetch_Site="cross-site") == 403


# -- in a browser ----------------------------------------------------------------------------


@pytest.fixture
def other_site() -> Iterator[str]:
    """A page of another site, ``localhost`` instead of ``127.0.0.1``."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<!doctype html><title>other</title>"
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join(30)


TRY = """
const [base] = given;
const tried = {};
const attempt = async (name, work) => {
  try { tried[name] = await work(); } catch (e) { tried[name] = 'blocked'; }
};
const state = base + '/api/v1/state';
await attempt('cors', async () => (await fetch(state)).status);
await attempt('opaque', async () => (await fetch(state, { mode: 'no-cors' })).type);
const pause = base + '/api/v1/replay?pause=1';
await attempt('post', async () => (await fetch(pause, { method: 'POST' })).status);
await attempt('frame', () => new Promise((done) => {
  const frame = document.createElement('iframe');
  frame.onload = () => done('loaded');
  frame.src = base + '/';
  document.body.append(frame);
}));
await attempt('script', () => new Promise((done) => {
  const script = document.createElement('script');
  script.onload = () => done('loaded');
  script.onerror = () => done('blocked');
  script.src = state;
  document.body.append(script);
}));
return tried;
"""


def test_a_browser_on_another_site_gets_nothing(
    show: Show, other_site: str, replayed: tuple[Exporter, _Recording]
) -> None:
    exporter, recording = replayed
    tab = show(quiet())
    tab.driver.get(other_site)
    tab.requests()
    tried: Mapping[str, str] = tab.call(TRY, exporter.url)
    assert (tried["cors"], tried["opaque"], tried["script"]) == ("blocked",) * 3
    assert tried["post"] == "blocked"
    assert recording.commands == []
    answers = [reply for reply in tab.requests() if "/api/v1/" in reply["url"]]
    assert {reply["status"] for reply in answers if "status" in reply} <= {403}
    console = " ".join(tab.complaints())
    assert "frame-ancestors" in console


def test_a_rebound_name_shows_no_page(show: Show) -> None:
    tab = show(quiet())
    tab.driver.get(f"http://{REBOUND}:{tab.exporter.port}/")
    shown = tab.run("return document.body.innerText")
    assert "Host header" in shown
    assert not tab.run("return document.querySelector('#app')")
    tab.complaints()


def test_markup_in_every_name_is_text(show: Show) -> None:
    tab = show(hostile())
    seen = ""
    for view in ("", "#/policy", "#/envs", "#/events", "#/config", "#/envs?env=0"):
        tab.go(view)
        if "env=" in view:  # the drawer is loaded when it first opens
            tab.until("return document.querySelector('.drawer .hist li')")
        tab.press("a")  # the alternatives of each decision
        made = "return document.querySelectorAll('#app img, #app script').length"
        assert tab.run(made) == 0
        seen += tab.run("return document.querySelector('#app').textContent")
    for what, name in HOSTILE_NAMES.items():
        assert name in seen, what
    assert not tab.run("return window.hacked")
    assert tab.complaints() == []
