"""A share that is full, or cannot be made: nothing published is damaged, and it is tried again."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.agent import shared_page
from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from esper_exporter.serve.negotiation import negotiate
from support.command import environment
from support.programs import wait_until

TRAINER = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:3]
from trainer import STARTED, update
from esper_exporter import Exporter

share = Path(sys.argv[1])
exporter = Exporter(share=share, run_id="full", port="off", state_dir="off")
exporter.start()
exporter.emit({"event_type": "TRAINING_STARTED", "timestamp": 1.0, "data": STARTED})
exporter.emit(update(1))
exporter.keep()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
full = max(path.stat().st_size for path in share.glob("*/layout.*")) + 50
"""
"""A training; beyond ``full`` bytes its layout finds no room, in the middle of a record."""
FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))\n"
FREE = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
LATCH = 'exporter.emit(update(2, "op"))\n'
ENVS = """
for env in range(1000):
    exporter.emit({"event_type": "EPOCH_COMPLETED", "timestamp": 2.0, "env_id": env, "epoch": 1,
        "data": {"env_id": env, "val_accuracy": 50.0, "val_loss": 1.0, "inner_epoch": 1}})
exporter.keep()
"""
END = 'print("done", flush=True)\nimport os; os._exit(0)\n'


def page_after(share: Path, *steps: str) -> str:
    """The agent's page after a training that took these steps."""
    share.mkdir(mode=0o700)
    program = TRAINER + "".join(steps) + END
    done = subprocess.run(
        [sys.executable, "-c", program, str(share), str(Path(__file__).parent)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "done\n", done.stderr
    agent = NodeAgent(AgentSettings(shares=[share], port=0, gpu_vitals="off", host_vitals="off"))
    agent.start()
    try:
        return agent.render(negotiate(None), False).decode()
    finally:
        agent.close()


LIT = (
    'esper_tamiyo_head_nonfinite_first_timestamp_seconds{run_id="full",group_id="default",rank="0"'
    ',head="op",kind="nan"}'
)


def test_a_latch_finds_room_in_a_full_share(tmp_path: Path) -> None:
    page = page_after(tmp_path / "share", FULL, LATCH)
    assert LIT in page


def test_a_page_is_whole_again_when_a_full_share_has_room(tmp_path: Path) -> None:
    page = page_after(tmp_path / "share", FULL, ENVS, LATCH, FREE, "exporter.keep()\n")
    assert LIT in page
    assert 'env_id="999"' in page


def test_a_share_that_could_not_be_made_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A socket's path is short.
    with tempfile.TemporaryDirectory() as folder:
        _try_again(Path(folder), monkeypatch, caplog)


def _try_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_page, "SECONDS_UNTIL_OPENED_AGAIN", 0.0)
    blocked = folder / "blocked"
    blocked.write_text("a file where a directory belongs")
    share = blocked / "share"
    exporter = Exporter(share=share, port="off", state_dir="off", run_id="late")  # type: ignore[arg-type]
    exporter.start()
    try:
        wait_until(lambda: "the page is not shared" in caplog.text, "the warning")
        blocked.unlink()
        wait_until(lambda: list(share.glob("*/page")), "the page is shared", seconds=60)
        wait_until(lambda: list(share.glob("*/http.sock")), "the page is answered", seconds=60)
        assert caplog.text.count("the page is not shared") == 1
    finally:
        exporter.close()


def test_a_share_that_cannot_be_written_to_keeps_no_half_made_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "share"

    def full(_directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_page, "LayoutWriter", full)
    exporter = Exporter(share=share, port="off", state_dir="off", run_id="full")  # type: ignore[arg-type]
    exporter.start()
    try:
        assert list(share.iterdir()) == []
    finally:
        exporter.close()
