"""Build an ssl context from the TLS part of a web configuration."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from esper_exporter.serve.web_config import OPENSSL_CIPHERS, Pem, TlsSettings, WebConfigError

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_VERIFY = {"none": ssl.CERT_NONE, "if_given": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """A server context that offers HTTP/1.1. Raises WebConfigError, naming the key at fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.maximum_version = _VERSIONS[settings.max_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if settings.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, settings)
    _set_ciphers(context, settings)
    _set_curves(context, settings)
    context.verify_mode = _VERIFY[settings.client_auth]
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(cadata=settings.client_ca.read().decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise WebConfigError(f"{settings.client_ca.key}: no certificate in it") from error
    elif settings.client_auth != "none":
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    return context


def certificate_admitted(
    settings: TlsSettings | None, certificate: Mapping[str, Any] | None
) -> bool:
    """Whether a verified client certificate has one of the allowed subject alternative names.

    ``certificate`` is the result of ``SSLSocket.getpeercert()``. True where no names are required.
    """
    if settings is None or settings.client_allowed_sans is None:
        return True
    names = {_name(kind, value) for kind, value in (certificate or {}).get("subjectAltName", ())}
    return not settings.client_allowed_sans.isdisjoint(names)


def _name(kind: str, value: str) -> str:
    if kind == "IP Address":
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(value.strip()))
    return value


def _load_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    certificate, key = settings.certificate, settings.private_key
    with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
        try:
            context.load_cert_chain(certificate_path, key_path, password=_no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                message = f"{key.key}: the key does not belong to {certificate.key}"
            else:
                message = f"{certificate.key}, {key.key}: not a usable certificate and key in PEM"
            raise WebConfigError(message) from error
        except _EncryptedKey as error:
            raise WebConfigError(f"{key.key}: the key is encrypted; decrypt it") from error


class _EncryptedKey(Exception):
    pass


def _no_password() -> str:
    """Keeps OpenSSL from asking for a password on the training's terminal."""
    raise _EncryptedKey


def _set_ciphers(context: ssl.SSLContext, settings: TlsSettings) -> None:
    if not settings.cipher_suites:
        return
    names = [OPENSSL_CIPHERS[name] for name in settings.cipher_suites if name in OPENSSL_CIPHERS]
    if not names:
        if settings.max_version == "TLS12":
            raise WebConfigError("tls_server_config.cipher_suites names no TLS 1.2 suite")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    try:
        context.set_ciphers(":".join(names))
    except ssl.SSLError as error:
        raise WebConfigError(
            "tls_server_config.cipher_suites: this machine's OpenSSL supports none of them"
        ) from error


def _set_curves(context: ssl.SSLContext, settings: TlsSettings) -> None:
    names = [_CURVES[name] for name in settings.curves]
    if not names:
        return
    set_groups = getattr(context, "set_groups", None)  # Python 3.15
    try:
        if set_groups is not None:
            set_groups(":".join(names))
        elif len(names) == 1:
            context.set_ecdh_curve(names[0])
        else:
            raise WebConfigError(
                "tls_server_config.curve_preferences: this Python's ssl supports one curve only"
            )
    except (ssl.SSLError, ValueError) as error:
        if isinstance(error, WebConfigError):
            raise
        raise WebConfigError(
            "tls_server_config.curve_preferences: this machine's OpenSSL does not support it"
        ) from error


@contextlib.contextmanager
def _as_file(pem: Pem) -> Iterator[str]:
    """A path to the PEM's current bytes, because ssl reads keys from paths only.

    In memory where the system supports it, so that an inline key never touches a disk.
    """
    data = pem.read()
    try:
        fd = os.memfd_create("esper-exporter-pem", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
