"""Without the libraries of an extra: one sentence names it, and nothing is served in the clear."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from esper_exporter.replay.progress import Text, progress_for
from esper_exporter.serve.security import load
from esper_exporter.serve.server import MetricsServer
from esper_exporter.serve.web_config import WebConfigError
from serve.fakes import FakeSource
from serve.secured import USERS


@pytest.mark.parametrize(("library", "name"), [("bcrypt", "bcrypt"), ("yaml", "yaml")])
def test_a_password_file_is_refused_without_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    config = tmp_path / "web.yml"
    config.write_text(USERS)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "esper_exporter.serve.plain_yaml", raising=False)
    server = MetricsServer(FakeSource(), host="127.0.0.1", port=0, web_config=config)
    with pytest.raises(WebConfigError) as refused:
        server.start()
    assert str(refused.value) == (
        f"{config} needs {name}, which is missing: pip install pyyaml bcrypt"
    )
    assert not server.listening


def test_a_file_without_passwords_needs_no_bcrypt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "web.yml"
    config.write_text("rate_limit: {interval: 1s, burst: 5}\n")
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    assert load(config).config.rate_limit is not None


def test_a_replay_on_a_terminal_goes_without_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", type("Terminal", (), {"isatty": lambda _self: True})())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert isinstance(progress_for([], grows=False), Text)
