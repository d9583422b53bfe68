"""GPU pages as they are served, compared with pages that were looked at.

    pytest tests/probes/gpu/test_pages.py --regenerate

writes them anew; look at the difference before committing it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from esper_exporter.metrics.row_types import compiled
from esper_exporter.metrics.table import ValueTable
from esper_exporter.metrics.vital_rows import VitalRows
from esper_exporter.probes.gpu.gpu_report import GpuReport, XidReport
from esper_exporter.probes.gpu.nvml import Nvml
from esper_exporter.probes.gpu.xid import XidWatcher
from support.machine import NOW, Sampled, gpu_page
from support.nvml import Fails, ScriptedNvml, xid

PAGES = Path(__file__).parent / "pages"


def healthy(count: int, **options: int) -> str:
    sampled = Sampled(ScriptedNvml(count, **options), slow_every=60.0)
    sampled.step()
    return sampled.page


def one_field_unsupported() -> str:
    library = ScriptedNvml()
    library.outcomes["nvmlDeviceGetFanSpeed"] = Fails(pynvml.NVML_ERROR_NOT_SUPPORTED)
    sampled = Sampled(library)
    for _ in range(3):
        sampled.step()
    return sampled.page


def off_the_bus() -> str:
    """Two passes with both, two without the second, whose loss the driver reported as XID 79."""
    library = ScriptedNvml(2)
    sampled = Sampled(library)
    sampled.step()
    sampled.step()
    gone = Fails(pynvml.NVML_ERROR_GPU_IS_LOST)
    for name in [name for name in dir(pynvml) if name.startswith("nvmlDeviceGet")]:
        library.outcomes[name, 1] = gone
    sampled.step()
    sampled.step()
    reported = []
    watched = ScriptedNvml(2)
    watched.events = [xid(1, 79)]
    watcher = XidWatcher(Nvml(lambda: watched), reported.append, clock=lambda: NOW + 12)
    watcher.step()
    return gpu_page(sampled.report, reported[-1])


def hanging() -> str:
    """The second GPU hangs in the second pass: the first one's numbers and time go on."""
    library = ScriptedNvml(2)
    sampled = Sampled(library)
    sampled.step()
    library.round = 1
    gate = library.gates["nvmlDeviceGetPowerUsage", 1] = threading.Event()
    thread = threading.Thread(target=sampled.step)
    thread.start()
    assert library.waiting.wait(60)
    page = sampled.page
    gate.set()
    thread.join()
    return page


CASES: dict[str, Callable[[], str]] = {
    "none": lambda: healthy(0),
    "one": lambda: healthy(1),
    "two": lambda: healthy(2),
    "eight": lambda: healthy(8),
    "mig": lambda: healthy(1, mig=2),
    "unsupported": one_field_unsupported,
    "lost": off_the_bus,
    "hanging": hanging,
}


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_the_one_that_was_looked_at(name: str, request: pytest.FixtureRequest) -> None:
    page = CASES[name]()
    path = PAGES / f"{name}.prom"
    if request.config.getoption("--regenerate"):
        path.write_text(page)
    assert page == path.read_text()


def test_rows_go_with_what_they_were_about() -> None:
    table = ValueTable(compiled().blocks)
    rows = VitalRows(table, compiled())
    split = Sampled(ScriptedNvml(2, mig=2))
    rows.show_gpus(split.step(), XidReport())
    assert len(table.rows["esper_gpu_mig_info"]) == 4
    whole = Sampled(ScriptedNvml(1))
    rows.show_gpus(whole.step(), XidReport())
    assert [len(table.rows[name]) for name in ("gpu", "esper_gpu_mig_info", "gpu_ecc")] == [1, 0, 4]


def test_no_driver_is_the_page_without_a_gpu() -> None:
    library = ScriptedNvml()
    library.outcomes["nvmlInit"] = Fails(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    sampled = Sampled(library)
    assert isinstance(sampled.step(), GpuReport)
    assert sampled.page == (PAGES / "none.prom").read_text()
