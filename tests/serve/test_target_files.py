"""Target files: one a process, and gone when the process is."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from esper_exporter.atomic_file import Files
from esper_exporter.serve.registration import page_address
from esper_exporter.serve.target_file import META, Identity, Target, prune
from support.command import run

TARGET = Target("node1:9108", "http", "night-7", "A", "cifar10", "3")


def write(directory: Path, identity: Identity) -> Path:
    path = directory / identity.filename
    assert Files().write(path, TARGET.document(identity))
    return path


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[int]]:
    """The processes of two hundred ranks that all start to register at the same moment."""
    go, begin = os.pipe()
    reported, tell = os.pipe()
    pids = []
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            try:
                os.read(go, 1)
                prune(tmp_path)
                write(tmp_path, Identity.own())
                os.write(tell, b".")
                signal.pause()
            finally:
                os._exit(1)
        pids.append(pid)
    os.write(begin, b"g" * len(pids))
    done = b""
    while len(done) < len(pids):
        done += os.read(reported, 200)
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for end in (go, begin, reported, tell):
        os.close(end)


def test_two_hundred_ranks_start_at_once_and_only_the_dead_are_pruned(
    ranks: list[int], tmp_path: Path
) -> None:
    files = list(tmp_path.iterdir())
    assert len(files) == 200
    reported = [json.loads(path.read_bytes())[0]["labels"] for path in files]
    assert {int(labels[META + "pid"]) for labels in reported} == set(ranks)
    ended = ranks[::4]
    for pid in ended:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    removed = run("prune", tmp_path).stdout.decode().splitlines()
    assert len(removed) == len(ended)
    left = [json.loads(path.read_bytes())[0]["labels"] for path in tmp_path.iterdir()]
    assert {int(labels[META + "pid"]) for labels in left} == set(ranks) - set(ended)


def test_a_file_says_what_prometheus_reads_and_nothing_that_clashes_with_samples() -> None:
    (group,) = json.loads(TARGET.document(Identity.own()))
    assert group["targets"] == ["node1:9108"]
    assert all(name.startswith("__") for name in group["labels"])
    shown = {"run_id": "night-7", "group_id": "A", "task": "cifar10", "rank": "3"}
    assert {META + name: value for name, value in shown.items()}.items() <= group["labels"].items()


OWN = Identity.own()


@pytest.mark.parametrize(
    ("identity", "gone"),
    [
        (OWN, False),
        (replace(OWN, started=OWN.started + 1), True),
        (replace(OWN, pid=2**22 + 1), True),
        (replace(OWN, boot="the one before"), True),
        (replace(OWN, host="another", pid=2**22 + 1), False),
        (replace(OWN, namespace="pid:[1]", pid=2**22 + 1), False),
    ],
    ids=["alive", "pid used again", "ended", "before a reboot", "other host", "other container"],
)
def test_only_what_is_known_to_have_ended_is_removed(
    identity: Identity, gone: bool, tmp_path: Path
) -> None:
    path = write(tmp_path, identity)
    assert prune(tmp_path) == ([path] if gone else [])
    assert path.exists() != gone


def test_what_is_no_target_file_is_left_alone(tmp_path: Path) -> None:
    start = replace(OWN, pid=7).filename
    for name, content in ((start, b""), ("x" + start, b"[]"), ("notes.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / f"a{start}").mkdir()
    assert prune(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_pruning_a_missing_directory_is_reported(tmp_path: Path) -> None:
    done = run("prune", tmp_path / "none")
    assert done.returncode == 1
    assert b"none: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.0.0.1", "10.0.0.1:1"), ("fe80::1", "[fe80::1]:1"), ("localhost", "localhost:1")],
)
def test_the_address_is_the_one_that_is_served(host: str, address: str) -> None:
    assert page_address(host, 1) == address


def test_an_exporter_on_all_addresses_is_reached_by_its_host_name() -> None:
    assert page_address("0.0.0.0", 9108) == f"{OWN.host}:9108"
