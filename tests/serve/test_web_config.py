"""The web configuration file: what promtool accepts works, and errors name the key."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.serve.security import load
from esper_exporter.serve.web_config import RateLimit, WebConfigError, read_web_config
from serve.certificates import Authority
from support.programs import program

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates that the configurations name: server.pem, server.key, authority.pem, …"""
    folder = tmp_path_factory.mktemp("web")
    Authority(folder).issue("server")
    Authority(folder / "other").issue("server")
    (folder / "empty.pem").write_text("")
    return folder


def write(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text)
    return path


def promtool_accepts(path: Path) -> bool:
    done = subprocess.run(
        [program("promtool"), "check", "web-config", str(path)], capture_output=True, check=False
    )
    return done.returncode == 0


TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"

GOOD = {
    "empty": "",
    "empty sections": "tls_server_config:\nhttp_server_config: {}\nbasic_auth_users: ~\n",
    "tls": TLS,
    "tls in full": TLS
    + "  client_ca_file: authority.pem\n"
    + "  client_auth_type: RequireAndVerifyClientCert\n"
    + "  min_version: TLS12\n  max_version: TLS13\n"
    + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]\n"
    + "  prefer_server_cipher_suites: false\n"
    + "  curve_preferences: [CurveP256]\n",
    "verify if given": TLS
    + "  client_ca_file: authority.pem\n  client_auth_type: VerifyClientCertIfGiven\n",
    "request only": TLS + "  client_auth_type: RequestClientCert\n",
    "system authorities": TLS + "  client_auth_type: RequireAndVerifyClientCert\n",
    "1.3 only": TLS + "  min_version: TLS13\n",
    "1.3 suites only": TLS + "  cipher_suites: [TLS_AES_256_GCM_SHA384]\n",
    "http": "http_server_config:\n  http2: yes\n  headers:\n    X-Frame-Options: deny\n"
    "    X-Content-Type-Options: nosniff\n    Strict-Transport-Security: max-age=9\n"
    "    X-XSS-Protection: '0'\n    Content-Security-Policy: ''\n",
    "users": f"basic_auth_users:\n  alice: {HASH}\n  1234: {HASH}\n  'yes': {HASH}\n",
}
NEWER = {
    "rate limit": "rate_limit:\n  interval: 1s\n  burst: 3\n",
    "names": TLS
    + "  client_ca_file: authority.pem\n  client_auth_type: RequireAndVerifyClientCert\n"
    + "  client_allowed_sans: [scraper, 10.0.0.1]\n",
}
"""With keys that the promtool of Prometheus 2.42 does not know yet."""

BAD = {
    "unknown key tls_server_config.cert_fil;": TLS.replace("cert_file", "cert_fil"),
    "unknown key tls_config;": "tls_config: {}\n",
    "unknown key http_server_config.http3;": "http_server_config: {http3: true}\n",
    "unknown key http_server_config.headers.x-frame-options;": "http_server_config:\n"
    "  headers: {x-frame-options: deny}\n",
    "http_server_config.headers.X-Frame-Options: 'allow'": "http_server_config:\n"
    "  headers: {X-Frame-Options: allow}\n",
    "http_server_config.http2 must be true or false": "http_server_config: {http2: 3}\n",
    "the document must be a mapping": "- a\n",
    "tls_server_config must be a mapping": "tls_server_config: [a]\n",
    "line 2: invalid YAML": "a: b\n c: d\n",
    "line 4: invalid YAML: a repeated key": TLS + "  cert_file: server.pem\n",
    "tls_server_config.key_file (or key) is missing": "tls_server_config: {cert_file: server.pem}",
    "tls_server_config.cert_file (or cert) is missing": "tls_server_config: {key_file: server.key}",
    "tls_server_config.cert_file: cannot read": TLS.replace("server.pem", "nowhere.pem"),
    "tls_server_config.key_file: the key does not belong to": TLS.replace(
        "server.key", "other/server.key"
    ),
    "not a usable certificate and key in PEM": TLS.replace("server.pem", "empty.pem"),
    "tls_server_config.client_auth_type: 'Maybe'": TLS + "  client_auth_type: Maybe\n",
    "client_ca_file needs a tls_server_config.client_auth_type": TLS
    + "  client_ca_file: authority.pem\n",
    "tls_server_config.min_version: 'TLS14'": TLS + "  min_version: TLS14\n",
    "tls_server_config.cipher_suites: 'NULL'": TLS + "  cipher_suites: ['NULL']\n",
    "tls_server_config.curve_preferences: 'P1'": TLS + "  curve_preferences: [P1]\n",
    "basic_auth_users.bob must be a bcrypt hash": "basic_auth_users: {bob: secret}\n",
    "basic_auth_users must be a mapping": "basic_auth_users: [bob]\n",
}
"""What the message holds, and a file that promtool refuses as well."""

STRICTER = {
    "RequireAnyClientCert is not supported": TLS + "  client_auth_type: RequireAnyClientCert\n",
    "TLS10 is not offered": TLS + "  min_version: TLS10\n",
    "min_version is above max_version": TLS + "  min_version: TLS13\n  max_version: TLS12\n",
    "cipher_suites names no TLS 1.2 suite": TLS
    + "  max_version: TLS12\n  cipher_suites: [TLS_AES_256_GCM_SHA384]\n",
    "supports one curve only": TLS + "  curve_preferences: [X25519, CurveP256]\n",
    "cert or tls_server_config.cert_file, not both": TLS + "  cert: x\n",
    "client_ca_file: no certificate in it": TLS
    + "  client_ca_file: empty.pem\n  client_auth_type: RequireAndVerifyClientCert\n",
    "client_allowed_sans needs": TLS + "  client_allowed_sans: [a]\n",
    "min_version has no effect": "tls_server_config: {min_version: TLS12}\n",
    "burst must be at least 1": "rate_limit: {interval: 1s}\n",
    "interval must be a duration": "rate_limit: {interval: soon, burst: 1}\n",
    "burst must be a whole number": "rate_limit: {interval: 1s, burst: many}\n",
    "Content-Security-Policy must be printable": "http_server_config:\n"
    '  headers: {Content-Security-Policy: "a\\r\\nb: c"}\n',
}
"""What we refuse and say why."""


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_a_good_file_is_accepted_here_and_by_promtool(folder: Path, text: str) -> None:
    path = write(folder, text)
    load(path)
    assert promtool_accepts(path)


@pytest.mark.parametrize("text", NEWER.values(), ids=NEWER.keys())
def test_keys_of_newer_prometheus_versions_are_accepted(folder: Path, text: str) -> None:
    load(write(folder, text))


@pytest.mark.parametrize(("message", "text"), BAD.items())
def test_a_bad_file_is_an_error_that_names_the_key(folder: Path, message: str, text: str) -> None:
    path = write(folder, text)
    with pytest.raises(WebConfigError) as caught:
        load(path)
    assert message in str(caught.value)
    assert not promtool_accepts(path)


@pytest.mark.parametrize(("message", "text"), STRICTER.items())
def test_what_cannot_be_kept_is_refused_with_the_reason(
    folder: Path, message: str, text: str
) -> None:
    with pytest.raises(WebConfigError) as caught:
        load(write(folder, text))
    assert message in str(caught.value)


def test_certificates_may_stand_in_the_file_itself(folder: Path) -> None:
    def inline(name: str) -> str:
        return "|\n    " + (folder / name).read_text().replace("\n", "\n    ").rstrip()

    text = f"tls_server_config:\n  cert: {inline('server.pem')}\n  key: {inline('server.key')}\n"
    loaded = load(write(folder, text))
    assert loaded.context is not None
    assert loaded.config.files == (folder / "web.yml",)
    assert "PRIVATE" not in repr(loaded)


def test_relative_paths_start_at_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(folder, TLS)
    monkeypatch.chdir(tmp_path)
    relative = Path(os.path.relpath(folder / "web.yml"))
    assert load(relative).context is not None


def test_an_encrypted_key_is_an_error_and_no_question(folder: Path) -> None:
    subprocess.run(
        [program("openssl"), "ec", "-aes256", "-passout", "pass:x", "-in", folder / "server.key",
         "-out", folder / "locked.key"],
        check=True, capture_output=True,
    )  # fmt: skip
    path = write(folder, TLS.replace("server.key", "locked.key"))
    with pytest.raises(WebConfigError, match="the key is encrypted"):
        load(path)


def test_no_error_reveals_a_secret(folder: Path) -> None:
    path = write(folder, "basic_auth_users:\n  bob: hunter2\n")
    with pytest.raises(WebConfigError) as caught:
        load(path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0), ("250000000", 0.25)],
)
def test_durations_are_those_of_go(folder: Path, text: str, seconds: float) -> None:
    config = read_web_config(write(folder, f"rate_limit: {{interval: {text}, burst: 2}}\n"))
    assert config.rate_limit == RateLimit(seconds, 2)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WebConfigError, match="cannot read the web configuration"):
        load(tmp_path / "web.yml")


_SCALARS = st.sampled_from(
    ["cert_file", "tls_server_config", "http_server_config", "headers", "basic_auth_users", "a", "",
     "rate_limit", "interval", "burst", "1s", "true", "~", "TLS12", "[a, b]", "{a: b}", "&x", "*x",
     "<<", "? ", "|", "!!python/object:os.system", '"', "\t", "\x00", "- "]
)  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(["", "  ", "    "]), _SCALARS, _SCALARS), max_size=8)
    | st.text(max_size=80).map(lambda text: [("", text, "")])
)
def test_any_text_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    text = "".join(f"{indent}{key}: {value}\n" for indent, key, value in lines)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(WebConfigError):
        load(path)


def test_the_documented_configuration_is_good(folder: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "OPERATIONS.md").read_text()
    (documented,) = re.findall(r"```yaml\n(tls_server_config.*?)```", text, re.DOTALL)
    (folder / "clients.pem").write_bytes((folder / "authority.pem").read_bytes())
    path = write(folder, documented)
    assert promtool_accepts(path)
    assert list(load(path).config.users) == ["prometheus"]
