"""What becomes of one request: sent, refused, or worth another try; who sends it is proven."""

from __future__ import annotations

import base64
import email.utils
import json
import logging
import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from esper_exporter.push.client_config import ClientConfigError, client_config
from esper_exporter.push.receiver import Receiver
from esper_exporter.push.write_request import WriteRequest, snappy
from serve.certificates import Authority
from support.ports import free_port
from support.remote_write import Answer, fake_receiver

BODY = bytes(snappy.compress_raw(WriteRequest().SerializeToString()))


@pytest.mark.parametrize(
    ("answer", "kind", "reason", "wait"),
    [
        (Answer(200), "sent", "", 0.0),
        (Answer(204), "sent", "", 0.0),
        (Answer(400, body=b"out of order sample"), "refused", "refused", 0.0),
        (Answer(401), "refused", "refused", 0.0),
        (Answer(404), "refused", "refused", 0.0),
        (Answer(307, {"Location": "/elsewhere"}), "refused", "refused", 0.0),
        (Answer(302, {"Location": "/elsewhere"}), "refused", "refused", 0.0),
        (Answer(429, {"Retry-After": "7"}), "failed", "throttled", 7.0),
        (Answer(503, {"Retry-After": "3"}), "failed", "server", 3.0),
        (Answer(500), "failed", "server", 0.0),
        (Answer(503, {"Retry-After": "soon"}), "failed", "server", 0.0),
    ],
)
def test_the_answer_decides(answer: Answer, kind: str, reason: str, wait: float) -> None:
    with fake_receiver() as receiver:
        receiver.answer = answer
        outcome = Receiver(client_config(receiver.url, None)).send(BODY)
    assert (outcome.kind, outcome.reason, outcome.wait) == (kind, reason, wait)
    assert answer.body.decode() in outcome.detail
    assert len(receiver.asked) == 1
    _, headers = receiver.asked[0]
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["Content-Encoding"] == "snappy"
    assert headers["X-Prometheus-Remote-Write-Version"] == "0.1.0"


def test_retry_after_may_be_a_date() -> None:
    with fake_receiver() as receiver:
        date = email.utils.formatdate(time.time() + 60, usegmt=True)
        receiver.answer = Answer(503, {"Retry-After": date})
        outcome = Receiver(client_config(receiver.url, None)).send(BODY)
    assert 0 < outcome.wait <= 61


def test_a_refused_connection_and_a_timeout_are_retried() -> None:
    url = f"http://127.0.0.1:{free_port()}/api/v1/write"
    assert Receiver(client_config(url, None)).send(BODY).reason == "connection"
    with fake_receiver() as receiver:
        receiver.answer = Answer(200, seconds=60)
        outcome = Receiver(client_config(receiver.url, None)).send(BODY, 0.2)
    assert (outcome.kind, outcome.reason) == ("failed", "timeout")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_password_and_a_token_are_sent(tmp_path: Path, as_json: bool) -> None:
    def config(document: dict[str, Any]) -> Path:
        path = tmp_path / "push.yml"
        lines = [f"{name}: {json.dumps(value)}" for name, value in document.items()]
        path.write_text(json.dumps(document) if as_json else "\n".join(lines))
        return path

    (tmp_path / "token").write_text("from-file\n")
    pair = base64.b64encode(b"ada:s3cret").decode()
    with fake_receiver() as receiver:
        for document, expected in (
            ({"basic_auth": {"username": "ada", "password": "s3cret"}}, f"Basic {pair}"),
            ({"authorization": {"credentials": "t0ken"}}, "Bearer t0ken"),
            ({"authorization": {"credentials_file": "token"}}, "Bearer from-file"),
            ({"authorization": {"type": "Token", "credentials": "x"}}, "Token x"),
        ):
            Receiver(client_config(receiver.url, config(document))).send(BODY)
            assert receiver.asked[-1][1]["Authorization"] == expected
        with_user = receiver.url.replace("//", "//ada:s3cret@")
        found = client_config(with_user, None)
        assert "s3cret" not in repr(found) and "ada" not in found.url
        Receiver(found).send(BODY)
        assert receiver.asked[-1][1]["Authorization"] == f"Basic {pair}"


def test_a_renewed_token_is_read_again_and_a_missing_one_waits(tmp_path: Path) -> None:
    (tmp_path / "push.yml").write_text("authorization: {credentials_file: token}")
    with fake_receiver() as receiver:
        sender = Receiver(client_config(receiver.url, tmp_path / "push.yml"))
        assert sender.send(BODY).reason == "configuration"
        for token in ("one", "two"):
            (tmp_path / "token").write_text(token)
            assert sender.send(BODY).kind == "sent"
            assert receiver.asked[-1][1]["Authorization"] == f"Bearer {token}"


def test_a_receiver_is_verified_by_its_authority_and_verifies_the_sender(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server = authority.issue("server")
    client = authority.issue("trainer", client=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    path = tmp_path / "push.yml"
    with fake_receiver(context) as receiver:
        assert Receiver(client_config(receiver.url, None)).send(BODY).reason == "tls"
        tls = f"ca_file: {authority.path}"
        path.write_text(f"tls_config: {{{tls}}}")
        assert Receiver(client_config(receiver.url, path)).send(BODY).kind == "failed"
        pair = f"cert_file: {client.certificate}, key_file: {client.key}"
        path.write_text(f"tls_config: {{{tls}, {pair}}}")
        assert Receiver(client_config(receiver.url, path)).send(BODY).kind == "sent"
        path.write_text(f"tls_config: {{insecure_skip_verify: true, {pair}}}")
        assert Receiver(client_config(receiver.url, path)).send(BODY).kind == "sent"


@pytest.mark.parametrize(
    ("url", "text", "message"),
    [
        ("ftp://host/write", "", "must be an http:// or https:// address"),
        ("receiver:9090/api/v1/write", "", "must be an http:// or https:// address"),
        ("http://host:70000/", "", "must be an http:// or https:// address"),
        ("http://host/", "basic_auht: {}", "unknown key basic_auht"),
        ("http://host/", "basic_auth: {user: x}", "unknown key basic_auth.user"),
        ("http://host/", "- a", "must be a mapping"),
        ("http://host/", "basic_auth: {password: a, password_file: b}", "both basic_auth.password"),
        (
            "http://host/",
            "{basic_auth: {username: x}, authorization: {credentials: y}}",
            "more than one",
        ),
        ("http://host/", "a: [", "invalid YAML"),
    ],
)
def test_a_wrong_configuration_is_refused(
    tmp_path: Path, url: str, text: str, message: str
) -> None:
    path = tmp_path / "push.yml"
    path.write_text(text)
    with pytest.raises(ClientConfigError, match=re.escape(message)):
        client_config(url, path if text else None)


def test_no_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://ada:s3cret@127.0.0.1:{free_port()}/"
    outcome = Receiver(client_config(url, None)).send(BODY)
    assert "s3cret" not in outcome.detail + caplog.text
