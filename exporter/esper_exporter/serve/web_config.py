"""Read Prometheus's web configuration file: TLS, passwords and headers of an exporter's server.

Prometheus and its exporters share the format (``--web.config.file``), specified in
prometheus/exporter-toolkit, docs/web-configuration.md. A ``promtool check web-config`` that knows
the keys accepts every file accepted here. Stricter than there:

- ``cert`` together with ``cert_file`` (and so on) is an error, because one of them would be
  ignored; so is a client CA file without a certificate.
- TLS 1.0 and 1.1 are not offered: RFC 8996 retired them.
- ``RequireAnyClientCert`` is an error: Python's ssl cannot require a certificate and then not
  verify it. ``RequestClientCert`` behaves as ``NoClientCert``: nothing uses the certificate.
- More than one curve in ``curve_preferences`` is an error where Python's ssl supports only one.
- A bcrypt hash must be complete and of version 2a, 2b, 2x or 2y.

``http2`` is accepted and has no effect: this server speaks HTTP/1.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ClientAuth = Literal["none", "if_given", "required"]
Node = Mapping[str, Any]


class WebConfigError(ValueError):
    """The web configuration cannot be used; the message names the key and never a secret."""


def missing_extra(path: Path, error: ModuleNotFoundError) -> str:
    """The message for a missing library of the extra ``web``."""
    return f"{path} needs {error.name}, which is missing: pip install pyyaml bcrypt"


@dataclass(frozen=True, slots=True)
class Pem:
    """Certificates or a key in PEM, from a file or inline."""

    key: str
    """The dotted configuration key, for messages."""
    path: Path | None
    text: str | None = field(repr=False)

    def read(self) -> bytes:
        """The PEM text. Raises WebConfigError."""
        if self.path is None:
            return (self.text or "").encode()
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise WebConfigError(f"{self.key}: cannot read {self.path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """``tls_server_config``, syntax checked; tls_context() reads the files."""

    certificate: Pem
    private_key: Pem
    client_ca: Pem | None
    client_auth: ClientAuth
    client_allowed_sans: frozenset[str] | None
    min_version: str
    max_version: str
    cipher_suites: tuple[str, ...]
    curves: tuple[str, ...]
    prefer_server_cipher_suites: bool


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One request per ``interval`` seconds, and ``burst`` at once."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The contents of a web configuration file. ``users`` maps names to bcrypt hashes."""

    path: Path
    tls: TlsSettings | None = None
    headers: tuple[tuple[str, str], ...] = ()
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    rate_limit: RateLimit | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and those it names: a change in any of them is a new configuration."""
        if self.tls is None:
            return (self.path,)
        pems = (self.tls.certificate, self.tls.private_key, self.tls.client_ca)
        return (self.path, *(pem.path for pem in pems if pem is not None and pem.path is not None))


def read_web_config(path: Path) -> WebConfig:
    """Read and check a file; certificates are not read yet. Raises WebConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WebConfigError(f"cannot read the web configuration {path}: {error}") from None
    try:
        from esper_exporter.serve.plain_yaml import YamlError, plain_yaml
    except ModuleNotFoundError as error:
        raise WebConfigError(missing_extra(path, error)) from None
    try:
        document = plain_yaml(text)
    except YamlError as error:
        raise WebConfigError(f"{path}{error}") from None
    try:
        return _web_config(path, document)
    except WebConfigError as error:
        raise WebConfigError(f"{path}: {error}") from None


_EMPTY = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y"), True),
    **dict.fromkeys(("false", "no", "off", "n"), False),
}

_TLS_KEYS = frozenset(
    {
        "cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file", "client_auth_type",
        "client_allowed_sans", "min_version", "max_version", "cipher_suites", "curve_preferences",
        "prefer_server_cipher_suites",
    }
)  # fmt: skip
_HEADERS: dict[str, frozenset[str]] = {
    "Content-Security-Policy": frozenset(),
    "Strict-Transport-Security": frozenset(),
    "X-Content-Type-Options": frozenset({"nosniff"}),
    "X-Frame-Options": frozenset({"deny", "sameorigin"}),
    "X-XSS-Protection": frozenset(),
}
"""The headers that may be set, with their allowed values where these are fixed."""

_CLIENT_AUTH: dict[str, ClientAuth] = {
    "": "none",
    "NoClientCert": "none",
    "RequestClientCert": "none",
    "VerifyClientCertIfGiven": "if_given",
    "RequireAndVerifyClientCert": "required",
}
_VERSIONS = ("TLS12", "TLS13")
_CURVES = {"CurveP256", "CurveP384", "CurveP521", "X25519"}
_HASH = re.compile(r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip

OPENSSL_CIPHERS = {
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""The cipher suites of TLS 1.2 by the names of Go's crypto/tls, with OpenSSL's."""

TLS13_CIPHERS = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
"""Suites of TLS 1.3: accepted in ``cipher_suites``, where neither Go nor Python can choose them."""


def _web_config(path: Path, document: Any) -> WebConfig:
    root = _section(document, "", {"tls_server_config", "http_server_config", "basic_auth_users",
                                   "rate_limit"})  # fmt: skip
    tls = _section(root.get("tls_server_config"), "tls_server_config", _TLS_KEYS)
    http = _section(root.get("http_server_config"), "http_server_config", {"http2", "headers"})
    if "http2" in http:
        _boolean(http["http2"], "http_server_config.http2")
    rate = _section(root.get("rate_limit"), "rate_limit", {"interval", "burst"})
    return WebConfig(
        path=path,
        tls=_tls(tls, path.parent),
        headers=_headers(http.get("headers")),
        users=_users(root.get("basic_auth_users")),
        rate_limit=_rate_limit(rate),
    )


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _section(node: Any, name: str, keys: frozenset[str] | set[str]) -> Node:
    """A mapping with known keys only; an empty section counts as absent."""
    if node is None or (isinstance(node, str) and node in _EMPTY):
        return {}
    if not isinstance(node, dict):
        raise WebConfigError(f"{name or 'the document'} must be a mapping")
    for key in node:
        if key not in keys:
            raise WebConfigError(
                f"unknown key {_dotted(name, key)}; known are {', '.join(sorted(keys))}"
            )
    return node


def _text(node: Node, section: str, key: str) -> str:
    value = node.get(key, "")
    if not isinstance(value, str):
        raise WebConfigError(f"{_dotted(section, key)} must be text")
    return "" if value in _EMPTY else value


def _boolean(value: Any, key: str) -> bool:
    found = _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise WebConfigError(f"{key} must be true or false")
    return found


def _texts(node: Node, section: str, key: str) -> tuple[str, ...]:
    value = node.get(key, [])
    if isinstance(value, str) and value in _EMPTY:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise WebConfigError(f"{_dotted(section, key)} must be a list of strings")
    return tuple(value)


def _one_of(value: str, key: str, known: Any) -> str:
    if value not in known:
        raise WebConfigError(f"{key}: {value!r} is not one of {', '.join(sorted(known))}")
    return value


def _pem(node: Node, name: str, folder: Path) -> Pem | None:
    section = "tls_server_config"
    text, file = _text(node, section, name), _text(node, section, f"{name}_file")
    if text and file:
        raise WebConfigError(f"give {section}.{name} or {section}.{name}_file, not both")
    if file:
        return Pem(f"{section}.{name}_file", folder / file, None)
    return Pem(f"{section}.{name}", None, text) if text else None


def _tls(node: Node, folder: Path) -> TlsSettings | None:
    section = "tls_server_config"
    certificate, key, client_ca = (
        _pem(node, name, folder) for name in ("cert", "key", "client_ca")
    )
    auth_name = _text(node, section, "client_auth_type")
    if not (certificate or key or client_ca or auth_name):
        others = sorted(key for key, value in node.items() if value not in _EMPTY)
        if others:
            raise WebConfigError(f"{section}.{others[0]} has no effect without a certificate")
        return None
    if certificate is None or key is None:
        missing = "cert" if certificate is None else "key"
        raise WebConfigError(f"{section}.{missing}_file (or {missing}) is missing")
    if auth_name in {"RequireAnyClientCert", "RequireClientCert"}:
        raise WebConfigError(
            f"{section}.client_auth_type: {auth_name} is not supported: it would accept any "
            "certificate; use RequireAndVerifyClientCert"
        )
    client_auth = _CLIENT_AUTH[_one_of(auth_name, f"{section}.client_auth_type", _CLIENT_AUTH)]
    if client_ca is not None and auth_name in {"", "NoClientCert"}:
        raise WebConfigError(f"{client_ca.key} needs a {section}.client_auth_type that uses it")
    sans = None
    if "client_allowed_sans" in node:
        sans = frozenset(_texts(node, section, "client_allowed_sans"))
        if client_auth != "required":
            raise WebConfigError(
                f"{section}.client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
            )
    versions = [
        _version(_text(node, section, name) or default, f"{section}.{name}")
        for name, default in (("min_version", "TLS12"), ("max_version", "TLS13"))
    ]
    if versions[0] > versions[1]:
        raise WebConfigError(f"{section}.min_version is above max_version")
    ciphers = tuple(
        _one_of(name, f"{section}.cipher_suites", {*OPENSSL_CIPHERS, *TLS13_CIPHERS})
        for name in _texts(node, section, "cipher_suites")
    )
    curves = tuple(
        _one_of(name, f"{section}.curve_preferences", _CURVES)
        for name in _texts(node, section, "curve_preferences")
    )
    prefer = node.get("prefer_server_cipher_suites", "true")
    return TlsSettings(
        certificate=certificate,
        private_key=key,
        client_ca=client_ca,
        client_auth=client_auth,
        client_allowed_sans=sans,
        min_version=versions[0],
        max_version=versions[1],
        cipher_suites=ciphers,
        curves=curves,
        prefer_server_cipher_suites=_boolean(prefer, f"{section}.prefer_server_cipher_suites"),
    )


def _version(value: str, key: str) -> str:
    if value in {"TLS10", "TLS11"}:
        raise WebConfigError(f"{key}: {value} is not offered, RFC 8996 retired it; use TLS12")
    return _one_of(value, key, _VERSIONS)


def _headers(node: Any) -> tuple[tuple[str, str], ...]:
    section = "http_server_config.headers"
    headers = []
    for name in _section(node, section, set(_HEADERS)):
        value = _text(node, section, name)
        allowed = _HEADERS[name]
        if allowed:
            _one_of(value, f"{section}.{name}", allowed)
        if not value.isprintable() or not value.isascii():
            raise WebConfigError(f"{section}.{name} must be printable ASCII")
        if value.strip():
            headers.append((name, value.strip()))
    return tuple(headers)


def _users(node: Any) -> Mapping[str, str]:
    if node is None or (isinstance(node, str) and node in _EMPTY):
        return {}
    if not isinstance(node, dict):
        raise WebConfigError("basic_auth_users must be a mapping of names to bcrypt hashes")
    for name, hashed in node.items():
        if not isinstance(hashed, str) or not _HASH.fullmatch(hashed):
            raise WebConfigError(f"basic_auth_users.{name} must be a bcrypt hash ($2y$…)")
    return dict(node)


def _rate_limit(node: Node) -> RateLimit | None:
    interval = _duration(_text(node, "rate_limit", "interval") or "0")
    burst = _text(node, "rate_limit", "burst") or "0"
    if not re.fullmatch(r"[0-9]{1,9}", burst):
        raise WebConfigError("rate_limit.burst must be a whole number")
    if interval == 0:
        return None
    if int(burst) == 0:
        raise WebConfigError("rate_limit.burst must be at least 1, 0 would refuse every request")
    return RateLimit(interval, int(burst))


def _duration(text: str) -> float:
    """Seconds of a Go duration (``1m30s``, ``500ms``); a bare number is nanoseconds, as in Go."""
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text) * 1e-9
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise WebConfigError("rate_limit.interval must be a duration such as 1s or 500ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
