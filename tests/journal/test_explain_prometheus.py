"""`explain --prometheus`: the same cause from a real server's samples."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from esper_exporter import Exporter
from esper_exporter.cli import main
from esper_exporter.demo.bundled import recording
from support.programs import program
from support.prometheus import prometheus

WANTED = {"PPO_UPDATE_COMPLETED", "BATCH_EPOCH_COMPLETED", "NUMERICAL_INSTABILITY_DETECTED"}


def _update(number: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(event: dict[str, Any]) -> None:
        if event["event_type"] == "PPO_UPDATE_COMPLETED" and event["data"]["batch"] == number:
            event["data"].update(values)

    return change


def _as_recorded(event: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        pytest.param("run2b", _as_recorded, ("head_nan", "tempo", 3), id="run2b"),
        pytest.param("run1", _as_recorded, ("healthy", None, None), id="run1"),
        pytest.param(
            "run1",
            _update(6, head_inf_detected={"alpha_curve": True}),
            ("head_inf", "alpha_curve", 6),
            id="head-inf",
        ),
        pytest.param(
            "run1",
            _update(8, pre_clip_grad_norm=5e4),
            ("gradient_explosion", None, 8),
            id="explosion",
        ),
        pytest.param(
            "run1", _update(6, kl_divergence=0.8), ("trust_region", None, 6), id="kl-divergence"
        ),
        pytest.param(
            "run1",
            _update(6, ratio_max=40.0, head_op_ratio_max=40.0),
            ("ratio_explosion", "op", 6),
            id="ratio",
        ),
    ],
)
def test_the_cause_from_a_server_is_that_from_telemetry(
    name: str,
    change: Callable[[dict[str, Any]], None],
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
            change(event)
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


REAL: dict[str, tuple[str, str | None, int | None]] = {
    "gradinf": ("gradient_nonfinite", None, 3),
    "infblue": ("head_inf", "blueprint", 2),
    "nanend": ("head_nan", "slot", 3),
    "twohead": ("head_inf", "style", 2),
    "rollback": ("rollbacks", None, 1),
    "healthy6": ("healthy", None, None),
}
"""Recording of a real run → first cause, head, update, as from its telemetry."""


def _moved_to_now(path: Path, file: Path) -> None:
    """Write a recording as if it had ended ten minutes ago: a server looks back for days."""
    events = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    last = datetime.fromisoformat(events[-1]["timestamp"])
    later = datetime.now(UTC) - last - timedelta(minutes=10)
    for event in events:
        event["timestamp"] = (datetime.fromisoformat(event["timestamp"]) + later).isoformat()
    file.write_text("".join(json.dumps(event) + "\n" for event in events))


def _stored(samples: Path, tmp_path: Path) -> None:
    """Put samples into the data of the server that starts in the folder."""
    subprocess.run(
        [
            *(program("promtool"), "tsdb", "create-blocks-from", "openmetrics"),
            *(str(samples), str(tmp_path / "data")),
        ],
        check=True,
        capture_output=True,
    )


def test_no_cause_is_invented_for_a_rarely_scraped_run(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """At one sample in five seconds most updates are on no sample."""
    telemetry, samples = tmp_path / "run2b.jsonl", tmp_path / "run2b.om"
    with recording("run2b") as path:
        _moved_to_now(path, telemetry)
    arguments = ["backfill", str(telemetry), "--out", str(samples), "--step", "5"]
    assert main([*arguments, "--run-id", "rare"]) == 0
    _stored(samples, tmp_path)
    capsysbinary.readouterr()
    with prometheus(tmp_path, []) as server:
        assert main(["explain", "--prometheus", server.url, "--run-id", "rare", "--json"]) == 0
    report = json.loads(capsysbinary.readouterr().out)
    assert (report["cause"], report["head"]) == ("head_nan", "tempo")
    (latched,) = (each for each in report["evidence"] if "skipped" in each.get("columns", ()))
    assert [row[1:] for row in latched["rows"]] == [
        ["log_probs[tempo]", "nan", None],
        ["log_probs[op]", "nan", None],
    ]
    assert "Which update exactly" in str(report["unknown"])
    assert "How the process itself ended" in str(report["unknown"])


def test_the_cause_of_a_real_run_is_the_same_from_its_samples(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for name in REAL:
        telemetry, samples = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.om"
        _moved_to_now(
            Path(__file__).parents[1] / "recordings" / "faults" / f"{name}.jsonl.gz", telemetry
        )
        arguments = ["backfill", str(telemetry), "--out", str(samples), "--step", "0.25"]
        assert main([*arguments, "--run-id", name]) == 0
        _stored(samples, tmp_path)
    capsysbinary.readouterr()
    found = {}
    with prometheus(tmp_path, []) as server:
        for name in REAL:
            arguments = ["explain", "--prometheus", server.url, "--run-id", name, "--json"]
            assert main(arguments) == 0
            report = json.loads(capsysbinary.readouterr().out)
            found[name] = (report["cause"], report["head"], report["update"])
    assert found == REAL


ENDS = {
    "killed": ("killed", 9, 137),
    "segfault": ("killed", 11, 139),
    "abort": ("killed", 6, 134),
    "exit": ("exception", 0, 3),
    "died": ("killed", None, None),
    "oom": ("out_of_memory", 9, 137),
}
"""Reason of esper_run_failed → the cause, the signal and the exit code that the agent saw."""


def _page() -> bytes:
    lines = []
    for reason, (_, signal, code) in ENDS.items():
        labels = f'run_id="{reason}",group_id="default",rank="0"'
        now = time.time()
        lines += [
            f"esper_run_start_timestamp_seconds{{{labels}}} {now - 60}",
            f"esper_run_last_event_timestamp_seconds{{{labels}}} {now - 5}",
            f"esper_run_end_timestamp_seconds{{{labels}}} {now - 4}",
            f"esper_run_finished{{{labels}}} 0",
            f"esper_run_batch{{{labels}}} 4",
            *(
                f'esper_run_failed{{{labels},reason="{each}"}} {int(each == reason)}'
                for each in ENDS
            ),
        ]
        if signal is not None:
            lines.append(f"esper_run_exit_signal{{{labels}}} {signal}")
            lines.append(f"esper_run_exit_code{{{labels}}} {code}")
    return "\n".join([*lines, ""]).encode()


def test_how_a_process_ended_is_read_from_a_server(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(_page())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        with prometheus(tmp_path, [f"127.0.0.1:{http.server_port}"], interval="200ms") as server:
            server.wait_for('esper_run_batch{run_id="oom"}', 4.0)
            for reason, (cause, signal, code) in ENDS.items():
                arguments = ["explain", "--prometheus", server.url, "--run-id", reason, "--json"]
                assert main(arguments) in (0, 1)
                text = capsysbinary.readouterr().out
                assert json.loads(text)["cause"] == cause, reason
                if signal:
                    assert b"signal %d" % signal in text
                if code is not None:
                    assert b"exit code %d" % code in text
        http.shutdown()
