"""What holds for all tests, unless one says otherwise: an exporter ends at once, writes nothing to
the user's own state directory, and reads nothing of the machine that runs the tests."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.installed import build_context, build_wheel, install

pytest_plugins = ("support.progress",)

# How long an example takes says how busy the machine is.
settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")

E2E = (
    "e2e/",
    "dashboards/test_on_prometheus.py",
    "page/test_access.py",
    "page/test_cost.py",
    "page/test_decisions.py",
    "page/test_heads_oracle.py",
    "page/test_marks.py",
    "page/test_node.py",
    "page/test_page.py",
    "page/test_replay_controls.py",
    "serve/test_secured_scrapes.py",
    "test_alert_routes.py",
    "test_alerts.py",
    "test_benchmarks.py",
    "test_deployment.py",
    "test_installed.py",
)
"""Tests with real servers, browsers, programs or environments: `make check` leaves them out."""

SLOW = (
    "adapters/test_attach.py",
    "adapters/test_run.py",
    "agent/test_node_agent.py",
    "agent/test_run_command.py",
    "contract/test_fast_path.py",
    "contract/test_hostile_input.py",
    "demo/",
    "journal/test_explain.py",
    "journal/test_explain_prometheus.py",
    "journal/test_journal.py",
    "journal/test_mcp.py",
    "journal/test_page_at.py",
    "journal/test_parts.py",
    "journal/test_sql_command.py",
    "journal/test_sql_views.py",
    "metrics/test_scrape_independence.py",
    "metrics/test_unreported.py",
    "probes/test_waiting.py",
    "serve/test_attacks.py",
    "serve/test_forks.py",
    "serve/test_target_files.py",
    "shutdown/test_process.py",
    "test_bad_input.py",
    "test_chart.py",
    "test_cli.py",
    "test_integration_examples.py",
    "test_packaging.py",
    "test_wrong_input.py",
)
"""Tests without servers that train, draw many examples or start a process each. They take most of
the suite's time: `make check`, the inner loop, leaves them out as well."""


FAST = "not slow and not e2e"
"""The marks that `make check` chooses."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out unread what `make check` leaves out: importing it takes each process seconds."""
    if config.option.markexpr != FAST or collection_path.suffix != ".py":
        return None
    name = collection_path.relative_to(Path(__file__).parent).as_posix()
    return True if name.startswith((*E2E, *SLOW)) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the file that they are in; single ones are marked where they are."""
    folder = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(folder).as_posix()
        for marker, places in (("e2e", E2E), ("slow", SLOW)):
            if name.startswith(places):
                item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged travels from pytest-xdist's workers, which takes no lone surrogates."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the expected pages anew")


@pytest.fixture(autouse=True, scope="session")
def _ends_at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch().context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("ESPER_EXPORTER_LINGER", "0")
        patch.setenv("ESPER_EXPORTER_SHARE", "off")
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
