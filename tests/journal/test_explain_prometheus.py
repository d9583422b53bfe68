"""`explain --prometheus`: the same cause from a real server's samples."""

from __future__ import annotations

import gzip
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from esper_exporter import Exporter
from esper_exporter.cli import main
from esper_exporter.demo.bundled import recording
from support.prometheus import prometheus

WANTED = {"PPO_UPDATE_COMPLETED", "BATCH_EPOCH_COMPLETED", "NUMERICAL_INSTABILITY_DETECTED"}


@pytest.mark.parametrize(
    ("name", "expected"), [("run2b", ("head_nan", "tempo", 3)), ("run1", ("healthy", None, None))]
)
def test_the_cause_from_a_server_is_that_from_telemetry(
    name: str,
    expected: tuple[str, str | None, int | None],
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    with recording(name) as path:
        lines = gzip.decompress(path.read_bytes()).splitlines()
    with (
        Exporter(port=0, state_dir="off", watch_process=False, run_id="night-7") as exporter,
        prometheus(tmp_path, [f"127.0.0.1:{exporter.port}"], interval="200ms") as server,
    ):
        server.wait_for("up", 1.0)
        for line in lines:
            event = json.loads(line)
            event["timestamp"] = datetime.now(UTC).isoformat()
            exporter.emit(event)
            if event["event_type"] in WANTED:
                time.sleep(0.45)  # what the trainer's own pace would be
        server.wait_for('esper_run_batch{run_id="night-7"}', 14.0 if name == "run1" else 5.0)
        assert main(["explain", "--prometheus", server.url, "--run-id", "night-7", "--json"]) == 0
        report = json.loads(capsysbinary.readouterr().out)
        assert (report["cause"], report["head"], report["update"]) == expected
        assert main(["explain", "--prometheus", server.url, "--run-id", "none"]) == 1
        evil = 'x"} or vector(1) or esper_run_info{run_id="'
        assert main(["explain", "--prometheus", server.url, "--run-id", evil]) == 1
    assert main(["explain", "--prometheus", "file:///etc/hostname"]) == 1
    assert main(["explain", "--prometheus", "http://127.0.0.1:9"]) == 1
