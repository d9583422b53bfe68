"""The words in which GPUs report: throttle reasons, NVLink errors, ECC kinds and scopes."""

from __future__ import annotations

THROTTLE_REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
    "board_limit",
    "reliability",
)
"""Why clocks are below what was asked for, in the order of NVML's bits."""

TIMED_REASONS = (
    "sw_power_cap",
    "sync_boost",
    "board_limit",
    "reliability",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
)
"""Those whose time NVML adds up."""

NVLINK_ERRORS = ("crc_flit", "crc_data", "replay", "recovery")
DIRECTIONS = ("transmit", "receive")
RETIREMENT_CAUSES = ("single_bit", "double_bit")
ECC_KINDS = ("corrected", "uncorrected")
