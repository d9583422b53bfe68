"""How to reach a receiver: its address, and Prometheus' HTTP client configuration file.

The file has the format that Prometheus' own clients share (``promtool --http.config.file``; its
documentation calls it ``<http_config>``). Of it: ``basic_auth``, ``authorization`` and
``tls_config``; an unknown key is an error, because it would be ignored. Passwords, tokens and
certificates in files are read again for each request, so that they can be renewed.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ClientConfigError(ValueError):
    """The configuration cannot be used; the message never has a secret."""


_KEYS = {
    "basic_auth": {"username", "password", "password_file"},
    "authorization": {"type", "credentials", "credentials_file"},
    "tls_config": {"ca_file", "cert_file", "key_file", "insecure_skip_verify"},
}


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Where to send to, and how to prove who sends. Made by `client_config`."""

    url: str
    """Without a user and a password."""
    user: str | None = None
    scheme: str = ""
    secret: str = field(default="", repr=False)
    secret_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True

    @property
    def tls(self) -> bool:
        """Whether the address is an https:// one."""
        return self.url.startswith("https:")

    def authorization(self) -> dict[str, str]:
        """The Authorization header, if there is one. Raises ClientConfigError."""
        secret = self.secret
        if self.secret_file is not None:
            try:
                secret = self.secret_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as problem:
                reason = getattr(problem, "strerror", None) or "not text"
                raise ClientConfigError(f"cannot read {self.secret_file}: {reason}") from None
        if self.user is not None:
            pair = base64.b64encode(f"{self.user}:{secret}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {"Authorization": f"{self.scheme} {secret}"} if self.scheme else {}

    def context(self) -> ssl.SSLContext:
        """What a TLS connection is checked with. Raises ClientConfigError."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ValueError) as problem:
            raise ClientConfigError(f"tls_config: {problem}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def client_config(url: str, path: Path | None) -> ClientConfig:
    """The configuration for an address, http:// or https://, and a file (None: without one). A
    user and a password in the address are used as ``basic_auth``.

    Raises ClientConfigError.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character <= " " for character in url):
        raise ClientConfigError("push must be an http:// or https:// address")
    user, secret = parts.username, urllib.parse.unquote(parts.password or "")
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    found = {} if path is None else _read(path)
    basic, bearer, tls = (_section(found, name, path) for name in _KEYS)
    if sum((user is not None, bool(basic), bool(bearer))) > 1:
        raise ClientConfigError("push: more than one of a user in the address, basic_auth and"
                                " authorization")  # fmt: skip
    folder = Path() if path is None else path.parent
    secret_file = basic.get("password_file") or bearer.get("credentials_file")
    if basic:
        user, secret = basic.get("username", ""), basic.get("password", "")
    return ClientConfig(
        url=address,
        user=urllib.parse.unquote(user) if user is not None and not basic else user,
        scheme=bearer.get("type", "Bearer") if bearer else "",
        secret=secret or bearer.get("credentials", ""),
        secret_file=folder / secret_file if secret_file else None,
        ca_file=folder / tls["ca_file"] if "ca_file" in tls else None,
        cert_file=folder / tls["cert_file"] if "cert_file" in tls else None,
        key_file=folder / tls["key_file"] if "key_file" in tls else None,
        verify=tls.get("insecure_skip_verify", "false").lower() != "true",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "not text"
        raise ClientConfigError(f"push_config: cannot read {path}: {reason}") from None
    try:
        found = json.loads(text)
    except ValueError:
        try:
            from esper_exporter.serve.plain_yaml import YamlError, plain_yaml
        except ModuleNotFoundError:
            raise ClientConfigError(
                f"push_config: {path} is not JSON, and YAML needs PyYAML: pip install pyyaml"
            ) from None
        try:
            found = plain_yaml(text)
        except YamlError as problem:
            raise ClientConfigError(f"push_config: {path}{problem}") from None
    if not isinstance(found, dict):
        raise ClientConfigError(f"push_config: {path} must be a mapping")
    for name in found:
        if name not in _KEYS:
            raise ClientConfigError(
                f"push_config: unknown key {name}; known are {', '.join(_KEYS)}"
            )
    return found


def _section(found: dict[str, Any], name: str, path: Path | None) -> dict[str, str]:
    section = found.get(name) or {}
    if not isinstance(section, dict):
        raise ClientConfigError(f"push_config: {name} must be a mapping")
    for key, value in section.items():
        if key not in _KEYS[name]:
            known = ", ".join(sorted(_KEYS[name]))
            raise ClientConfigError(f"push_config: unknown key {name}.{key}; known are {known}")
        if not isinstance(value, (str, bool, int)):
            raise ClientConfigError(f"push_config: {name}.{key} must be text")
    texts = {key: str(value) for key, value in section.items()}
    for secret in ("password", "credentials"):
        if secret in texts and f"{secret}_file" in texts:
            raise ClientConfigError(f"push_config: both {name}.{secret} and {name}.{secret}_file")
    return texts
