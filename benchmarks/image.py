"""Try the image: every command as its own user without capabilities, on a read-only root.

usage: python -m benchmarks.image TAG STORAGE      as root, after deploy/image has built it
       python -m benchmarks.image --tree           prints what the image is compared with
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
USER = 10001
CONFINED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    # Podman's own default is more than some machines allow.
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
    "--no-healthcheck",
)
STATUS = """
import os
fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(os.getuid(), fields["CapEff"].strip(), fields["NoNewPrivs"].strip())
"""
READ_ONLY = """
import errno, sys
for path in ("/etc/x", "/opt/esper/x", "/usr/x", "/x"):
    try:
        open(path, "w")
    except OSError as problem:
        assert problem.errno in (errno.EROFS, errno.EACCES), problem
    else:
        sys.exit(f"{path} can be written")
for line in open("/proc/mounts"):
    _, place, _, options, *_ = line.split()
    if place == "/":
        assert "ro" in options.split(","), line
"""
HASHES = """
import hashlib, pathlib, esper_exporter
root = pathlib.Path(esper_exporter.__file__).parent
names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.py"))
whole = hashlib.sha256()
for name in names:
    whole.update(name.encode() + b"\\0" + (root / name).read_bytes())
print(len(names), whole.hexdigest())
"""


class TrialError(Exception):
    """The image does not do what it must; the message is for a person."""


class Image:
    """An image in podman's storage.

    Its containers run on the mounted image itself, with the image's user, environment and entry
    point: without a copy of a gigabyte for each.
    """

    def __init__(self, tag: str, storage: Path) -> None:
        self.tag = tag
        self._podman = [
            *("podman", "--root", str(storage / "images"), "--runroot", str(storage / "run")),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        ]
        self.folder = storage.parent
        (found,) = json.loads(self.podman("image", "inspect", tag))
        self.found: dict[str, Any] = found
        self.config: dict[str, Any] = found["Config"]
        self._root = self.podman("image", "mount", tag).strip()

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Call podman; its output."""
        done = subprocess.run(
            [*self._podman, *arguments], capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise TrialError(f"podman {arguments[0]}: {done.stderr.strip()[-800:]}")
        return done.stdout if check else f"{done.returncode} {done.stderr.strip()[-300:]}"

    @contextlib.contextmanager
    def container(
        self, *command: str, options: tuple[str, ...] = (), network: str = "host"
    ) -> Iterator[str]:
        """A container that runs a command of the entry point; its name."""
        name = f"esper-trial-{secrets.token_hex(4)}"
        program = self.config["Entrypoint"]
        self.podman(
            *("run", "--detach", "--name", name, f"--user={self.config['User']}"),
            f"--network={network}",
            *(f"--env={each}" for each in self.config["Env"]),
            *(*CONFINED, *options, "--rootfs", self._root, *program, *command),
        )
        try:
            yield name
        except TrialError as problem:
            logs = self.podman("logs", name, check=False)
            raise TrialError(f"{problem}\n{logs}") from None
        finally:
            self.podman("rm", "--force", "--time=5", name, check=False)

    def close(self) -> None:
        """Unmount the image."""
        self.podman("image", "unmount", self.tag, check=False)

    def python(self, name: str, program: str) -> str:
        """Run a program with the Python of a container."""
        return self.podman("exec", name, "python", "-c", program).strip()


def report(image: Image) -> None:
    """Print what the image is."""
    found, config = image.found, image.config
    layers = found["RootFS"]["Layers"]
    print(
        f"· {image.tag}: {found['Size'] / 1e6:.0f} MB in {len(layers)} layers,"
        f" user {config['User']}, entry point {' '.join(config['Entrypoint'])}"
    )
    for layer in found["History"]:
        if not layer.get("empty_layer"):
            print("   ", " ".join(layer["created_by"].split())[:100])


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(url: str, wanted: Callable[[str], bool], what: str, seconds: float = 240.0) -> str:
    """Fetch a page until it is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            with urllib.request.urlopen(url, timeout=10) as answer:
                page: str = answer.read().decode()
            if wanted(page):
                return page
        if time.monotonic() > deadline:
            raise TrialError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.5)


def count(page: str, name: str) -> float:
    """The sum of a family's samples."""
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if line.startswith((name + "{",)))
    return sum(float(value) for _, value in lines)


def serves_and_replays(image: Image) -> str:
    """A replayed recording is served, the health check passes, the process has no privilege."""
    port = free_port()
    command = ("replay", "--recording", "run1", "--speed", "60", "--port", str(port))
    health = ("--env", f"ESPER_EXPORTER_PORT={port}")
    with image.container(*command, options=health) as name:
        page = wait_for(
            f"http://127.0.0.1:{port}/metrics",
            lambda text: count(text, "esper_tamiyo_updates_total") > 0,
            "the replay's page",
        )
        uid, capabilities, no_new = image.python(name, STATUS).split()
        if (int(uid), int(capabilities, 16), no_new) != (USER, 0, "1"):
            raise TrialError(f"user {uid}, capabilities {capabilities}, no new privileges {no_new}")
        image.python(name, READ_ONLY)
        samples = sum(not line.startswith("#") for line in page.splitlines())
        return f"{samples} samples; user {uid}, no capability, read-only root"


def is_healthy(image: Image) -> str:
    """The image's own health check, on its own port inside a container without a network."""
    word, *check = image.found["HealthCheck" if "HealthCheck" in image.found else "Healthcheck"][
        "Test"
    ]
    if word != "CMD":
        raise TrialError(f"the health check is no command: {word}")
    command = ("replay", "--recording", "run1", "--host", "0.0.0.0")
    with image.container(*command, network="none") as name:
        deadline = time.monotonic() + 240.0
        while (said := image.podman("exec", name, *check, check=False))[0] != "0":
            if time.monotonic() > deadline:
                raise TrialError(f"the health check: {said}")
            time.sleep(1.0)
    return f"passes on port 9108: {' '.join(check)[:40]}…"


def trains(image: Image) -> str:
    """The demo, which is the image's command: a real training with torch on the CPU."""
    port = free_port()
    command = ("demo", "--port", str(port), "--envs", "2")
    began = time.monotonic()
    with image.container(*command) as name:
        page = wait_for(
            f"http://127.0.0.1:{port}/metrics",
            lambda text: count(text, "esper_tamiyo_updates_total") >= 2,
            "two policy updates of the demo",
        )
        torch = image.python(name, "import torch; print(torch.__version__)")
    updates = count(page, "esper_tamiyo_updates_total")
    return f"{updates:.0f} updates after {time.monotonic() - began:.0f} s with torch {torch}"


def runs_the_agent(image: Image) -> str:
    """An agent in one container shows the run of another, and how it ended.

    Both mount the machine's /dev/shm, as the DaemonSet does; the share is made by their user.
    """
    share = Path(f"/dev/shm/esper-exporter-{USER}")
    mounted = ("--volume", "/dev/shm:/dev/shm")
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with (
            image.container("agent", "--port", str(port), options=mounted),
            image.container(
                *("run", "--run-id", "in-a-container", "--"),
                *("esper-exporter", "demo", "--port", "0", "--envs", "2"),
                options=mounted,
            ) as trainer,
        ):
            wait_for(
                url,
                lambda text: 'run_id="in-a-container' in text,
                "the agent shows the other container's run",
            )
            image.podman("kill", "--signal=TERM", trainer)
            page = wait_for(
                url,
                lambda text: count(text, "esper_run_failed") > 0,
                "the agent shows how the run ended",
            )
        (line,) = [
            each
            for each in page.splitlines()
            if each.startswith("esper_run_failed{") and each.endswith(" 1.0")
        ][:1]
        return f"the other container's run and its end: {line.partition('reason=')[2][:9]}"
    finally:
        shutil.rmtree(share, ignore_errors=True)


def is_of_this_tree(image: Image) -> str:
    """The package in the image is the tree's, file by file."""
    with image.container("agent", "--port", "0") as name:
        found = image.python(name, HASHES).split()
    built_of = (image.folder / "tree").read_text().split()
    if found != built_of:
        raise TrialError(f"{found[0]} modules in the image, {built_of[0]} in the tree, or others")
    return f"{built_of[0]} modules equal the tree's when the build began"


TRIALS: dict[str, Callable[[Image], str]] = {
    "the package is the tree's": is_of_this_tree,
    "serves and replays": serves_and_replays,
    "health check": is_healthy,
    "trains on the CPU": trains,
    "runs the agent": runs_the_agent,
}


def main(tag: str, storage: Path) -> int:
    """Report the size and the layers, run all trials; return the number that failed."""
    image = Image(tag, storage)
    report(image)
    failed = 0
    for name, trial in TRIALS.items():
        began = time.monotonic()
        try:
            said, word = trial(image), "ok"
        except TrialError as problem:
            said, word = str(problem), "FAILED"
            failed += 1
        print(f"{word:7} {name:28} {time.monotonic() - began:4.0f} s  {said}", flush=True)
    image.close()
    return failed


if __name__ == "__main__":
    if sys.argv[1:] == ["--tree"]:
        subprocess.run(
            [sys.executable, "-c", HASHES], env={"PYTHONPATH": str(ROOT / "exporter")}, check=True
        )
        sys.exit()
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
