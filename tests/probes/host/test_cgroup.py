"""Limits of containers, as the kernel shows them in control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_exporter.probes.host.cgroup import read_cgroup

GIB = 2**30
SELF_2 = "0::/kubepods/pod7\n"
SELF_1 = "9:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(tmp_path: Path, group: str, files: dict[str, str]) -> dict[str, float]:
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    root.mkdir()
    write(proc, {"cgroup": group})
    write(root, files)
    prefix = "esper_host_cgroup_"
    return {cell[0].removeprefix(prefix): v for cell, v in read_cgroup(root, proc).items()}


def test_version_2_reports_limits_use_without_caches_and_kills(tmp_path: Path) -> None:
    reported = read(
        tmp_path,
        SELF_2,
        {
            "cgroup.controllers": "cpu memory",
            "kubepods/memory.max": "max\n",
            "kubepods/pod7/memory.max": f"{16 * GIB}\n",
            "kubepods/pod7/memory.current": f"{10 * GIB}\n",
            "kubepods/pod7/memory.stat": f"anon 5\ninactive_file {3 * GIB}\n",
            "kubepods/pod7/memory.events": "low 0\nmax 9\noom 2\noom_kill 1\n",
            "kubepods/pod7/cpu.max": "250000 100000\n",
        },
    )
    assert reported == {
        "memory_limit_bytes": 16 * GIB,
        "memory_used_bytes": 7 * GIB,
        "cpu_limit": 2.5,
        "oom_kills_total": 1,
    }


def test_the_smallest_limit_of_all_parents_applies(tmp_path: Path) -> None:
    reported = read(
        tmp_path,
        SELF_2,
        {
            "cgroup.controllers": "",
            "kubepods/memory.max": f"{8 * GIB}",
            "kubepods/cpu.max": "100000 100000",
            "kubepods/pod7/memory.max": f"{16 * GIB}",
            "kubepods/pod7/cpu.max": "max 100000",
        },
    )
    assert reported == {"memory_limit_bytes": 8 * GIB, "cpu_limit": 1.0}


def test_a_container_whose_group_is_what_is_mounted(tmp_path: Path) -> None:
    reported = read(
        tmp_path,
        "0::/machine/only/outside\n",
        {"cgroup.controllers": "", "memory.max": "1024", "memory.current": "512"},
    )
    assert reported == {"memory_limit_bytes": 1024, "memory_used_bytes": 512}


def test_version_1_reports_the_same(tmp_path: Path) -> None:
    reported = read(
        tmp_path,
        SELF_1,
        {
            "memory/memory.limit_in_bytes": f"{2**63 - 4096}",
            "memory/docker/abc/memory.limit_in_bytes": f"{4 * GIB}",
            "memory/docker/abc/memory.usage_in_bytes": f"{3 * GIB}",
            "memory/docker/abc/memory.stat": f"total_inactive_file {GIB}\n",
            "memory/docker/abc/memory.oom_control": "oom_kill_disable 0\noom_kill 3\n",
            "cpu/docker/abc/cpu.cfs_quota_us": "150000",
            "cpu/docker/abc/cpu.cfs_period_us": "100000",
        },
    )
    assert reported == {
        "memory_limit_bytes": 4 * GIB,
        "memory_used_bytes": 2 * GIB,
        "cpu_limit": 1.5,
        "oom_kills_total": 3,
    }


@pytest.mark.parametrize(
    ("group", "files"),
    [
        ("", {}),
        (SELF_2, {"cgroup.controllers": "", "kubepods/pod7/memory.max": "max\n"}),
        (SELF_1, {"memory/memory.limit_in_bytes": f"{2**63 - 4096}"}),
        (SELF_1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
        (SELF_1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "0"}),
    ],
)
def test_no_limit_is_no_number(tmp_path: Path, group: str, files: dict[str, str]) -> None:
    assert read(tmp_path, group, files) == {}


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["memory.max", "memory.current", "memory.stat", "memory.events", "cpu.max"]
        ),
        st.text(st.characters(codec="ascii"), max_size=20),
    )
)
def test_odd_files_give_no_error_and_no_negative_number(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    reported = read(tmp_path_factory.mktemp("group"), "0::/\n", {"cgroup.controllers": "", **files})
    assert all(value >= 0 for value in reported.values())
