"""TLS and passwords, as curl and a real Prometheus meet them."""

from __future__ import annotations

import gc
import logging
import ssl
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import bcrypt
import pytest

from esper_exporter.serve.limits import Limits
from esper_exporter.serve.security import WatchedConfig
from esper_exporter.serve.web_config import WebConfigError
from serve.certificates import Authority
from serve.clients import closed_within, connect, curl, patience, read_to_end
from serve.fakes import FakeSource
from serve.secured import MUTUAL, TLS, USERS, House, Serve, basic, hashed, next_check
from support.memory import allocated_bytes
from support.programs import wait_until

# -- TLS ------------------------------------------------------------------------------------


def test_tls_is_spoken_and_nothing_else(serve: Serve, house: House) -> None:
    server = serve(web_config=house.write(TLS))
    assert server.url == f"https://127.0.0.1:{server.port}"
    assert house.curl(server) == 200
    assert house.curl(server, "--http2") == 200
    assert curl(f"{server.url}/metrics").status == 0
    assert curl(f"http://127.0.0.1:{server.port}/metrics").status == 0


@pytest.mark.parametrize(
    ("setting", "version", "expected"),
    [
        ("min_version: TLS13", ["--tlsv1.2", "--tls-max", "1.2"], 0),
        ("min_version: TLS13", ["--tlsv1.3"], 200),
        ("max_version: TLS12", ["--tlsv1.3"], 0),
        ("max_version: TLS12", ["--tlsv1.2"], 200),
        ("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
         ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"], 200),
        ("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
         ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"], 0),
        ("cipher_suites: [TLS_AES_256_GCM_SHA384]", ["--tls-max", "1.2"], 0),
        ("curve_preferences: [CurveP384]", ["--curves", "P-384"], 200),
        ("curve_preferences: [CurveP384]", ["--curves", "X25519"], 0),
    ],
)  # fmt: skip
def test_versions_suites_and_curves_are_kept(
    serve: Serve, house: House, setting: str, version: list[str], expected: int
) -> None:
    server = serve(web_config=house.write(f"{TLS}  {setting}\n"))
    assert house.curl(server, *version) == expected


def test_mutual_tls_lets_in_only_whom_the_authority_knows(
    serve: Serve, house: House, tmp_path: Path
) -> None:
    server = serve(web_config=house.write(MUTUAL))
    stranger = Authority(tmp_path / "other").issue("stranger", client=True)
    assert house.curl(server) == 0
    assert house.curl(server, *house.as_client("scraper")) == 200
    assert house.curl(server, *house.as_client("late", expired=True)) == 0
    strange = ("--cert", str(stranger.certificate), "--key", str(stranger.key))
    assert house.curl(server, *strange) == 0


def test_a_certificate_if_given_must_be_right(serve: Serve, house: House, tmp_path: Path) -> None:
    text = MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    server = serve(web_config=house.write(text))
    stranger = Authority(tmp_path / "other").issue("stranger", client=True)
    assert house.curl(server) == 200
    assert house.curl(server, *house.as_client("scraper")) == 200
    strange = ("--cert", str(stranger.certificate), "--key", str(stranger.key))
    assert house.curl(server, *strange) == 0


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [("[scraper.example]", 200), ("[127.0.0.1]", 200), ("[other.example]", 0), ("[]", 0)],
)
def test_allowed_names_are_kept(
    serve: Serve, house: House, source: FakeSource, allowed: str, expected: int
) -> None:
    server = serve(web_config=house.write(f"{MUTUAL}  client_allowed_sans: {allowed}\n"))
    client = house.as_client("scraper", sans=["scraper.example"])
    assert house.curl(server, *client) == expected
    assert len(source.rendered) == (expected == 200)


def test_half_open_handshakes_are_cut_and_do_not_block_a_scrape(serve: Serve, house: House) -> None:
    with ExitStack() as stack:
        limits = Limits(handshake_seconds=0.6)
        server = serve(web_config=house.write(TLS), limits=limits)
        allocated = stack.enter_context(allocated_bytes())
        crowd = [stack.enter_context(connect(server.port or 0)) for _ in range(300)]
        for sock in crowd[::2]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        started = time.monotonic()
        assert house.curl(server) == 200
        assert time.monotonic() - started < patience()
        assert allocated() < 80e6
        assert all(closed_within(sock, 10.0) for sock in crowd)


def test_failed_handshakes_leave_nothing_for_the_garbage_collector(
    serve: Serve, house: House
) -> None:
    """Each has a buffer of 256 KiB, and the training decides when garbage is collected."""
    server = serve(web_config=house.write(TLS))
    assert house.curl(server) == 200
    gc.collect()
    gc.disable()
    try:
        with allocated_bytes() as allocated:
            for _ in range(300):
                with connect(server.port or 0) as sock:
                    sock.sendall(b"no hello")
                    read_to_end(sock)
            assert allocated() < 20e6
    finally:
        gc.enable()


def test_a_slow_reader_over_tls_is_cut(serve: Serve, house: House, source: FakeSource) -> None:
    source.body = bytes(20_000_000)
    server = serve(web_config=house.write(TLS), limits=Limits(write_seconds=0.5))
    trusting = ssl.create_default_context(cafile=str(house.authority.path))
    with connect(server.port or 0) as plain:
        sock = trusting.wrap_socket(plain, server_hostname="localhost")
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1.0)
        size = 0
        try:
            while part := sock.recv(65536):
                size += len(part)
        except OSError:
            pass
    assert size < len(source.body)
    assert not source.scrapes


def test_a_bad_configuration_at_the_start_is_an_error_and_nothing_is_served(
    serve: Serve, house: House
) -> None:
    with pytest.raises(WebConfigError, match="unknown key basic_auth_user;"):
        serve(web_config=house.write("basic_auth_user: {}\n"))


# -- changes --------------------------------------------------------------------------------


def test_a_rotated_certificate_is_served_to_the_next_client(serve: Serve, house: House) -> None:
    server = serve(web_config=house.write(TLS))
    before = ssl.get_server_certificate(("127.0.0.1", server.port or 0))
    house.authority.issue("server")
    house.age()
    next_check(server)
    after = ssl.get_server_certificate(("127.0.0.1", server.port or 0))
    assert before != after
    assert after.strip() == (house.folder / "server.pem").read_text().strip()
    assert house.curl(server) == 200


def test_new_users_and_headers_hold_without_a_restart(serve: Serve, house: House) -> None:
    server = serve(web_config=house.write(USERS))
    assert curl("-u", "alice:right", f"{server.url}/metrics").status == 200
    house.write(
        f"basic_auth_users:\n  bob: {hashed('new')}\n"
        "http_server_config: {headers: {X-Frame-Options: deny}}\n"
    )
    next_check(server)
    assert curl("-u", "alice:right", f"{server.url}/metrics").status == 401
    reply = curl("-u", "bob:new", f"{server.url}/metrics")
    assert (reply.status, reply.headers["x-frame-options"]) == (200, "deny")


BROKEN = {
    "garbage": "{",
    "unknown key": TLS + USERS + "more: 1\n",
    "cut short": "",
    "without TLS": USERS,
    "without users": TLS,
    "certificate missing": TLS.replace("server.pem", "gone.pem") + USERS,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_new_version_keeps_the_old_one_and_is_logged_once(
    serve: Serve, house: House, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(web_config=house.write(TLS + USERS))
    with caplog.at_level(logging.INFO):
        house.write(text)
        for _ in range(3):
            next_check(server)
            assert house.curl(server, "-u", "alice:right") == 200
            next_check(server)
            assert house.curl(server) == 401
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "the old one stays" in caplog.text
    house.write(TLS + f"basic_auth_users:\n  bob: {hashed('new')}\n")
    next_check(server)
    assert house.curl(server, "-u", "bob:new") == 200


class Clocks:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_file_is_read_only_once_it_has_settled_and_at_most_once_a_second(house: House) -> None:
    clock = Clocks()
    path = house.write(TLS + USERS)
    watched = WatchedConfig(path, clock=clock, now=time.time)
    loaded = watched.current()
    path.write_text(TLS + USERS + "  bob: " + hashed("b") + "\n")  # written just now
    clock.time = 0.9
    assert watched.current() is loaded
    clock.time = 1.1
    assert watched.current() is loaded
    clock.time = 2.2  # a second look finds it unchanged
    assert set(watched.current().config.users) == {"alice", "bob"}


# -- passwords ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-u", "alice:right"], 200),
        (["-u", "alice:wrong"], 401),
        (["-u", "alice:"], 401),
        (["-u", "bob:right"], 401),
        (["-u", ":right"], 401),
        ([], 401),
        (["-H", "Authorization: Bearer x"], 401),
        (["-H", "Authorization: Basic"], 401),
        (["-H", "Authorization: Basic ????"], 401),
        (["-H", "Authorization: Basic YWxpY2U="], 401),
        (["-H", "Authorization: basic YWxpY2U6cmlnaHQ="], 200),
        (["-H", "Authorization: Basic YWxpY2U6cmlnaHQ=", "-H", "Authorization: Basic eA=="], 401),
        (["-u", f"alice:{'x' * 5000}"], 401),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/-/healthy"])
def test_every_path_requires_a_password(
    serve: Serve, house: House, source: FakeSource, path: str, arguments: list[str], expected: int
) -> None:
    server = serve(web_config=house.write(USERS))
    for _ in range(2):
        reply = curl(*arguments, f"{server.url}{path}")
        assert reply.status == expected
        assert ("www-authenticate" in reply.headers) == (expected == 401)
    if expected == 401:
        assert not source.rendered


def test_passwords_beyond_72_bytes_and_beyond_ascii_work(serve: Serve, house: House) -> None:
    long = "ä€:" * 30
    cut = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode()
    server = serve(web_config=house.write(f"basic_auth_users:\n  'ü': {cut}\n"))
    assert curl("-u", f"ü:{long}", f"{server.url}/metrics").status == 200


def test_a_flood_of_wrong_passwords_keeps_no_scraper_waiting(serve: Serve, house: House) -> None:
    """Also one that was not in before: it comes from another address than the flood."""
    users = "".join(f"  {user}: {hashed('right', 10)}\n" for user in ("alice", "bob"))
    server = serve(web_config=house.write(f"basic_auth_users:\n{users}"))
    assert curl("-u", "alice:right", f"{server.url}/metrics").status == 200
    done = threading.Event()
    statuses: set[int] = set()

    def flood(number: int) -> None:
        for i in range(10_000):
            if done.is_set():
                return
            password = basic("alice", f"{number}.{i}")
            with connect(server.port or 0, source="127.0.0.2") as sock:
                sock.sendall(
                    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                    b"Authorization: " + password + b"\r\n\r\n"
                )
                statuses.add(int(read_to_end(sock).split()[1]))

    threads = [threading.Thread(target=flood, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: 429 in statuses, "the flood is refused")
        for user in ("alice", "bob", "alice", "bob"):
            started = time.monotonic()
            assert curl("-u", f"{user}:right", f"{server.url}/metrics").status == 200
            assert time.monotonic() - started < 5 * patience()
    finally:
        done.set()
        for thread in threads:
            thread.join(10)
    assert statuses <= {401, 429}


def test_the_rate_limit_lets_through_what_it_says(serve: Serve, house: House) -> None:
    server = serve(web_config=house.write("rate_limit: {interval: 1h, burst: 2}\n"))
    statuses = [curl(f"{server.url}/metrics").status for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
