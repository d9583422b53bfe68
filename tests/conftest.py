"""What holds for all tests: an exporter ends at once, and writes nothing to the user's own state
directory, unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installed import build_context, build_wheel, install


@pytest.fixture(autouse=True, scope="session")
def _ends_at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch().context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("ESPER_EXPORTER_LINGER", "0")
        yield


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of what the image is built of and of nothing else."""
    context = build_context(tmp_path_factory.mktemp("context"))
    return build_wheel(context, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a clean environment in which the wheel is installed."""
    return install(wheel, tmp_path_factory.mktemp("clean"))
