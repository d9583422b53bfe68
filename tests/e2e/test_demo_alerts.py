"""Each fault of the demo and of a simulated GPU sends exactly the expected notifications."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path

from demo.small import SMALL, one_thread
from esper_exporter import Exporter
from esper_exporter.demo.faults import Faults
from esper_exporter.demo.injection import fault
from esper_exporter.demo.stream import Stream
from esper_exporter.demo.training import Training
from esper_exporter.probes.gpu.fake import FakeDriver
from esper_exporter.probes.gpu.fake import Fault as GpuFault
from support.alertmanager import alertmanager
from support.programs import wait_until
from support.prometheus import Prometheus, prometheus

RULES = sorted((Path(__file__).parents[2] / "alerts" / "rules").glob("*.yml"))
EXPECTED = {
    "clean": set(),
    "nan:op@2": {"EsperHeadNonFiniteLatched"},
    "inf:tempo@2:full": {"EsperHeadNonFiniteLatched"},
    "grad-explode@1 grad-explode@2": {"EsperGradientExplosion"},
    "grad-nan@2": {"EsperNonFiniteLatched"},
    # The latch represents the end that it caused.
    "nan:op@1:full nan:op@2:full nan:op@3:full": {"EsperHeadNonFiniteLatched"},
    "oom@2": {"EsperRunFailed"},
    "crash@2": {"EsperRunFailed"},
    "xid": {"EsperGpuXid"},
}
"""Faults → notifications. alerts/README.md has the measurements that take minutes."""


def train(exporter: Exporter, faults: str, server: Prometheus) -> None:
    """A training with faults, whose exporter stays until two scrapes have seen how it ended."""
    injected = [] if faults in ("clean", "xid") else [fault(text) for text in faults.split()]
    # The training's end is the subject: the exporter reports it.
    with suppress(Exception), exporter:
        training = Training(
            SMALL,
            Stream(exporter, None, False),
            Faults(injected, lambda: None),
        )
        for _ in training.batches():
            pass
        if faults == "xid":
            # A run that finished well does not wait.
            server.wait_for("sum(esper_gpu_xid_errors_total)", 1.0)


def test_each_fault_sends_its_notification_and_no_other(tmp_path: Path) -> None:
    exporters = {
        faults: Exporter(
            port=0,
            run_id=f"run-{number}",
            state_dir="off",
            linger=60,
            # One process of a node reports its GPUs.
            gpu_vitals="on" if faults == "xid" else "off",
            gpu_driver=FakeDriver(1, faults=[GpuFault("xid", code=79)]),
        )
        for number, faults in enumerate(EXPECTED)
    }
    for exporter in exporters.values():
        exporter.start()
    addresses = [f"127.0.0.1:{exporter.port}" for exporter in exporters.values()]
    with (
        one_thread(),
        alertmanager(tmp_path / "alertmanager", group_wait="5s") as receiver,
        prometheus(
            tmp_path, addresses, rule_files=RULES, alertmanagers=[receiver.address]
        ) as server,
        ThreadPoolExecutor(len(exporters)) as pool,
    ):
        server.wait_for("sum(up)", float(len(exporters)))
        list(pool.map(train, exporters.values(), exporters, repeat(server)))
        server.wait_for("sum(up)", 0.0)

        def reported() -> dict[str, set[str]]:
            alerts = [
                alert["labels"] for _, who, alert in list(receiver.received) if who != "nobody"
            ]
            return {
                faults: {
                    labels["alertname"] for labels in alerts if labels.get("instance") == address
                }
                for faults, address in zip(EXPECTED, addresses, strict=True)
            }

        # The slowest notifications wait for their group: by then all have arrived.
        wait_until(
            lambda: all(expected <= reported()[faults] for faults, expected in EXPECTED.items()),
            "every expected notification",
            40.0,
        )
        assert reported() == EXPECTED
        raised = server.query('count by (severity) (ALERTS{alertstate="firing"})')
        assert dict(raised)[("severity", "none"),] > 1.0
