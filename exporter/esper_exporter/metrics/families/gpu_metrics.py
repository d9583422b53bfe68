"""GPUs: their driver's readings, their faults, and the runs that use them."""

from __future__ import annotations

from esper_exporter.metrics.metric import RUN_LABELS, Metric
from esper_exporter.metrics.metric_builders import counter, counter_in, gauge, info, split
from esper_exporter.probes.gpu.gpu_vocabulary import (
    DIRECTIONS,
    ECC_KINDS,
    NVLINK_ERRORS,
    RETIREMENT_CAUSES,
    THROTTLE_REASONS,
    TIMED_REASONS,
)
from esper_exporter.state import counted

NVML = "derived: NVML's "

INFO_LABELS = ("gpu", "uuid", "name", "pci_bus_id", "driver_version", "cuda_version", "source")
MIG_LABELS = ("gpu", "uuid", "mig", "mig_uuid", "name", "gpu_instance_id", "compute_instance_id")


def _gpu(name: str, source: str, help: str) -> Metric:
    return gauge("gpu", f"esper_gpu_{name}", NVML + source, help)


METRICS: tuple[Metric, ...] = (
    gauge(
        "gpus",
        "esper_gpu_present",
        "derived: whether NVML lists a GPU",
        "1 if the driver lists a GPU, 0 if there is no driver, no permission or no GPU; absent"
        " where another process of the node reports it.",
    ),
    info(
        "esper_gpu_info",
        INFO_LABELS,
        "derived: NVML's name, PCI bus id and versions; source is fake for simulated GPUs",
        "Model, place and driver of a GPU.",
    ),
    _gpu(
        "utilization_ratio",
        "utilisation rates",
        "Share of the driver's last sample period, up to a second, in which a kernel ran, 0 to 1.",
    ),
    _gpu(
        "memory_bandwidth_utilization_ratio",
        "utilisation rates",
        "Share of the same period in which device memory was read or written, 0 to 1.",
    ),
    _gpu("memory_used_bytes", "memory info", "Device memory in use, by every process."),
    _gpu("memory_free_bytes", "memory info", "Device memory that is free."),
    _gpu("memory_total_bytes", "memory info", "Device memory there is."),
    _gpu(
        "memory_reserved_bytes",
        "memory info, version 2",
        "Device memory that driver and firmware keep for themselves.",
    ),
    gauge(
        "gpu",
        "esper_gpu_memory_alarm",
        "derived: memory used / total > 0.9",
        "1 when more than 90 % of the device memory is in use.",
    ),
    _gpu("temperature_celsius", "GPU temperature", "Temperature of the GPU."),
    _gpu("memory_temperature_celsius", "field 82", "Temperature of the device memory."),
    _gpu("power_watts", "power usage", "Power drawn by the board, with its memory."),
    _gpu("power_limit_watts", "enforced power limit", "Power that the board is held to."),
    counter_in(
        "gpu",
        "esper_gpu_energy_joules_total",
        NVML + "total energy consumption",
        "Energy used since the driver was loaded.",
    ),
    _gpu("sm_clock_hertz", "clock info", "Clock of the streaming multiprocessors."),
    _gpu("sm_clock_max_hertz", "max clock info", "Highest clock of the multiprocessors."),
    _gpu("memory_clock_hertz", "clock info", "Clock of the device memory."),
    _gpu("memory_clock_max_hertz", "max clock info", "Highest clock of the device memory."),
    split(
        "gpu",
        "esper_gpu_throttled",
        "reason",
        THROTTLE_REASONS,
        NVML + "clocks event reasons",
        "1 for each reason that holds clocks down now, 0 for the others that the GPU knows; several"
        " may hold. gpu_idle is no throttling.",
    ),
    split(
        "gpu",
        "esper_gpu_throttled_seconds_total",
        "reason",
        TIMED_REASONS,
        NVML + "fields 74, 76, 77, 79 and 269 to 271",
        "Time that clocks were held down since the driver was loaded, by reason.",
    ),
    _gpu(
        "performance_state", "performance state", "Performance state, 0 (highest) to 15 (lowest)."
    ),
    _gpu(
        "fan_speed_ratio",
        "fan speed",
        "Fan speed that is asked for, over the fan's highest; may exceed 1.",
    ),
    _gpu("pcie_generation", "current PCIe link", "PCIe generation of the link now."),
    _gpu("pcie_width", "current PCIe link", "Lanes of the PCIe link now."),
    counter_in(
        "gpu",
        "esper_gpu_pcie_replays_total",
        NVML + "PCIe replay counter",
        "PCIe packets that had to be sent again.",
    ),
    split(
        "gpu",
        "esper_gpu_pcie_throughput_bytes",
        "direction",
        DIRECTIONS,
        NVML + "PCIe throughput over 20 ms",
        "Bytes a second over PCIe, seen from the GPU. Only when asked for: measuring takes 40 ms.",
    ),
    split(
        "gpu",
        "esper_gpu_nvlink_errors_total",
        "kind",
        NVLINK_ERRORS,
        NVML + "fields 38, 45, 52 and 59",
        "Errors of all NVLinks of the GPU.",
    ),
    split(
        "gpu",
        "esper_gpu_retired_pages",
        "cause",
        RETIREMENT_CAUSES,
        NVML + "retired pages",
        "Pages of device memory out of use for good, by cause.",
    ),
    split(
        "gpu",
        "esper_gpu_remapped_rows",
        "kind",
        ECC_KINDS,
        NVML + "remapped rows",
        "Rows of device memory replaced by spare ones, by the kind of error.",
    ),
    _gpu(
        "row_remap_pending",
        "remapped rows",
        "1 when rows will be remapped at the next reset of the GPU.",
    ),
    _gpu("row_remap_failed", "remapped rows", "1 when a remapping failed: replace the GPU."),
    _gpu(
        "process_memory_bytes",
        "compute processes",
        "Device memory of this training: of this process and its children.",
    ),
    _gpu(
        "process_sm_utilization_ratio",
        "process utilisation",
        "Share of multiprocessor time that this training used, 0 to 1.",
    ),
    gauge(
        "gpu",
        "esper_gpu_last_sample_timestamp_seconds",
        "derived: when the GPU last answered",
        "When the GPU last answered; stops advancing when the driver hangs or the GPU is lost.",
    ),
    counter_in(
        "gpu_ecc",
        "esper_gpu_ecc_errors_total",
        NVML + "total ECC errors",
        "Memory errors found by ECC: volatile since the driver was loaded, aggregate over the"
        " GPU's life.",
    ),
    counter_in(
        "gpu_xid",
        "esper_gpu_xid_errors_total",
        "derived: NVML's XID events since the exporter was started",
        "Errors that the driver reported, by code (XID). The codes that mean broken hardware are"
        " there from the start.",
    ),
    gauge(
        "gpu_xid",
        "esper_gpu_xid_last_timestamp_seconds",
        "derived: when NVML's last event with this XID came",
        "When the driver last reported an error with this code.",
    ),
    info(
        "esper_gpu_mig_info", MIG_LABELS, "derived: NVML's MIG devices", "A MIG instance of a GPU."
    ),
    gauge(
        "gpu_mig",
        "esper_gpu_mig_memory_used_bytes",
        NVML + "memory info of a MIG device",
        "Memory of a MIG instance in use.",
    ),
    gauge(
        "gpu_mig",
        "esper_gpu_mig_memory_total_bytes",
        NVML + "memory info of a MIG device",
        "Memory of a MIG instance.",
    ),
    Metric(
        name="esper_gpu_used_by_run",
        kind="gauge",
        help="1 for each GPU that a run uses, with the number that CUDA gives it in the training.",
        block="gpu_use",
        labels=(*RUN_LABELS, "uuid", "ordinal"),
        sources=("derived: devices in TRAINING_STARTED, matched to the driver's by UUID",),
    ),
    counter(
        counted.GPU_FIELD_ERRORS,
        "derived: number of NVML calls that failed",
        "Readings of GPUs that failed, by field and error. What a GPU cannot do counts once.",
    ),
)
