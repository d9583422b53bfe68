"""Checks of this machine: Python, torch, the GPU driver, the port, folders."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from esper_exporter.doctor.check_result import Finding, good, note, problem
from esper_exporter.settings import PREFIX, Settings

OLDEST_PYTHON = (3, 11)
LITTLE_SPACE = 200 * 2**20
"""Free bytes below which latches, pages and telemetry may soon fill the disk."""


def check_python() -> Finding:
    """The interpreter's version and platform."""
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return problem("Python", f"{version} is too old", "use Python 3.11 or newer")
    if sys.platform != "linux":
        return note(
            "Python", f"{version} on {sys.platform}", "the exporter is tested on Linux only"
        )
    return good("Python", f"{version} ({sys.executable})")


def check_torch() -> Finding:
    """torch's version, without importing it; only PolicyProbe and the demo need it."""
    if util.find_spec("torch") is None:
        return note(
            "torch",
            "not installed; only PolicyProbe and the demo need it",
            "pip install torch, to measure a policy",
        )
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return note("torch", "a module of that name exists, without metadata")
    oldest = (2, 1)
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    if numbers < oldest:
        return problem("torch", f"{version} is too old", "install torch 2.1 or newer")
    return good("torch", version)


def check_driver() -> Finding:
    """Whether the GPU driver answers, and how many GPUs it has."""
    from esper_exporter.probes.gpu.driver import NoDriver, ReadError
    from esper_exporter.probes.gpu.nvml import Nvml

    nvml = Nvml()
    try:
        nvml.open()
    except (NoDriver, ReadError) as error:
        present = Path("/proc/driver/nvidia/version").exists()
        if present or shutil.which("nvidia-smi"):
            return problem(
                "GPU driver",
                f"a driver is installed but does not answer: {error}",
                "run nvidia-smi; in a container, pass the GPUs and NVIDIA_DRIVER_CAPABILITIES="
                "compute,utility",
            )
        return note("GPU driver", "no NVIDIA driver: pages will have no GPU metrics")
    try:
        gpus, failed = nvml.gpus()
        versions = nvml.versions()
    except (NoDriver, ReadError) as error:
        return problem("GPU driver", f"it does not answer: {error}", "run nvidia-smi")
    finally:
        nvml.close()
    sentence = f"{len(gpus)} GPU{'s' * (len(gpus) != 1)}, driver {versions.driver or 'unknown'}"
    if failed:
        return problem(
            "GPU driver",
            f"{sentence}; {len(failed)} cannot be read: {', '.join(failed)}",
            "run nvidia-smi; a GPU that fell off the bus needs a reboot",
        )
    return good("GPU driver", sentence)


def check_port(settings: Settings) -> Finding:
    """Whether the port is free, else which process holds it."""
    from esper_exporter.serve.listening import holder

    where = f"{settings.host}:{settings.port}"
    if settings.port is None:
        return good("port", "off: a node agent serves the page, or a unix socket")
    if settings.port == 0:
        return good("port", "0: the exporter takes any free one; a target file or the log shows it")
    try:
        found = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        return problem("port", f"{where}: {error.strerror}", f"set {PREFIX}HOST to an address")
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return problem(
                    "port", f"{where}: {error.strerror}", f"set {PREFIX}PORT or {PREFIX}HOST"
                )
            return problem(
                "port",
                f"{where} is taken by {holder(settings.port)}",
                f"a training here would retry in the background; end that process, or set"
                f" {PREFIX}PORT (0: any free one)",
            )
    return good("port", f"{where} is free")


def check_folders(settings: Settings) -> Iterator[Finding]:
    """The state directory and each configured shared folder: exists, writable, with free space."""
    if settings.state_dir is None:
        yield note(
            "state directory",
            "off: a run's latches are lost when its process is killed",
            f"set {PREFIX}STATE_DIR",
        )
    else:
        yield _check_folder("state directory", "STATE_DIR", settings.state_dir, is_made=True)
    for subject, setting, folder in (
        ("textfile directory", "TEXTFILE_DIR", settings.textfile_dir),
        ("target files", "FILE_SD", settings.file_sd),
        ("telemetry directory", "TELEMETRY_DIR", settings.telemetry_dir),
        ("checkpoint directory", "CHECKPOINT_DIR", settings.checkpoint_dir),
    ):
        if folder is not None:
            yield _check_folder(subject, setting, folder, is_made=setting == "FILE_SD")


def _check_folder(subject: str, setting: str, folder: Path, *, is_made: bool) -> Finding:
    place = folder
    if not folder.exists():
        if not is_made:
            return problem(
                subject, f"{folder} does not exist", f"create it, or change {PREFIX}{setting}"
            )
        place = next(parent for parent in folder.parents if parent.exists())
    if not place.is_dir():
        return problem(subject, f"{place} is not a directory", f"change {PREFIX}{setting}")
    if not _can_write(place):
        return problem(
            subject,
            f"{place} is not writable for this user",
            f"grant write permission, or change {PREFIX}{setting}",
        )
    free = shutil.disk_usage(place).free
    if free < LITTLE_SPACE:
        return problem(
            subject, f"{folder} has {free / 2**20:,.0f} MiB left", "free space on that disk"
        )
    there = "" if folder.exists() else ", created at the first start"
    return good(subject, f"{folder} is writable, {free / 2**30:,.0f} GiB free{there}")


def _can_write(folder: Path) -> bool:
    """Try to write: root passes every permission check, even on a read-only file system."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
