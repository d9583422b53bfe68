"""What holds for all tests, unless one says otherwise: an exporter ends at once, writes nothing to
the user's own state directory, and tells nothing of the machine that runs the tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installed import build_context, build_wheel, install


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the expected pages anew")


@pytest.fixture(autouse=True, scope="session")
def _ends_at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch().context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("ESPER_EXPORTER_LINGER", "0")
        patch.setenv("ESPER_EXPORTER_GPU_VITALS", "off")
        patch.setenv("ESPER_EXPORTER_HOST_VITALS", "off")
        yield


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """What a shell starts in the background ignores SIGINT, and so would every child."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of what the image is built of and of nothing else."""
    context = build_context(tmp_path_factory.mktemp("context"))
    return build_wheel(context, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a clean environment in which the wheel is installed."""
    return install(wheel, tmp_path_factory.mktemp("clean"))
