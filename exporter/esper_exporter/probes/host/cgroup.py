"""A container's limits and usage: control groups, version 2 and version 1.

Sources: the kernel's `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.
"""

from __future__ import annotations

from pathlib import Path

from esper_exporter.probes.samples import Cells

NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2^63 for "no limit"."""


def read_cgroup(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self")) -> Cells:
    """Limits and usage of this process's control group; missing values have no cell.

    Any ancestor group may set a limit; the smallest one applies. ``root`` and ``proc`` are the
    kernel's mount points.
    """
    groups = _groups(proc)
    if "" in groups and (root / "cgroup.controllers").exists():
        return _version_2(_chain(root, groups[""]))
    cells: dict[tuple[str, ...], float] = {}
    if "memory" in groups:
        cells |= _memory_1(_chain(root / "memory", groups["memory"]))
    if "cpu" in groups:
        quota = [_quota_1(group) for group in _chain(root / "cpu", groups["cpu"])]
        cells |= _smallest("esper_host_cgroup_cpu_limit", quota)
    return cells


def _groups(proc: Path) -> dict[str, str]:
    """Controller → path of this process's group; version 2's single group has the key ""."""
    found = {}
    for line in (_text(proc / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _chain(mount: Path, path: str) -> list[Path]:
    """The group's folder and its ancestors. In a container, where the mount begins at the
    container's group, the path may be the machine's and not exist."""
    group = mount / path.lstrip("/")
    if not group.is_dir():
        group = mount
    return [group, *(each for each in group.parents if each == mount or mount in each.parents)]


def _version_2(chain: list[Path]) -> Cells:
    group = chain[0]
    cells: dict[tuple[str, ...], float] = {
        **_smallest(
            "esper_host_cgroup_memory_limit_bytes", [_number(g / "memory.max") for g in chain]
        ),
        **_smallest("esper_host_cgroup_cpu_limit", [_quota_2(g) for g in chain]),
    }
    used = _number(group / "memory.current")
    if used is not None:
        dropped = _table(group / "memory.stat").get("inactive_file", 0)
        cells[("esper_host_cgroup_memory_used_bytes",)] = max(0.0, used - dropped)
    kills = _table(group / "memory.events").get("oom_kill")
    if kills is not None:
        cells[("esper_host_cgroup_oom_kills_total",)] = kills
    return cells


def _memory_1(chain: list[Path]) -> Cells:
    group = chain[0]
    limits = [_number(each / "memory.limit_in_bytes") for each in chain]
    cells: dict[tuple[str, ...], float] = {
        **_smallest(
            "esper_host_cgroup_memory_limit_bytes",
            [limit if limit is not None and limit < NO_LIMIT else None for limit in limits],
        )
    }
    used = _number(group / "memory.usage_in_bytes")
    if used is not None:
        dropped = _table(group / "memory.stat").get("total_inactive_file", 0)
        cells[("esper_host_cgroup_memory_used_bytes",)] = max(0.0, used - dropped)
    kills = _table(group / "memory.oom_control").get("oom_kill")
    if kills is not None:
        cells[("esper_host_cgroup_oom_kills_total",)] = kills
    return cells


def _quota_2(group: Path) -> float | None:
    parts = (_text(group / "cpu.max") or "").split()
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        return None
    return int(parts[0]) / int(parts[1]) if int(parts[1]) else None


def _quota_1(group: Path) -> float | None:
    quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota / period if quota is not None and period else None


def _smallest(name: str, limits: list[float | None]) -> dict[tuple[str, ...], float]:
    known = [limit for limit in limits if limit is not None]
    return {(name,): min(known)} if known else {}


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    """The number in a file; None without one, and for ``max`` and -1, which mean no limit."""
    text = (_text(path) or "").strip()
    return float(text) if text.isdecimal() else None


def _table(path: Path) -> dict[str, float]:
    """Lines of a name and a number."""
    pairs = (line.split() for line in (_text(path) or "").splitlines())
    return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
